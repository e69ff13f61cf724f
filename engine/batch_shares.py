"""How learners that make every update together share a batch: as equally as possible.

The batch of the experiment does not change by sharing. From a queue, a batch is R
rollouts of B environments each, R x B columns. If K learners divide R, each takes R / K rollouts.
Otherwise the environments of a rollout are also split among them:

    r = the fewest rollouts (at least R / K) that R x B columns can be made of, by all learners
    learner k steps its part of R x B / r environments, and of its share a batch holds r rollouts

So with R = 1, B = 8 and K = 3 they step 3, 3 and 2 environments. Samples from replay are split as
they are drawn: each learner keeps, and draws from, what its own actors collect.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from engine.algorithms.base import ReplayRequest, SampleRequest
from engine.errors import ConfigError
from engine.graph.cut import Cut
from engine.spec import Experiment
from engine.wording import plural


@dataclass(frozen=True)
class Sharing:
    """The learners' shares of every batch.

    Attributes:
        num_envs: Environments of one actor of each learner.
        rollouts_per_batch: Rollouts in each share; 0 for replay.
        shares: Relative size of each.
    """

    num_envs: tuple[int, ...]
    rollouts_per_batch: int
    shares: tuple[int, ...]


def share_rollouts(num_rollouts: int, num_envs: int, num_learners: int) -> Sharing:
    """Splits a batch of rollouts among learners.

    Args:
        num_rollouts: R.
        num_envs: B.
        num_learners: K.

    Raises:
        ConfigError: There are fewer environments in a batch than learners.
    """
    num_columns = num_rollouts * num_envs
    least = -(-num_rollouts // num_learners)
    per_share = next(r for r in range(least, num_rollouts + 1) if num_columns % r == 0)
    parts = split(num_columns // per_share, num_learners)
    if not parts[-1]:
        raise ConfigError(
            f"a batch of {plural(num_columns, 'environment')} cannot be shared by"
            f" {plural(num_learners, 'learner')}",
            where="algorithm.batch_steps",
            fix=f"use fewer actors, or a batch of {plural(num_learners, 'rollout')}",
        )
    return Sharing(parts, per_share, parts)


def share_samples(batch_size: int, num_envs: int, num_learners: int) -> Sharing:
    """Splits a batch of samples from replay among learners, each with a store of its own.

    Raises:
        ConfigError: There are fewer samples than learners.
    """
    parts = split(batch_size, num_learners)
    if not parts[-1]:
        raise ConfigError(
            f"a batch of {plural(batch_size, 'sample')} cannot be shared by"
            f" {plural(num_learners, 'learner')}",
            where="algorithm.batch_size",
            fix=f"use fewer actors, or at least {plural(num_learners, 'sample')}",
        )
    return Sharing((num_envs,) * num_learners, 0, parts)


def share_of_replay(request: ReplayRequest, sharing: Sharing, learner: int) -> ReplayRequest:
    """The request of one of these learners to its own store, a share of the whole."""
    num_learners = len(sharing.shares)
    return replace(
        request,
        batch_size=sharing.shares[learner],
        capacity=-(-request.capacity // num_learners),
        min_size=-(-request.min_size // num_learners),
    )


def split(count: int, num_parts: int) -> tuple[int, ...]:
    """Parts as equal as possible, the larger ones first."""
    return tuple((count + num_parts - 1 - i) // num_parts for i in range(num_parts))


def check_division(num_envs: int, num_splits: int) -> None:
    """Raises ConfigError if environments cannot be divided into equal splits."""
    if num_envs % num_splits:
        raise ConfigError(
            f"{plural(num_envs, 'environment')} cannot be split into"
            f" {plural(num_splits, 'equal part')}",
            where="env.num_splits",
            fix="use a divisor of the number of environments per actor",
        )


def sharing_of(samples: SampleRequest, experiment: Experiment, cut: Cut) -> Sharing:
    """The learners' shares of a batch of a run; raises ConfigError if it cannot be shared."""
    num_envs, num_learners = experiment.env.num_envs, cut.groups if cut.is_joint else 1
    if samples.replay is not None:
        return share_samples(samples.replay.batch_size, num_envs, num_learners)
    num_rollouts = _rollouts_per_batch(samples, num_envs)
    sharing = share_rollouts(num_rollouts, num_envs, num_learners)
    if num_learners > 1:
        for part in sharing.num_envs:
            check_division(part, experiment.env.num_splits)
        return sharing
    return Sharing((num_envs,), num_rollouts, (1,))


def _rollouts_per_batch(samples: SampleRequest, num_envs: int) -> int:
    """Raises ConfigError if a batch is not a whole number of rollouts."""
    rollout_steps = samples.rollout_steps * num_envs
    if samples.batch_steps % rollout_steps:
        raise ConfigError(
            f"{samples.batch_steps} is not a multiple of a rollout's"
            f" {plural(rollout_steps, 'step')}"
            f" ({plural(samples.rollout_steps, 'step')} of {plural(num_envs, 'environment')}"
            f"{_fitting(samples, num_envs)})",
            where="algorithm.batch_steps",
            fix=f"try {-(-samples.batch_steps // rollout_steps) * rollout_steps}",
        )
    return samples.batch_steps // rollout_steps


def _fitting(samples: SampleRequest, num_envs: int) -> str:
    """Suggests the nearest smaller number of environments that divides a batch evenly."""
    most = samples.batch_steps // samples.rollout_steps
    for fewer in range(min(num_envs, most), 0, -1):
        if samples.batch_steps % (samples.rollout_steps * fewer) == 0:
            return f"; {fewer} would fit"
    return ""
