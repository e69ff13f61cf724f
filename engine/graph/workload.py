"""The sizes of a run's work: what a rollout, a batch and the weights are, in steps and bytes.

They are all that deciding where time goes needs to know of algorithm and environment, so a planner
can reckon with them without torch.
"""

from __future__ import annotations

import msgspec


class ReplayWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a learner draws from its replay store.

    Attributes:
        ratio: Samples trained per env step collected.
        min_size, capacity: Of the store, in env steps.
        batch_samples: Samples of one batch.
        keeps_in_step: Whether actors use only the newest weights.
        has_priorities: Whether the learner answers each batch with priorities.
    """

    ratio: float
    min_size: int
    capacity: int
    batch_samples: int
    keeps_in_step: bool
    has_priorities: bool


class GroupWork(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one learner and its actors.

    Attributes:
        num_steps, num_envs: T and B of a rollout.
        rollouts_per_batch: From a queue; 0 for replay.
        rollout_bytes, batch_bytes, priority_bytes: Of a rollout, of drawn samples and of their
            priorities.
        replay: Set if samples come from a replay store.
    """

    num_steps: int
    num_envs: int
    rollouts_per_batch: int
    rollout_bytes: int
    batch_bytes: int = 0
    priority_bytes: int = 0
    replay: ReplayWork | None = None

    @property
    def rollout_steps(self) -> int:
        """Env steps of a rollout, at most."""
        return self.num_steps * self.num_envs

    @property
    def batch_size(self) -> int:
        """Samples that one `update` sees."""
        if self.replay is not None:
            return self.replay.batch_samples
        return self.rollouts_per_batch * self.rollout_steps


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a run.

    Attributes:
        weights_bytes: Of the flat parameters.
        groups: By learner. Learners that do not share batches are all equal, and have one entry.
    """

    weights_bytes: int
    groups: tuple[GroupWork, ...]

    def of_group(self, group: int) -> GroupWork:
        """The work of this learner."""
        return self.groups[group % len(self.groups)]


class ActorSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many environments an actor could step together.

    Attributes:
        num_envs: B of a rollout.
        rollouts_per_batch: From a queue, of all learners together; 0 for replay.
        env_steps_per_s: What one such actor collected; 0 if that was not measured.
    """

    num_envs: int
    rollouts_per_batch: int
    env_steps_per_s: float = 0.0


class MeasuredWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a short measurement says of the work of a run.

    Attributes:
        sizes: That suit the experiment, with fewest environments first.
        learnt_per_s: Env steps that one learner takes in eager mode, in a second; 0 if that was not
            measured.
    """

    sizes: tuple[ActorSize, ...]
    learnt_per_s: float = 0.0
