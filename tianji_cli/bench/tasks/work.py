"""Parts of a task: environment, algorithm, network and judging. Pure data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from msgspec import Meta

from engine.spec import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Scalar,
    Spec,
    UnitInterval,
)
from engine.wording import plural

ATARI, MINATAR = "ALE", "MinAtar"
OBSERVATIONS = {
    ATARI: "84 x 84 grey, 4 frames stacked, frame skip 4 (maximum of the last 2), at most 30"
    " no-ops and FIRE at the start, no sticky actions",
    MINATAR: "10 x 10 x channels, sticky actions 0.1, useful actions only, at most 5000 steps",
}
"""By namespace of the environment's id; others are as the environment has them."""


class BenchEnv(Spec, frozen=True, kw_only=True):
    """The environment, by the id that TianJi has for it."""

    id: str
    """A Gymnasium id; of several agents `pettingzoo:MODULE` or `module:function`."""
    clip_reward: bool = False
    """Learn from the sign of rewards; returns are always the environment's own."""
    backend: Literal["gymnasium", "torch"] = "gymnasium"
    """What TianJi's actors step: `torch` is its version of tensors, compiled with acting."""

    @property
    def namespace(self) -> str:
        """`ALE`, `MinAtar`, or empty."""
        head, slash, _ = self.id.partition("/")
        return head if slash else ""

    def settings(self) -> dict[str, Scalar]:
        """Rows of the parity table."""
        return {
            "environment": self.id,
            "observations": OBSERVATIONS.get(self.namespace, "unchanged"),
            "reward to learn from": "its sign" if self.clip_reward else "the environment's",
        }


PositiveUnit: TypeAlias = Annotated[float, Meta(gt=0.0, le=1.0)]
_OF_BOX_ACTIONS: dict[str, Scalar] = {
    "actions": "(-1, 1), scaled to the environment's bounds; uniform until min_replay_size",
    "gradient clipping": "off",
    "replay": "uniform, 1 step",
}
"""Requirements without a key, of the algorithms that act in a Box."""


class BenchPpo(Spec, frozen=True, kw_only=True, tag_field="name", tag="ppo"):
    """PPO's hyperparameters, in TianJi's names; each adapter translates them."""

    learning_rate: PositiveFloat
    """Step size of Adam."""
    discount: UnitInterval
    """Gamma."""
    gae_lambda: UnitInterval
    """Lambda of generalised advantage estimation."""
    clip_range: PositiveFloat
    """Epsilon of the clipped surrogate."""
    entropy_coefficient: NonNegativeFloat
    """Weight of the entropy bonus in the loss."""
    value_coefficient: NonNegativeFloat
    """Weight of the value loss."""
    max_gradient_norm: PositiveFloat
    """Longer gradients are scaled down to this norm."""
    batch_steps: PositiveInt
    """Env steps of one batch."""
    minibatch_steps: PositiveInt
    """Env steps of one optimiser step; divides `batch_steps`."""
    num_epochs: PositiveInt
    """How many times each batch is gone through."""

    practices: ClassVar[dict[str, Scalar]] = {
        "advantage normalisation": "per minibatch",
        "value loss clipping": "off",
    }
    """Requirements without a key that all systems should meet alike."""

    @property
    def in_flight_steps(self) -> int:
        """Env steps that can be in transit to the learner: two batches."""
        return 2 * self.batch_steps

    @property
    def samples_per_env_step(self) -> float:
        """How often each env step is trained."""
        return self.num_epochs


class BenchIppo(BenchPpo, frozen=True, kw_only=True, tag_field="name", tag="ippo"):
    """Independent PPO's hyperparameters; env steps are those of the team, of all its agents."""

    practices: ClassVar[dict[str, Scalar]] = {
        **BenchPpo.practices,
        "policies": "one, shared by all agents, which see their number",
    }


class BenchImpala(Spec, frozen=True, kw_only=True, tag_field="name", tag="impala"):
    """IMPALA's hyperparameters, in TianJi's names."""

    learning_rate: PositiveFloat
    """Step size of Adam."""
    discount: UnitInterval
    """Gamma."""
    entropy_coefficient: NonNegativeFloat
    """Weight of the entropy bonus in the loss."""
    value_coefficient: NonNegativeFloat
    """Weight of the value loss."""
    max_gradient_norm: PositiveFloat
    """Longer gradients are scaled down to this norm."""
    batch_steps: PositiveInt
    """Env steps of one batch, which is one optimiser step."""

    practices: ClassVar[dict[str, Scalar]] = {
        "correction": "V-trace, rho and c at most 1",
        "loss": "mean over steps",
        "optimiser": "Adam",
        "waiting batches": 3,
    }

    @property
    def in_flight_steps(self) -> int:
        """Env steps that can be in transit to the learner: waiting, and a batch at each end."""
        return 5 * self.batch_steps

    @property
    def samples_per_env_step(self) -> float:
        return 1


