"""A function as a graph, recorded while it runs once.

PyTorch's `make_fx` makes the same graph, but reads PyTorch's compilers before, which takes longer
than all else that a library needs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
_OF_LAYOUT = (aten.size.default, aten.stride.default, aten.storage_offset.default)


class UnrecordableError(Exception):
    """It is not a pure function of its arguments, or it reads values."""


def recorded(
    function: Callable[..., tuple[Tensor, ...]], arguments: Sequence[Tensor]
) -> GraphModule:
    """The graph of a function, with the form of each value as `meta["val"]`, on no device.

    Args:
        function: Without results; it writes into its arguments.
        arguments: On the processor. It is called with zeros in their place.

    Raises:
        UnrecordableError: It reads other tensors, or a number of a tensor.
        Exception: It raised this when it was called with zeros.
    """
    zeros = [_zeros_like(each) for each in arguments]
    with _Recorder(zeros) as recorder:
        function(*zeros)
    recorder.graph.output(())
    return GraphModule(nn.Module(), recorder.graph)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts each operation on tensors into a graph.

    Args:
        arguments: The tensors that are there before.
    """

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self._nodes: dict[int, Node] = {}
        """By the identity of the tensor, which is kept for that."""
        self._kept: list[Tensor] = []
        for number, each in enumerate(arguments):
            self._note(each, self.graph.placeholder(f"argument_{number}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would read its compilers to keep them away from what comes here."""
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(kwargs or {})
        if _depends_on_values(func, args):
            raise UnrecordableError(f"{func} depends on values")
        # Where no gradient is wanted, operations come whole that consist of others.
        name = func.name()  # type: ignore[no-untyped-call]
        is_whole = torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")
        if not is_whole and func not in _OF_LAYOUT:
            with self:
                result = func.decompose(*args, **named)
            if result is not NotImplemented:
                return result
        node = self.graph.call_function(func, *tree_map(self._node_of, (args, named)))
        result = func(*args, **named)
        self._note(result, node)
        return result

    def _node_of(self, value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            raise UnrecordableError("it reads tensors that are not its arguments")
        return self._nodes[id(value)]

    def _note(self, result: object, node: Node) -> None:
        """What a node is: a tensor, or several, each of which is a node then."""
        if isinstance(result, Tensor):
            self._nodes[id(result)] = node
            self._kept.append(result)
            node.meta["val"] = _form_of(result)
        elif isinstance(result, (tuple, list)):
            parts = [
                self.graph.call_function(operator.getitem, (node, number))
                for number in range(len(result))
            ]
            for each, part in zip(result, parts, strict=True):
                self._note(each, part)
            node.meta["val"] = tuple(part.meta.get("val") for part in parts)


def _depends_on_values(func: torch._ops.OpOverload, args: tuple[object, ...]) -> bool:
    """Whether the values of tensors decide what comes out, or its sizes."""
    if torch.Tag.data_dependent_output in func.tags:
        return True
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    given = tree_flatten(args)[0]
    masks = [x for x in given if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)]
    return func is not aten.index.Tensor or bool(masks)


def _zeros_like(tensor: Tensor) -> Tensor:
    """Of the same sizes, strides and type."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return made.zero_()


def _form_of(tensor: Tensor) -> Tensor:
    """A tensor of this form, without memory."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    entries = 1 + sum((size - 1) * stride for size, stride in axes) if tensor.numel() else 0
    offset = tensor.storage_offset()
    whole = torch.empty(offset + entries, dtype=tensor.dtype, device="meta")
    return whole.as_strided(tensor.shape, tensor.stride(), offset)
