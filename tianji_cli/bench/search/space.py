"""The points of a search space: those of a grid, its corners. Pure."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from engine.spec import Scalar
from engine.wording import plural
from tianji_cli.bench.search.spec import (
    MAX_TRIALS,
    CategoricalRange,
    FloatRange,
    IntRange,
    Range,
    Search,
)

Params = dict[str, Scalar]
"""A setting: a value for each key of the space."""
MAX_POINTS = 2**53
"""Of a grid from which points are drawn."""
ROUNDING = 1e-9
"""Of steps: three of 0.1 lead from 0 to 0.3, not to the next number above it."""


class Flaw(NamedTuple):
    """Why a search cannot be used.

    Attributes:
        path: The key inside the search.
        what, fix: As of an error.
    """

    path: tuple[str, ...]
    what: str
    fix: str = ""


EXAMPLE = "such as algorithm.learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}"


def flaws_of(search: Search) -> Iterator[Flaw]:
    """Broken rules that involve several fields, the first one first."""
    if not search.space:
        yield Flaw(("space",), "there is nothing to search", EXAMPLE)
    is_grid = search.sampler == "grid"
    for key, found in search.space.items():
        if problem := _problem(found, is_grid=is_grid):
            yield Flaw(("space", key), problem, EXAMPLE)
            return
    if not is_grid:
        if search.trials is None:
            yield Flaw((), "the key 'trials' is missing", "trials: 20")
        return
    size = math.prod(_size(found) for found in search.space.values())
    if size > MAX_POINTS:
        yield Flaw(("space",), f"the grid has {plural(size, 'point')}", "set fewer points")
    if search.trials is None and size > MAX_TRIALS:
        what = f"the grid has {plural(size, 'point')}"
        yield Flaw((), what, "trials: 100, which are then taken at random")
    if search.trials is not None and search.trials > size:
        what = f"the grid has only {plural(size, 'point')}"
        yield Flaw(("trials",), what, f"trials: {size}")


def _problem(found: Range, *, is_grid: bool) -> str:
    """What is wrong with a range; empty if nothing is."""
    if isinstance(found, CategoricalRange):
        words = [msgspec.json.encode(choice) for choice in found.choices]
        return "a choice is named twice" if len(set(words)) < len(words) else ""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return "the bounds must be finite"
    if found.low >= found.high:
        return f"low is not below high: {found.low:g} and {found.high:g}"
    if found.log and found.low <= 0:
        return f"a logarithmic scale begins above 0, not at {found.low:g}"
    if found.log and found.step not in (None, 1):
        return "log and step exclude each other"
    if found.points is not None and not is_grid:
        return "only the sampler grid has points"
    if is_grid and isinstance(found, FloatRange) and (found.step is None) == (found.points is None):
        return "a grid needs points, or else a step"
    if is_grid and (size := _size(found)) > MAX_TRIALS:
        return f"{plural(size, 'value')} are too many for a grid: set points"
    return ""


def num_trials(search: Search) -> int:
    """How many settings are tried."""
    if search.trials is not None:
        return search.trials
    return math.prod(_size(found) for found in search.space.values())


def grid_points(search: Search) -> list[Params]:
    """The settings that a grid tries, by number of the trial: all points, or some at random.

    In random order, so that a search that is ended early has seen the whole space.
    """
    values = [_values(found) for found in search.space.values()]
    size = math.prod(len(each) for each in values)
    drawn = random.Random(f"grid {search.seed}").sample(range(size), num_trials(search))
    return [dict(zip(search.space, _point(number, values), strict=True)) for number in drawn]


def _point(number: int, values: Sequence[Sequence[Scalar]]) -> list[Scalar]:
    """The point of this number; the last key changes fastest."""
    chosen = []
    for each in reversed(values):
        number, index = divmod(number, len(each))
        chosen.append(each[index])
    return chosen[::-1]


def corners(search: Search) -> list[Params]:
    """Settings that use every bound and every choice at least once, to be checked beforehand."""
    ends = [
        found.choices if isinstance(found, CategoricalRange) else (found.low, _last(found))
        for found in search.space.values()
    ]
    most = max(len(each) for each in ends)
    return [
        dict(zip(search.space, [each[min(n, len(each) - 1)] for each in ends], strict=True))
        for n in range(most)
    ]


def contains(search: Search, params: Mapping[str, object]) -> bool:
    """Whether a setting, read from a file, is one of this space."""
    return params.keys() == search.space.keys() and all(
        _holds(search.space[key], value) for key, value in params.items()
    )


def seed_of(search: Search, task: str, trial: int) -> int:
    """The sampler's seed for one trial: it does not depend on which process asks, so a search that
    was interrupted draws the same settings as one that was not."""
    digest = hashlib.sha256(f"{search.seed} {task} {trial}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _holds(found: Range, value: object) -> bool:
    if isinstance(found, CategoricalRange):
        return any(type(value) is type(choice) and value == choice for choice in found.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    is_whole = isinstance(found, FloatRange) or isinstance(value, int)
    return is_whole and found.low <= value <= found.high


def _last(found: FloatRange | IntRange) -> float:
    """The highest value that can be drawn."""
    if found.step is None:
        return found.high
    return min(found.high, found.low + _num_steps(found) * found.step)


def _num_steps(found: FloatRange | IntRange) -> int:
    assert found.step is not None, "checked"
    return math.floor((found.high - found.low) / found.step + ROUNDING)


def _size(found: Range) -> int:
    if isinstance(found, CategoricalRange) or found.points is not None:
        return len(_values(found))
    return _num_steps(found) + 1


def _values(found: Range) -> list[Scalar]:
    """On a grid."""
    if isinstance(found, CategoricalRange):
        return list(found.choices)
    if found.points is None:
        assert found.step is not None, "checked"
        numbers = range(_num_steps(found) + 1)
        return [min(found.high, found.low + number * found.step) for number in numbers]
    last = found.points - 1
    values = [_between(found, number / last) for number in range(found.points)]
    values[0], values[-1] = found.low, found.high  # not rounded out of the space
    if isinstance(found, IntRange):
        return list(dict.fromkeys(_whole(value, found) for value in values))
    return list(values)


def _between(found: FloatRange | IntRange, share: float) -> float:
    """The value at a share of the way from one bound to the other."""
    if found.log:
        return float(found.low * (found.high / found.low) ** share)
    return found.low + share * (found.high - found.low)


def _whole(value: float, found: IntRange) -> int:
    """The nearest number that the range holds."""
    most = (found.high - found.low) // found.step
    return found.low + min(most, max(0, round((value - found.low) / found.step))) * found.step