class BenchFromReplay(Spec, frozen=True, kw_only=True):
    """The hyperparameters that all algorithms with a replay store have, in TianJi's names."""

    learning_rate: PositiveFloat
    """Step size of Adam, of all that learns."""
    discount: UnitInterval
    """Gamma."""
    batch_size: PositiveInt
    """Transitions of one optimiser step."""
    replay_ratio: PositiveFloat
    """Samples trained for each env step collected; `batch_size`: one optimiser step for each."""
    replay_capacity: PositiveInt
    """Env steps that the replay store holds."""
    min_replay_size: PositiveInt
    """Env steps collected before training starts."""

    @property
    def in_flight_steps(self) -> int:
        """Env steps that can be in transit to the replay store."""
        return self.min_replay_size

    @property
    def samples_per_env_step(self) -> float:
        return self.replay_ratio


class BenchDqn(BenchFromReplay, frozen=True, kw_only=True, tag_field="name", tag="dqn"):
    """DQN's hyperparameters, in TianJi's names."""

    target_update_period: PositiveInt
    """Optimiser steps between two copies into the target network."""
    epsilon_initial: UnitInterval
    """Probability of a random action at the start."""
    epsilon_final: UnitInterval
    """Probability of a random action after the decay."""
    epsilon_decay_env_steps: PositiveInt
    """Env steps over which epsilon falls linearly."""
    max_gradient_norm: PositiveFloat
    """Longer gradients are scaled down to this norm."""

    practices: ClassVar[dict[str, Scalar]] = {
        "double": "on",
        "loss": "Huber, mean over samples",
        "replay": "uniform, 1 step",
    }


class BenchSac(BenchFromReplay, frozen=True, kw_only=True, tag_field="name", tag="sac"):
    """SAC's hyperparameters, in TianJi's names; the entropy coefficient is learnt."""

    target_update_rate: PositiveUnit
    """How far the target critics move to the critics after each optimiser step."""

    practices: ClassVar[dict[str, Scalar]] = {
        "critics": "2, the minimum of both targets",
        "entropy coefficient": "learnt from 1, target entropy -1 per action dimension",
        **_OF_BOX_ACTIONS,
    }


class BenchTd3(BenchFromReplay, frozen=True, kw_only=True, tag_field="name", tag="td3"):
    """TD3's hyperparameters, in TianJi's names."""

    target_update_rate: PositiveUnit
    """How far the target networks move at each step of the policy."""
    policy_delay: PositiveInt
    """Optimiser steps of the critics for one of the policy."""
    exploration_noise: NonNegativeFloat
    """Standard deviation of the normal noise on actions, which are in (-1, 1)."""
    policy_noise: NonNegativeFloat
    """Likewise, of the noise on the target policy's actions."""
    policy_noise_limit: NonNegativeFloat
    """That noise is clipped to plus or minus this."""

    practices: ClassVar[dict[str, Scalar]] = {
        "critics": "2, the minimum of both targets",
        **_OF_BOX_ACTIONS,
    }


Algorithm: TypeAlias = BenchPpo | BenchIppo | BenchImpala | BenchDqn | BenchSac | BenchTd3


class BenchNetwork(Spec, frozen=True, kw_only=True):
    """Networks that every system can build."""

    name: Literal["mlp", "nature_cnn", "minatar_cnn"] = "mlp"
    """`mlp`: fully connected layers, separate for policy and values. `nature_cnn` (Mnih et
    al., 2015) and `minatar_cnn` (Young & Tian, 2019) are shared by policy and value."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of each hidden layer of `mlp`."""
    activation: Literal["tanh", "relu"] = "tanh"
    """After each hidden layer of `mlp`."""
    initialization: Literal["orthogonal", "uniform"] = "orthogonal"
    """Of the weights of `mlp`; `uniform` is PyTorch's own, which SB3's SAC and TD3 have."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic in convolutional trunks; all else is float32."""

    def words(self, *, has_policy: bool) -> str:
        """For the parity table; `has_policy` is false where there are action values only."""
        if self.name == "mlp":
            sizes = " x ".join(map(str, self.hidden_sizes))
            apart = ", policy and value apart" * has_policy
            return f"{sizes}, {self.activation}{apart}" + (
                ", PyTorch's initial weights" * (self.initialization == "uniform")
            )
        layers = {
            "nature_cnn": "convolutions 32 of 8/4, 64 of 4/2, 64 of 3/1, 512 units, relu, shared",
            "minatar_cnn": "convolution 16 of 3/1, 128 units, relu, shared",
        }[self.name]
        return layers + (", in bfloat16" * (self.precision == "bfloat16"))


class Judging(Spec, frozen=True, kw_only=True):
    """How the harness decides that the threshold was reached: by the same rule for all systems.

    Training returns, because not every system can evaluate during its training, and all must be
    judged alike. One lucky episode is not enough: the mean must hold.
    """

    returns: Literal["training"] = "training"
    """Those of training episodes."""
    window: PositiveInt = 100
    """Number of finished training episodes, exploration included, in the mean return."""
    sustained_episodes: PositiveInt = 10
    """Number of consecutive episodes after which the mean is at or above the threshold."""

    def words(self, threshold: float) -> str:
        """For the parity table."""
        return (
            f"mean of the last {plural(self.window, 'training episode')} at least {threshold:g}"
            f" after {plural(self.sustained_episodes, 'episode')} in a row"
        )
