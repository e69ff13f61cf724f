"""What happens in each iteration of a loop.

Values are read once, kept in registers, and stored where another loop needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from engine.compilation.native.builder import COMBINED
from engine.compilation.native.expressions import CHOICE, literal
from engine.compilation.native.grouping import LoopNest, merged
from engine.compilation.native.places import (
    TYPES,
    Access,
    Buffer,
    Elementwise,
    StridedPlace,
    UnsupportedError,
    product_of,
)
from engine.compilation.native.sharing import Parts, parts_of
from engine.compilation.native.text import Names, entry, indented, nest

_WIDE = 16
"""Iterations of an inner loop that are worth the vectors of a processor."""
CLAUSES = {"sum": "+", "and": "&", "or": "|"}
"""Reductions that OpenMP knows as vectors."""


def neutral(kind: str, dtype: torch.dtype) -> str:
    """What a sum, or the like, starts with."""
    least = -math.inf if dtype.is_floating_point else torch.iinfo(torch.int32).min
    if kind in ("max", "min") and not dtype.is_floating_point:
        raise UnsupportedError("the largest of integers")
    known = {"sum": 0, "and": 1, "or": 0, "max": least, "min": -least}
    return literal(known[kind], dtype)


class LoopBody:
    """The lines of a loop."""

    def __init__(self, names: Names, needed: set[Buffer]) -> None:
        self._names = names
        self._needed = needed
        self._known: dict[tuple[Access, str], str] = {}
        self._before: list[str] = []
        self._inside: list[str] = []
        self._after: list[str] = []
        self._sums: dict[str, str] = {}
        self._number = 0
        self._has_index = False
        self._scalars: set[str] = set()
        """Values that are read before the loop."""
        self._chosen: dict[str, tuple[str, Access]] = {}
        """By the name of a value: the condition without which it is what was read there."""
        self._conditions: set[str] = set()
        """Without which stores change nothing; empty: of one that always may."""

    def written(self, loop: LoopNest, num_threads: int) -> tuple[list[str], Parts | None]:
        """All lines; and the parts in which threads share them, if they do."""
        sizes, body = _with_fewest_axes(loop)
        for operation in body:
            self._add(operation)
        axes = sorted(range(len(sizes)), key=lambda axis: _is_inside(axis, sizes))
        is_whole = bool(self._sums) or self._has_index
        parts = None if is_whole else parts_of(sizes, axes, product_of(sizes), num_threads)
        cut = None if parts is None else parts.axis
        inside = nest(axes, sizes, self._inside, self._pragma(), cut)
        return [*self._before, *self._guarded(inside), *self._after], parts

    def _guarded(self, lines: list[str]) -> list[str]:
        """Without its condition, a loop whose stores change nothing then does not run: with it,
        the old values need not be read."""
        (condition, *others) = self._conditions or {""}
        if not condition or others or self._sums or self._has_index:
            return lines
        return [f"if ({condition}) {{", *indented(lines), "}"]

    def _pragma(self) -> str:
        clauses = [f"reduction({CLAUSES.get(kind)}:{name})" for name, kind in self._sums.items()]
        if any(kind not in CLAUSES for kind in self._sums.values()):
            return ""
        if self._has_index:
            clauses.append("reduction(|:bad)")
        return " ".join(("#pragma omp simd", *clauses))

    def _add(self, operation: Elementwise) -> None:
        values: list[str] = []
        for access in operation.reads:
            values.append(self._read(access, values))
        dtype = operation.to.dtype
        value = self._name("v")
        text = operation.text.format(*values)
        self._inside.append(f"const {TYPES[dtype]} {value} = {text};")
        if operation.reduction is not None:
            self._sum(operation, operation.reduction, value)
            return
        self._known[Access(operation.to), ""] = value
        self._note_choice(operation, value, values)
        if operation.to.buffer in self._needed:
            self._inside.append(f"{entry(operation.to, self._names)} = {value};")
            condition, kept = self._chosen.get(value, ("", None))
            self._conditions.add(condition if kept == Access(operation.to) else "")

    def _note_choice(self, operation: Elementwise, value: str, values: Sequence[str]) -> None:
        """Of a choice by one condition for all iterations, or a copy of it."""
        if operation.text == CHOICE and values[0] in self._scalars:
            self._chosen[value] = values[0], operation.reads[2]
        elif operation.text == "{0}" and values[0] in self._chosen:
            self._chosen[value] = self._chosen[values[0]]

    def _sum(self, operation: Elementwise, kind: str, value: str) -> None:
        dtype = operation.to.dtype
        total = self._name("sum")
        self._sums[total] = kind
        is_truth = dtype == torch.bool
        self._before.append(
            f"{'int' if is_truth else TYPES[dtype]} {total} = {neutral(kind, dtype)};"
        )
        self._inside.append(f"{total} = {COMBINED[kind].format(total, value)};")
        out = replace(operation.to, sizes=(), strides=())
        self._after.append(f"{entry(out, self._names)} = {total};")

    def _read(self, access: Access, values: Sequence[str]) -> str:
        chosen = "" if access.index is None else values[access.index]
        known = self._known.get((access, chosen))
        if known is not None:
            return known
        name = self._name("v")
        kind, place = TYPES[access.place.dtype], access.place
        lines = self._inside
        more = ""
        if access.index is not None:
            more = self._checked(access, chosen)
        elif not any(place.strides):
            lines = self._before
            self._scalars.add(name)
        lines.append(f"const {kind} {name} = {entry(place, self._names, more)};")
        self._known[access, chosen] = name
        return name

    def _checked(self, access: Access, chosen: str) -> str:
        """How far an index moves an access, not out of its bounds."""
        self._has_index = True
        name = self._name("k")
        is_out = f"(uint64_t){chosen} >= {access.count}"
        self._inside.append(f"bad |= {is_out};")
        self._inside.append(f"const int64_t {name} = {is_out} ? 0 : (int64_t){chosen};")
        return f"{access.step} * {name}"

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"


def _is_inside(axis: int, sizes: Sequence[int]) -> tuple[bool, int]:
    """Sorts axes from the outermost loop to the innermost: the last one, unless it is short and
    another is not."""
    longest = max(range(len(sizes)), key=lambda a: sizes[a])
    is_moved = axis == longest and sizes[-1] < _WIDE <= sizes[longest]
    return is_moved, axis


def _with_fewest_axes(loop: LoopNest) -> tuple[tuple[int, ...], list[Elementwise]]:
    """The iterations of a loop, and what happens in each."""
    places = [p for op in loop.body for p in (op.to, *(access.place for access in op.reads))]
    sizes, strides = merged(loop.sizes, [place.strides for place in places])
    new = iter(strides)

    def at(place: StridedPlace) -> StridedPlace:
        return replace(place, sizes=sizes, strides=next(new))

    body = []
    for operation in loop.body:
        to = at(operation.to)
        reads = tuple(replace(access, place=at(access.place)) for access in operation.reads)
        body.append(replace(operation, to=to, reads=reads))
    return sizes, body
