"""Pieces of C++: pointers to buffers, their entries, and loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.compilation.native.memory import ScratchMemory
from engine.compilation.native.places import TYPES, Buffer, StridedPlace


@dataclass
class Names:
    """Names of buffers, and how they come to be pointers."""

    memory: ScratchMemory
    _numbers: dict[Buffer, int] = field(default_factory=dict)

    def of(self, buffer: Buffer) -> str:
        if buffer.argument is not None:
            return f"argument_{buffer.argument}"
        return f"buffer_{self._numbers.setdefault(buffer, len(self._numbers))}"

    def pointer(self, buffer: Buffer) -> str:
        """The line that declares it."""
        kind, name = TYPES[buffer.dtype], self.of(buffer)
        if buffer.values:
            values = ", ".join(map(str, buffer.values))
            return f"static const {kind} {name}[] = {{{values}}};"
        if buffer.argument is not None:
            return f"{kind}* const {name} = ({kind}*)data[{buffer.argument}];"
        return f"{kind}* const {name} = ({kind}*)(scratch + {self.memory.offsets[buffer]});"


def nest(
    axes: Sequence[int],
    sizes: Sequence[int],
    body: Sequence[str],
    pragma: str = "",
    cut: int | None = None,
) -> list[str]:
    """Loops over these axes, the last one inside and with this line before it. That which is cut
    goes from `begin` to `end`."""
    if not axes:
        return ["{", *indented(body), "}"]
    lines = list(body)
    for axis in reversed(axes):
        start, end = ("begin", "end") if axis == cut else ("0", str(sizes[axis]))
        head = f"for (int64_t i{axis} = {start}; i{axis} < {end}; i{axis}++) {{"
        own = [pragma] if pragma and axis == axes[-1] else []
        lines = [*own, head, *indented(lines), "}"]
    return lines


def indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def entry(place: StridedPlace, names: Names, more: str = "") -> str:
    """The entry of an iteration, as one can be read or assigned to."""
    terms = [str(place.offset)] if place.offset else []
    terms += [
        f"i{axis}" if stride == 1 else f"{stride} * i{axis}"
        for axis, stride in enumerate(place.strides)
        if stride
    ]
    terms += [more] if more else []
    return f"{names.of(place.buffer)}[{' + '.join(terms) or '0'}]"
