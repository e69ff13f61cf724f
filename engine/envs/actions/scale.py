"""Reals of a policy as values of a Box.

An algorithm acts in units of a range: -1 is an entry's lowest value, 1 its highest; or, if they are
not scaled, in the units of the environment. The space of the environment can be integers of any
width, half open, or wider than its own type can subtract. In every case `step` receives the space's
dtype and shape, within its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError

Float64s: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[Any]
INFINITE = float("inf")
NEAR = 1e-5
"""Largest relative error of a range's end when computed in float32."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Converts units of a range to values, entry by entry; every array is [D].

        real:   clip(shift + scale * clip(a, least, most), low, high)
        whole:  base + clip(floor(shift + scale * clip(a, least, most)), low, high)

    A bounded entry maps a in [-1, 1] to its range; each integer has an equal part of it. An entry
    without bounds is `a` itself. With one bound it is `a`, clipped; if 0 is not at least one unit
    within the bound, it is also shifted, so that -1 is the lowest or 1 the highest value. Without
    scaling every entry is `a` itself, clipped and for integers rounded.

    Attributes:
        dtype: Of the environment.
        shape: Of one action there.
        least, most: Bounds to which a is clipped.
        scale, shift, low, high: See above; float64.
        base: Int64; sums with it wrap around, so it works for signed and unsigned 64 bits.
        last: Correction at a = 1, where a float64 cannot distinguish the highest values.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    least: Float64s
    most: Float64s
    scale: Float64s
    shift: Float64s
    low: Float64s
    high: Float64s
    base: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    @property
    def is_whole(self) -> bool:
        return self.dtype.kind != "f"


def scale_of(space: gymnasium.spaces.Box, scales: bool = True) -> Scale:
    """Computes the scale that reaches exactly the values of a Box.

    Args:
        space: The Box.
        scales: Whether actions are in units of its range, not in its own.

    Raises:
        ConfigError: It has no entries, or a type that is not supported.
    """
    dtype = np.dtype(space.dtype)
    if space.low.size == 0:
        raise ConfigError(f"an action of {space} has no entries", where="env.id")
    if dtype.kind not in "biuf" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise ConfigError(
            f"actions of type {dtype} are not supported, the environment has {space}",
            where="env.id",
            fix="whole numbers, bool, float16, float32 and float64 are",
        )
    entries = zip(
        space.low.reshape(-1).tolist(),
        space.high.reshape(-1).tolist(),
        space.bounded_below.reshape(-1).tolist(),
        space.bounded_above.reshape(-1).tolist(),
        strict=True,
    )
    if scales:
        work_out = _real_entry if dtype.kind == "f" else _whole_entry
    else:
        work_out = _own_real_entry if dtype.kind == "f" else _own_whole_entry
    columns = [work_out(dtype, *entry) for entry in entries]
    return Scale(
        dtype,
        tuple(space.shape),
        least=np.array([entry.least for entry in columns]),
        most=np.array([entry.most for entry in columns]),
        scale=np.array([entry.scale for entry in columns]),
        shift=np.array([entry.shift for entry in columns]),
        low=np.array([entry.low for entry in columns]),
        high=np.array([entry.high for entry in columns]),
        base=np.array([wrapped(entry.base) for entry in columns], np.int64),
        last=np.array([wrapped(entry.last) for entry in columns], np.int64),
    )


@dataclass(frozen=True)
class _Entry:
    """One column of a `Scale`."""

    least: float
    most: float
    scale: float
    shift: float
    low: float
    high: float
    base: int = 0
    last: int = 0


def _real_entry(
    dtype: np.dtype[Any], low: float, high: float, has_low: bool, has_high: bool
) -> _Entry:
    largest = float(np.finfo(dtype).max)
    least, most = max(low, -largest), min(high, largest)
    if has_low and has_high:
        return _Entry(-1.0, 1.0, high / 2 - low / 2, low / 2 + high / 2, least, most)
    base, unit, shift = _open_range(low, high, has_low, has_high)
    unit = min(unit, largest - abs(base))
    return _Entry(-INFINITE, INFINITE, unit, base + shift * unit, least, most)


def _whole_entry(
    dtype: np.dtype[Any], low: float, high: float, has_low: bool, has_high: bool
) -> _Entry:
    lowest, highest = int(low), int(high)
    if has_low and has_high:
        last = _float_below(highest - lowest)
        half, missing = (last + 1) / 2, highest - lowest - int(last)
        return _Entry(-1.0, 1.0, half, half, 0.0, last, lowest, missing)
    base, unit, shift = _open_range(lowest, highest, has_low, has_high)
    least, most = -_float_below(int(base) - lowest), _float_below(highest - int(base))
    return _Entry(-INFINITE, INFINITE, unit, shift * unit + 0.5, least, most, int(base))


def _own_real_entry(
    dtype: np.dtype[Any], low: float, high: float, has_low: bool, has_high: bool
) -> _Entry:
    largest = float(np.finfo(dtype).max)
    least, most = max(low, -largest), min(high, largest)
    return _Entry(-INFINITE, INFINITE, 1.0, 0.0, least, most)


def _own_whole_entry(
    dtype: np.dtype[Any], low: float, high: float, has_low: bool, has_high: bool
) -> _Entry:
    lowest, highest = int(low), int(high)
    base = min(max(0, lowest), highest)
    least, most = -_float_below(base - lowest), _float_below(highest - base)
    return _Entry(-INFINITE, INFINITE, 1.0, 0.5 - base, least, most, base)


