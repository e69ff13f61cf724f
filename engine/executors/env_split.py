"""The environments of an actor in splits that step in turn: double-buffered sampling.

While some splits step, each in its own thread, actions are chosen for another (Petrenko et al.,
2020, section 3.2). This helps if stepping is slow and releases Python's lock. With one split there
are no threads: choose, step, choose, step. An abandoned rollout counts the steps that all splits
have finished.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.algorithms.base import Spaces
from engine.blueprint import Blueprint
from engine.envs.make import make_vector_env
from engine.envs.observed import Observed
from engine.executors.remote_env import Array, RemoteEnv, StepResult
from engine.roles.events import StepWanted
from engine.spec import EnvSpec
from engine.timing import ENVIRONMENT, Sections


class EnvSplit(ABC):
    """Some environments, and the destination of what they return.

    Args:
        columns: Theirs along axis B.
        names: The fields that observations and masks go to.
        is_plain: Whether an observation is one array and nothing else.
    """

    def __init__(self, columns: slice, names: Sequence[str], is_plain: bool) -> None:
        self.columns = columns
        self._names = names
        self._is_plain = is_plain
        self._t = 0

    def bind(self, views: Mapping[str, Array], earned: Array, lives: Array | None) -> None:
        """Directs further steps into this rollout.

        Args:
            views: Its fields, [T, B, ...] or [T+1, B, ...].
            earned: Where rewards go, float64 [T, B].
            lives: Receives the remaining lives, int64 [T+1, B]; None if they are not used.
        """
        columns = self.columns
        self._observed = {name: views[name][:, columns] for name in self._names}
        self._observation = self._observed[self._names[0]]
        self._action = views["action"][:, columns]
        self._terminated = views["terminated"][:, columns]
        self._truncated = views["truncated"][:, columns]
        self._earned = earned[:, columns]
        self._lives = None if lives is None else lives[:, columns]

    @abstractmethod
    def begin(self, t: int) -> None:
        """Starts step t with the actions in the rollout."""

    @abstractmethod
    def finish(self) -> Generator[StepWanted, None, None] | None:
        """Writes the result of the started step; a generator does so when it ends."""

    @abstractmethod
    def close(self) -> None:
        """Releases the environments once no step is running."""

    @abstractmethod
    def _arrays(self, result: StepResult) -> Mapping[str, Array]:
        """Leaves and mask of a result by name, each [columns, ...]; not if it is plain."""

    @property
    def ended(self) -> Array:
        """Which episodes the last step has ended, bool [columns]."""
        ended: Array = self._terminated[self._t] | self._truncated[self._t]
        return ended

    @property
    def next_row(self) -> int:
        """Row of what the last step led to."""
        return self._t + 1

    def _enter(self, result: StepResult) -> None:
        t = self._t
        observation, self._earned[t], self._terminated[t], self._truncated[t], info = result
        if self._is_plain:
            self._observation[t + 1] = observation
        else:
            arrays = self._arrays(result)
            for name, target in self._observed.items():
                target[t + 1] = arrays[name]
        if self._lives is not None:
            self._lives[t + 1] = info.get("lives", self._lives[t])


class LocalSplit(EnvSplit):
    """Environments of this process.

    Args:
        columns: See `EnvSplit`.
        spec: Their spec, with the `num_envs` of this split.
        spaces: Of the run.
        names: See `EnvSplit`.
        seed: Of the first one; the others have those after it.
        sections: Where stepping, or waiting for it, is counted.
        has_thread: Whether steps run in a thread beside the caller.

    Attributes:
        first: What the reset returned, by name, each [columns, ...].
    """

    def __init__(
        self,
        columns: slice,
        spec: EnvSpec,
        spaces: Spaces,
        names: Sequence[str],
        seed: int,
        sections: Sections,
        *,
        has_thread: bool,
    ) -> None:
        self.env = make_vector_env(spec)
        space = self.env.single_observation_space
        self._of = Observed(space, spaces, spec.num_envs, spec.id, columns.start)
        super().__init__(columns, names, self._of.is_plain)
        self.first = self._of.arrays(*self.env.reset(seed=seed))
        self._pool = ThreadPoolExecutor(1, "environments") if has_thread else None
        self._wait = sections.timed(ENVIRONMENT, operator.call)
        self._outcome: Callable[[], StepResult]

    def begin(self, t: int) -> None:
        self._t = t
        if self._pool is None:
            self._outcome = partial(self.env.step, self._action[t])
        else:
            self._outcome = self._pool.submit(self.env.step, self._action[t]).result

    def finish(self) -> None:
        self._enter(self._wait(self._outcome))

    def _arrays(self, result: StepResult) -> Mapping[str, Array]:
        observation, *_, info = result
        return self._of.arrays(observation, info, self.ended)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self.env.close()


class RemoteSplit(EnvSplit):
    """Environments that another role steps.

    Args:
        columns: See `EnvSplit`.
        names: See `EnvSplit`.
        remote: The actor's end of the connection.
    """

    def __init__(self, columns: slice, names: Sequence[str], remote: RemoteEnv) -> None:
        super().__init__(columns, names, is_plain=False)
        self._remote = remote

    def begin(self, t: int) -> None:
        self._t = t

    def finish(self) -> Generator[StepWanted, None, None]:
        result = yield from self._remote.step(self._action[self._t])
        if (joint := result[-1].get("action")) is not None:
            self._action[self._t] = joint
        self._enter(result)

    def _arrays(self, result: StepResult) -> Mapping[str, Array]:
        arrays: Mapping[str, Array] = result[0]
        return arrays

    def close(self) -> None:
        self._remote.close()


def make_local_splits(blueprint: Blueprint, seed: int, sections: Sections) -> list[LocalSplit]:
    """All environments of an actor. The i-th one has the same seed for every split, if it has its
    own random numbers (a vectorised version can draw for all its environments together)."""
    spec = blueprint.env
    columns = spec.columns
    return [
        LocalSplit(
            of_part,
            spec.part,
            blueprint.spaces,
            blueprint.observed,
            seed + of_part.start,
            sections,
            has_thread=len(columns) > 1,
        )
        for of_part in columns
    ]
