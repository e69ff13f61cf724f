"""An environment of any spaces that refuses wrong actions; `modules: [space_envs]`.

`AnySpace-v0` has the observation and action spaces that its arguments name, and optionally a mask
of valid actions. It raises if an action is not exactly one of its space, in type, shape, dtype and
range, or if the mask forbids it. An action is rewarded by how good its entries are: the last valid
choice of categorical ones, high values of real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from engine.envs.make import register_environment

ENV_ID = "AnySpace-v0"
EPISODE_STEPS = 7
Space = gymnasium.Space[Any]
INF = np.inf

OBSERVATIONS: dict[str, Callable[[], Space]] = {
    "box": lambda: Box(-1.0, 1.0, (3,), np.float32),
    "box of float64": lambda: Box(-1.0, 1.0, (3,), np.float64),
    "box of float16": lambda: Box(-1.0, 1.0, (3,), np.float16),
    "box of int32": lambda: Box(-5, 5, (3,), np.int32),
    "box of uint8": lambda: Box(0, 255, (3,), np.uint8),
    "box of bool": lambda: Box(0, 1, (3,), np.bool_),
    "box 0-d": lambda: Box(-1.0, 1.0, (), np.float32),
    "box of rank 2": lambda: Box(-1.0, 1.0, (2, 3), np.float32),
    "box of rank 4": lambda: Box(-1.0, 1.0, (1, 2, 1, 2), np.float32),
    "box without bounds": lambda: Box(-INF, INF, (3,), np.float32),
    "image": lambda: Box(0, 255, (10, 10, 3), np.uint8),
    "discrete": lambda: Discrete(4),
    "discrete with start": lambda: Discrete(4, start=-2),
    "multidiscrete": lambda: MultiDiscrete([2, 5]),
    "multidiscrete of rank 2": lambda: MultiDiscrete([[2, 3], [4, 5]]),
    "multidiscrete with start": lambda: MultiDiscrete([2, 5], start=[3, -1]),
    "multibinary": lambda: MultiBinary(3),
    "multibinary of rank 2": lambda: MultiBinary((2, 2)),
    "dict": lambda: spaces.Dict(
        camera=Box(0, 255, (10, 10, 3), np.uint8), speed=Box(-INF, INF, (2,)), gear=Discrete(3)
    ),
    "tuple": lambda: spaces.Tuple((Box(-1.0, 1.0, ()), MultiBinary(2), Discrete(3, start=1))),
    "nested": lambda: spaces.Dict(
        {
            "a.b": spaces.Tuple((Discrete(3), spaces.Dict(c=Box(0, 9, (2,), np.int16)))),
            "d": spaces.Dict(e=MultiDiscrete([2, 3]), f=Box(-1.0, 1.0, (2,))),
        }
    ),
}
"""By the name that the argument `observation` takes."""

ACTIONS: dict[str, Callable[[], Space]] = {
    "discrete": lambda: Discrete(3),
    "discrete with start": lambda: Discrete(3, start=5),
    "multidiscrete": lambda: MultiDiscrete([2, 3]),
    "multidiscrete of rank 2": lambda: MultiDiscrete([[2, 3], [4, 2]]),
    "multidiscrete with start": lambda: MultiDiscrete([2, 3], start=[1, -4]),
    "multibinary": lambda: MultiBinary(3),
    "multibinary of rank 2": lambda: MultiBinary((2, 2)),
    "box": lambda: Box(-2.0, 3.0, (2,), np.float32),
    "box of float64": lambda: Box(-2.0, 3.0, (2,), np.float64),
    "box without bounds": lambda: Box(-INF, INF, (2,), np.float32),
    "box with one bound": lambda: Box(
        np.array([0.0, -INF], np.float32), np.array([INF, 1.0], np.float32)
    ),
    "box of integers": lambda: Box(-3, 4, (2,), np.int32),
    "box 0-d": lambda: Box(-1.0, 1.0, (), np.float32),
    "box of rank 2": lambda: Box(-1.0, 1.0, (2, 2), np.float32),
    "dict (hybrid)": lambda: spaces.Dict(kind=Discrete(3, start=1), force=Box(-1.0, 1.0, (2,))),
    "tuple (hybrid)": lambda: spaces.Tuple((Box(0, 5, (1,), np.int64), MultiBinary(2))),
    "nested (hybrid)": lambda: spaces.Dict(
        arm=spaces.Tuple((Discrete(2), Box(-1.0, 1.0, (2,)))), mode=MultiDiscrete([2, 3])
    ),
}
"""By the name that the argument `action` takes."""


def choices(space: Space) -> list[int]:
    """Number of choices of each categorical entry, in the order in which a mask has them."""
    match space:
        case spaces.Dict():
            return [n for part in space.values() for n in choices(part)]
        case spaces.Tuple():
            return [n for part in space.spaces for n in choices(part)]
        case Discrete():
            return [int(space.n)]
        case MultiDiscrete():
            return [int(n) for n in np.ravel(space.nvec)]
        case MultiBinary():
            return [2] * int(np.prod(space.shape))
    return []


def chosen(space: Space, action: object) -> Iterator[int]:
    """The categorical entries of an action, counted from 0."""
    match space:
        case spaces.Dict():
            assert isinstance(action, dict), f"a dict is wanted, not {action!r}"
            assert set(action) == set(space), f"keys {list(action)}, not {list(space)}"
            for key, part in space.items():
                yield from chosen(part, action[key])
        case spaces.Tuple():
            assert isinstance(action, tuple), f"a tuple is wanted, not {action!r}"
            for part, its_action in zip(space.spaces, action, strict=True):
                yield from chosen(part, its_action)
        case Discrete():
            yield int(np.asarray(action)) - int(space.start)
        case MultiDiscrete():
            yield from (int(n) for n in np.ravel(np.asarray(action) - space.start))
        case MultiBinary():
            yield from (int(n) for n in np.ravel(np.asarray(action)))


def arrays(space: Space, action: Any) -> Iterator[tuple[Space, Any]]:  # noqa: ANN401 - a structure
    """The leaves of an action with their spaces."""
    match space:
        case spaces.Dict():
            for key, part in space.items():
                yield from arrays(part, action[key])
        case spaces.Tuple():
            for part, its_action in zip(space.spaces, action, strict=True):
                yield from arrays(part, its_action)
        case _:
            yield space, action


class AnySpace(gymnasium.Env[Any, Any]):
    """Spaces as named.

    Args:
        observation, action: Keys of `OBSERVATIONS` and `ACTIONS`.
        mask: Where valid actions are said: `none`, `info` or `observation`. A random half of the
            choices is valid, at least one of each entry.
    """

    def __init__(
        self, observation: str = "box", action: str = "discrete", mask: str = "none"
    ) -> None:
        self._inner, self.action_space = OBSERVATIONS[observation](), ACTIONS[action]()
        self._nvec = choices(self.action_space)
        self._where = mask
        self._mask = np.ones(sum(self._nvec), np.int8)
        self._age = 0
        self.observation_space = self._inner
        if mask == "observation":
            parts = dict(self._inner) if isinstance(self._inner, spaces.Dict) else None
            parts = parts or {"observation": self._inner}
            mask_space = Box(0, 1, self._mask.shape, np.int8)
            self.observation_space = spaces.Dict({**parts, "action_mask": mask_space})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._inner.seed(seed)
        self._age = 0
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        self._check(action)
        reward = self._worth(action)
        self._age += 1
        observation, info = self._observe()
        has_ended = self._age >= EPISODE_STEPS
        return observation, reward, has_ended, False, info

    def _check(self, action: Any) -> None:  # noqa: ANN401 - a structure
        entries = list(chosen(self.action_space, action))
        for space, value in arrays(self.action_space, action):
            array = np.asarray(value)
            assert array.dtype == space.dtype, f"dtype {array.dtype}, not {space.dtype}"
            assert array.shape == space.shape, f"shape {array.shape}, not {space.shape}"
            assert space.contains(value), f"{value!r} is not in {space}"
        first = 0
        for n, entry in zip(self._nvec, entries, strict=True):
            assert self._mask[first : first + n][entry], f"{entry} is masked out: {self._mask}"
            first += n

    def _worth(self, action: Any) -> float:  # noqa: ANN401 - a structure
        worth, first = [], 0
        for n, entry in zip(self._nvec, chosen(self.action_space, action), strict=True):
            worth.append(float(entry == np.flatnonzero(self._mask[first : first + n])[-1]))
            first += n
        for space, value in arrays(self.action_space, action):
            if isinstance(space, Box):
                worth.append(float(np.tanh(np.mean(value))))
        return float(np.mean(worth))

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        if self._where != "none":
            self._draw_mask()
        observation = self._inner.sample()
        if self._where == "observation":
            parts = dict(observation) if isinstance(observation, dict) else None
            parts = parts or {"observation": observation}
            return {**parts, "action_mask": self._mask.copy()}, {}
        return observation, {"action_mask": self._mask.copy()} if self._where == "info" else {}

    def _draw_mask(self) -> None:
        first = 0
        for n in self._nvec:
            part = self.np_random.random(n) < 0.5
            part[self.np_random.integers(n)] = True
            self._mask[first : first + n] = part
            first += n


register_environment(ENV_ID, AnySpace)
