"""The hyperparameters of PPO."""

from __future__ import annotations

import math
from typing import Literal

from engine.algorithms.actor_critic import entropy_schedule
from engine.algorithms.off_policy.corrections import check_truncation
from engine.algorithms.schedules import linear
from engine.errors import ConfigError
from engine.spec import (
    NetworkSpec,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Spec,
    UnitInterval,
)


class PpoConfig(Spec, frozen=True, kw_only=True):
    """Proximal policy optimisation with a clipped surrogate (Schulman et al., 2017)."""

    learning_rate: PositiveFloat = 3e-4
    """Step size of Adam."""
    learning_rate_final: NonNegativeFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `learning_rate` is constant."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    gae_lambda: UnitInterval = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the value of the next state, 1 only
    the rewards."""
    clip_range: PositiveFloat = 0.2
    """Epsilon: how far the probability ratio can move before its gradient is cut."""
    clip_range_final: PositiveFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `clip_range` is constant."""
    value_clip_range: PositiveFloat | None = None
    """How far a value can move from that before the update before its gradient is cut; `null`: any
    distance."""
    entropy_coefficient: NonNegativeFloat = 0.01
    """Weight of the entropy bonus in the loss; more of it explores longer."""
    entropy_coefficient_final: NonNegativeFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `entropy_coefficient` is constant."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_gradient_norm: PositiveFloat = 0.5
    """Longer gradients are scaled down to this norm."""
    rollout_steps: PositiveInt = 50
    """Steps of each environment in one rollout."""
    batch_steps: PositiveInt = 400
    """Env steps of one batch, after which there is a new weights version: a multiple of
    `rollout_steps` times `env.num_envs`."""
    minibatch_steps: PositiveInt = 200
    """Env steps of one optimiser step; divides `batch_steps`. With `network.core` a multiple of
    `rollout_steps`."""
    num_epochs: PositiveInt = 8
    """How many times each batch is gone through."""
    target_kl: PositiveFloat | None = None
    """The update ends after an epoch whose last minibatch shows a larger KL divergence from the
    policy that acted, or if `decoupled` from the proximal one; `null`: after `num_epochs`."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of returns, kept by the learner."""
    normalized_reward_limit: PositiveFloat | None = None
    """Clip rewards to this distance from 0 after that; `null`: no limit. Only with
    `normalize_reward`."""
    normalize_advantage: bool = True
    """Normalise advantages over the valid steps of each minibatch."""
    decoupled: bool = False
    """Clip the ratio to the policy that the learner has when it takes the batch, the proximal one,
    instead of the one that acted (Hilton et al., 2021); see `max_importance`."""
    max_importance: PositiveFloat = 2.0
    """Truncation of the importance weight of the proximal policy to the one that acted, by which
    the loss of a step is multiplied. Only if `decoupled`."""
    advantages: Literal["gae", "vtrace"] = "gae"
    """`vtrace`: correct advantages and value targets for the policy that acted, as APPO does;
    `gae_lambda` is its lambda too."""
    max_rho: PositiveFloat = 1.0
    """Truncation of the importance weight of a step. Only with `advantages: vtrace`."""
    max_c: PositiveFloat = 1.0
    """Truncation of the weights of a trace. Only with `advantages: vtrace`."""
    lag_weights: bool = False
    """Weight each step by 1 / (1 + lag), in weights versions."""
    ess_learning_rate: UnitInterval = 0.0
    """Multiply the learning rate of an update by this power of its effective sample size, as a
    share of the batch; 0.5 suits Adam (Huang et al., 2026), 0 leaves it."""

    diagnostics: bool = True
    """Report the importance ratios of each batch, as a whole and by lag, in the trace."""

    @property
    def needs_ratio(self) -> bool:
        """Whether an update needs the importance ratios of its batch before it begins."""
        return self.decoupled or self.advantages == "vtrace" or self.ess_learning_rate > 0

    def limits(self, progress: float) -> tuple[float, float]:
        """Of the logarithm of a ratio, beyond which it is clipped at this progress."""
        clip_range = changing(self, progress).get("clip_range", self.clip_range)
        return math.log(max(1 - clip_range, 1e-9)), math.log(1 + clip_range)

    @property
    def corrects_staleness(self) -> bool:
        """Whether an option is in use that makes up for samples of any age; weights by lag and
        smaller steps only lessen what these do."""
        return self.decoupled or self.advantages == "vtrace"


METRICS = ("policy_loss", "value_loss", "entropy", "approximate_kl")
DIVERGENCE = METRICS.index("approximate_kl")
UNREAD_BY_STEP = (
    *("learning_rate", "learning_rate_final", "discount", "gae_lambda"),
    *("num_epochs", "target_kl", "normalized_reward_limit"),
    *("advantages", "max_rho", "max_c"),
)
"""Hyperparameters that no gradient step reads; advantages come with the samples."""
UNREAD_BY_PREPARING = (
    *("learning_rate", "learning_rate_final", "clip_range", "clip_range_final"),
    *("entropy_coefficient", "entropy_coefficient_final", "value_coefficient"),
    *("max_gradient_norm", "minibatch_steps", "num_epochs", "target_kl", "normalize_advantage"),
)
"""Those that nothing before the steps reads."""
CORRECTIONS = ("decoupled=true", "advantages=vtrace")
"""Settings that correct for stale samples; see `SampleRequest.corrections`."""
SCHEDULES = ("learning_rate_final", "clip_range_final", "entropy_coefficient_final")
ADAM_EPSILON = 1e-5


def changing(config: PpoConfig, progress: float) -> dict[str, float]:
    """What the loss reads as samples because it changes, by the name of its hyperparameter."""
    values = {}
    if config.clip_range_final is not None:
        values["clip_range"] = linear(config.clip_range, config.clip_range_final, progress)
    return values | entropy_schedule(config, progress)


def check_config(config: PpoConfig, network: NetworkSpec) -> None:
    """Checks the rules that involve several hyperparameters.

    Raises:
        ConfigError: One is broken; `where` is its key.
    """
    if config.batch_steps % config.minibatch_steps:
        raise ConfigError(
            f"{config.minibatch_steps} does not divide batch_steps {config.batch_steps}",
            where="algorithm.minibatch_steps",
            fix="choose a divisor",
        )
    if network.core is not None and config.minibatch_steps % config.rollout_steps:
        raise ConfigError(
            f"with network.core a minibatch is whole sequences of rollout_steps"
            f" {config.rollout_steps}, of which {config.minibatch_steps} is no multiple",
            where="algorithm.minibatch_steps",
            fix="choose a multiple of algorithm.rollout_steps",
        )
    if config.normalized_reward_limit is not None and not config.normalize_reward:
        raise ConfigError(
            "rewards are not normalised",
            where="algorithm.normalized_reward_limit",
            fix="set algorithm.normalize_reward=true, or leave the limit out",
        )
    check_truncation(config.max_rho, config.max_c)
