"""Operations of a graph as loops over entries and calls.

Memory is as PyTorch has it: a view is a place in the buffer of what it is a view of, and what
changes something in place writes there. So order matters, and is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from engine.compilation.native.builder import Builder
from engine.compilation.native.expressions import (
    COMPARISONS,
    CONDITIONS,
    ELEMENTWISE,
    converted,
    literal,
)
from engine.compilation.native.places import (
    Buffer,
    StridedPlace,
    UnsupportedError,
    extent,
    place_like,
)


class Lowering:
    """A graph, lowered.

    Args:
        module: Its nodes know their values (`meta["val"]`).
        special: By the name of an operation, what lowers it; see `Rule`.

    Attributes:
        builder: The operations.

    Raises:
        UnsupportedError: It has an operation that is not known here.
    """

    def __init__(self, module: GraphModule, special: Mapping[str, Rule]) -> None:
        self.builder = Builder()
        self._special = special
        self._places: dict[Node, StridedPlace] = {}
        self._num_arguments = 0
        for node in _needed(module):
            self._lower(node)

    def place(self, node: object) -> StridedPlace:
        """Where the value of a node lies."""
        if not isinstance(node, Node) or node not in self._places:
            raise UnsupportedError(f"no tensor: {node}")
        return self._places[node]

    def _lower(self, node: Node) -> None:
        if node.op == "placeholder":
            value = value_of(node)
            buffer = Buffer(value.dtype, extent(value), argument=self._num_arguments)
            self._num_arguments += 1
            self._places[node] = place_like(value, buffer)
        elif node.op == "output":
            if any(isinstance(each, Node) for each in node.all_input_nodes):
                raise UnsupportedError("a result: what is computed is written into arguments")
        elif node.op != "call_function":
            raise UnsupportedError(f"{node.op} of {node.target}")
        elif node in self._places:  # one of several results
            return
        elif (base := _viewed(node)) is not None:
            self._view(node, base)
        else:
            self._call(node)

    def _view(self, node: Node, base: Node) -> None:
        if isinstance(node.meta["val"], Tensor):
            within = self.place(base)
            if value_of(node).dtype != within.dtype:
                raise UnsupportedError(f"{node.target} as another type")
            offset = int(value_of(node).storage_offset() - value_of(base).storage_offset())
            self._places[node] = place_like(value_of(node), within.buffer, within.offset + offset)

    def _call(self, node: Node) -> None:
        plain = plain_name_of(node)
        if isinstance(node.meta.get("val"), Tensor):
            changed = _changed(node)
            to = self.place(changed) if changed is not None else None
            if to is None:
                to = self.builder.scratch(value_of(node))
            self._places[node] = to
            (self._special.get(plain) or _elementwise)(self, node, to)
        elif plain in self._special:
            self._special[plain](self, node, None)
        else:
            raise UnsupportedError(f"{node.target}")

    def define(self, node: Node, place: StridedPlace) -> None:
        """Says where the value of a node lies, which is one of several of an operation."""
        self._places[node] = place


Rule = Callable[[Lowering, Node, StridedPlace | None], None]
"""Lowers one operation: (lowering, its node, where its result goes if it is one tensor)."""


def _elementwise(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    template, computed_in, result = _template_of(node)
    if node.kwargs.keys() - _UNDERSTOOD:
        raise UnsupportedError(f"{node.target} with {dict(node.kwargs)}")
    places = [lowering.place(each) for each in node.args if isinstance(each, Node)]
    texts = _operands(node, [place.dtype for place in places], computed_in)
    if not _is_complete(node, template):
        raise UnsupportedError(f"{node.target} with {len(texts)} arguments")
    text = template.format(*(each if each.isalnum() else f"({each})" for each in texts))
    lowering.builder.compute(converted(f"({text})", result, to.dtype), places, to)


_UNDERSTOOD = {
    *("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "copy", "out"),
    *("alpha", "value"),
}
"""Arguments that change nothing here, and two factors."""


def _template_of(node: Node) -> tuple[str, torch.dtype, torch.dtype]:
    """The expression, and the types of its operands and of its value."""
    name = plain_name_of(node)
    if name in COMPARISONS:
        return COMPARISONS[name], _common_type(node), torch.bool
    if name not in ELEMENTWISE:
        raise UnsupportedError(f"{node.target}")
    rule, dtype = ELEMENTWISE[name], value_of(node).dtype
    if name == "remainder" and dtype.is_floating_point:
        raise UnsupportedError("a remainder of fractions")
    template = rule if isinstance(rule, str) else rule(node.args)
    if name == "bitwise_not" and dtype == torch.bool:
        template = "!{0}"
    return template, dtype, dtype


def _operands(node: Node, dtypes: Sequence[torch.dtype], computed_in: torch.dtype) -> list[str]:
    """The arguments of an operation, in the type that it is computed in; those that are tensors, of
    these types, as {0}, {1}, ..."""
    texts, read = [], iter(enumerate(dtypes))
    for position, argument in enumerate(node.args):
        if isinstance(argument, Node):
            number, dtype = next(read)
            is_condition = CONDITIONS.get(plain_name_of(node)) == position
            text = f"{{{number}}}"
            texts.append(text if is_condition else converted(text, dtype, computed_in))
        elif isinstance(argument, bool | int | float):
            texts.append(literal(argument, computed_in))
        else:
            texts.append("")
    factor = node.kwargs.get("alpha", node.kwargs.get("value", 1))
    if not isinstance(factor, bool | int | float):
        raise UnsupportedError(f"{node.target} with {dict(node.kwargs)}")
    if factor != 1:
        scaled = 0 if plain_name_of(node) == "rsub" else 1
        texts[scaled] = f"{literal(factor, computed_in)} * ({texts[scaled]})"
    return texts


def _is_complete(node: Node, template: str) -> bool:
    """Whether an expression has all of its operands, and no argument has a meaning that it lacks.
    Functions that make an expression have looked at all arguments."""
    name = plain_name_of(node)
    num_read = 1 + max((int(part.split("}")[0]) for part in template.split("{")[1:]), default=-1)
    is_fixed = isinstance({**ELEMENTWISE, **COMPARISONS}[name], str)
    num_given = len(node.args)
    return num_read <= num_given and not (is_fixed and name != "copy" and num_read < num_given)


def _common_type(node: Node) -> torch.dtype:
    """What operands of a comparison are converted to."""
    values = [value_of(a) if isinstance(a, Node) else a for a in node.args]
    kinds = [v for v in values if isinstance(v, Tensor | bool | int | float)]
    common: Tensor | bool | int | float = kinds[0]
    for other in kinds[1:]:
        dtype = torch.result_type(common, other)
        common = torch.empty((1,), dtype=dtype, device="meta")
    assert isinstance(common, Tensor)
    return common.dtype


def name_of(node: Node) -> str:
    """The name of an operation, without its kind of arguments."""
    packet = getattr(node.target, "overloadpacket", None)
    return getattr(packet, "__name__", str(node.target))


def plain_name_of(node: Node) -> str:
    """The same for an operation and for the one that changes its argument in place."""
    name = name_of(node)
    return name if name.startswith("_") else name.removesuffix("_")


def value_of(node: object) -> Tensor:
    """The tensor that a node is, without data."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"no tensor: {node}")
    return value


def _viewed(node: Node) -> Node | None:
    """What a node is a view of, or several views; None if it is none."""
    if node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, Node)
        return _viewed(source)
    schema = getattr(node.target, "_schema", None)
    if name_of(node) == "_unsafe_view" and isinstance(node.args[0], Node):
        return node.args[0]
    source = node.args[0] if node.args else None
    if schema is None or not schema.returns or not isinstance(source, Node):
        return None
    alias = schema.returns[0].alias_info
    return None if alias is None or alias.is_write else source


def _changed(node: Node) -> Node | None:
    """What a node changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return None
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = node.kwargs.get(argument.name)
            changed = given if argument.kwarg_only else node.args[position]
            if isinstance(changed, Node):
                return changed
    raise UnsupportedError(f"{node.target}")


def _needed(module: GraphModule) -> list[Node]:
    """The nodes that something depends on, in order."""
    needed: set[Node] = set()
    for node in reversed(module.graph.nodes):
        schema = getattr(node.target, "_schema", None)
        has_effect = node.op in ("placeholder", "output") or (schema and schema.is_mutable)
        if has_effect or node in needed:
            needed.add(node)
            needed.update(node.all_input_nodes)
    return [node for node in module.graph.nodes if node in needed]