def _open_range(
    low: float, high: float, has_low: bool, has_high: bool
) -> tuple[float, float, float]:
    """Origin and unit of an entry without some bound, and the distance of 0 from that origin in
    units."""
    if has_low and low > -1:
        return low, max(1.0, float(abs(low))), 1.0
    if has_high and high < 1:
        return high, max(1.0, float(abs(high))), -1.0
    return 0, 1.0, 0.0


def _float_below(value: int) -> float:
    """The largest float64 that is not above a non-negative integer."""
    near = float(value)
    return near if int(near) <= value else float(np.nextafter(near, 0.0))


def wrapped(value: int) -> int:
    """The int64 with the same lowest 64 bits: sums with it are right for unsigned 64 bits too."""
    return (value + 2**63) % 2**64 - 2**63


def values_of(scale: Scale, actions: Array) -> Array:
    """Units [B, D] to values [B, *shape], in the Box's dtype."""
    with np.errstate(over="ignore"):
        a = np.asarray(actions, np.float64).reshape(len(actions), -1)
        a = a.clip(scale.least, scale.most)
        values = scale.shift + scale.scale * a
        convert = _to_whole if scale.is_whole else _to_real
        return convert(scale, a, values).reshape(len(actions), *scale.shape)


def _to_real(scale: Scale, a: Float64s, values: Float64s) -> Array:
    values = np.where(a <= scale.least, scale.low, np.where(a >= scale.most, scale.high, values))
    return np.asarray(values.clip(scale.low, scale.high).astype(scale.dtype))


def _to_whole(scale: Scale, a: Float64s, values: Float64s) -> Array:
    offset = np.floor(values).clip(scale.low, scale.high)
    half = np.floor(offset / 2)  # so that 2^63 and more also fit into an int64
    whole = half.astype(np.int64) * 2 + (offset - 2 * half).astype(np.int64) + scale.base
    whole += (a >= scale.most) * scale.last
    is_unsigned = scale.dtype == np.uint64
    return np.asarray(whole.view(np.uint64) if is_unsigned else whole.astype(scale.dtype))


class Reals:
    """Converts what is chosen to values of a Box, in the fewest operations that are exact.

    Args:
        space: Of one action.
        scales: As in `scale_of`.

    Raises:
        ConfigError: It is one that cannot be supported.
    """

    def __init__(self, space: gymnasium.spaces.Box, scales: bool = True) -> None:
        self._scale = scale_of(space, scales)
        self._plain = plain_conversion(space, scales)

    def __call__(self, actions: np.ndarray) -> Array:
        """[B, ...] -> [B, *shape], in the Box's dtype; values beyond the range are clipped."""
        if self._plain is None:
            return values_of(self._scale, actions)
        values = self._plain(actions)
        return values.reshape(len(values), *self._scale.shape)


class PlainRange:
    """A bounded range of float32 entries in the fewest operations: the hot path.

    Args:
        low, high: [D].
        middle, half_range: [D], finite.
    """

    def __init__(self, low: Array, high: Array, middle: Array, half_range: Array) -> None:
        self._middle, self._half_range = middle, half_range
        self._low, self._high = low, high
        # Rounding is monotone, so if both ends stay within bounds, so do all values between.
        is_exact = (middle - half_range >= low) & (middle + half_range <= high)
        self._is_exact = bool(is_exact.all())

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Middle, half range, low and high, [D] each."""
        return self._middle, self._half_range, self._low, self._high

    def __call__(self, actions: np.ndarray) -> Array:
        a: Array = np.asarray(actions, np.float32)
        if a.shape[1:] != self._middle.shape:
            a = a.reshape(len(a), -1)
        values = np.asarray(np.maximum(a, _MINUS_ONE))
        np.minimum(values, _ONE, out=values)
        values *= self._half_range
        values += self._middle
        if not self._is_exact:
            np.maximum(values, self._low, out=values)
            np.minimum(values, self._high, out=values)
        return values


class PlainBounds:
    """Bounds of float32 entries that are not scaled, infinite ones included: the hot path.

    Args:
        low, high: [D].
    """

    def __init__(self, low: Array, high: Array) -> None:
        self._low, self._high = low, high

    def __call__(self, actions: np.ndarray) -> Array:
        a: Array = np.asarray(actions, np.float32)
        if a.shape[1:] != self._low.shape:
            a = a.reshape(len(a), -1)
        values = np.asarray(np.maximum(a, self._low))
        np.minimum(values, self._high, out=values)
        return values


def plain_conversion(space: gymnasium.spaces.Box, scales: bool) -> PlainRange | PlainBounds | None:
    """The conversion in float32, if there is one; see `scale_of`."""
    if scales:
        return plain_range(space)
    if space.dtype != np.float32:
        return None
    return PlainBounds(space.low.reshape(-1), space.high.reshape(-1))


_ONE, _MINUS_ONE = np.float32(1), np.float32(-1)


def plain_range(space: gymnasium.spaces.Box) -> PlainRange | None:
    """None if the space has another type, is unbounded somewhere, or its ends cannot be computed in
    float32 from their middle: too wide, or one end much larger than the other."""
    if space.dtype != np.float32 or not space.is_bounded():
        return None
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        middle, half_range = (low + high) / 2, (high - low) / 2
        misses = np.maximum(
            abs(middle - half_range - low) - NEAR * abs(low),
            abs(middle + half_range - high) - NEAR * abs(high),
        )
    if not (misses <= 0).all():  # also False if a value is infinite or NaN
        return None
    return PlainRange(low, high, middle, half_range)
