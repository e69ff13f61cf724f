"""The tensors that an environment holds, exchanged for others while a step of it is traced.

held = HeldTensors(env)
with held.replaced(tensors):
    env.step_with(action, drawn)
    after = held.tensors()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType

import gymnasium
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_NOT_LOOKED_INTO = (gymnasium.Space, torch.Generator, torch.device, type, FunctionType, ModuleType)


@dataclass(frozen=True)
class HeldAttribute:
    """An attribute in which there are tensors, alone or in tuples, lists and dicts.

    Attributes:
        owner: The object.
        name: Of the attribute.
        numbers: Which of the leaves of its value are tensors.
    """

    owner: object
    name: str
    numbers: tuple[int, ...]

    def tensors(self) -> list[Tensor]:
        leaves = pytree.tree_leaves(getattr(self.owner, self.name))
        return [leaves[number] for number in self.numbers]

    def put(self, tensors: Sequence[Tensor]) -> None:
        leaves, structure = pytree.tree_flatten(getattr(self.owner, self.name))
        for number, tensor in zip(self.numbers, tensors, strict=True):
            leaves[number] = tensor
        setattr(self.owner, self.name, pytree.tree_unflatten(leaves, structure))


class HeldTensors:
    """All tensors that an object, and the objects in it, hold as attributes.

    Args:
        holder: The object.
    """

    def __init__(self, holder: object) -> None:
        self._places = list(_places(holder, set()))

    def tensors(self) -> list[Tensor]:
        """What is held now."""
        return [tensor for place in self._places for tensor in place.tensors()]

    def are_apart(self) -> bool:
        """Whether no two of them share memory."""
        starts = [tensor.untyped_storage().data_ptr() for tensor in self.tensors()]
        return len(set(starts)) == len(starts)

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Holds these instead."""
        rest = iter(tensors)
        for place in self._places:
            place.put([next(rest) for _ in place.numbers])

    @contextmanager
    def replaced(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Holds these meanwhile."""
        before = self.tensors()
        self.put(tensors)
        try:
            yield
        finally:
            self.put(before)


def _places(holder: object, seen: set[int]) -> Iterator[HeldAttribute]:
    """In the order of attributes; what an object holds before what the objects in it hold."""
    seen.add(id(holder))
    inner: list[object] = []
    for name, value in vars(holder).items():
        leaves = pytree.tree_leaves(value)
        if numbers := tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)):
            yield HeldAttribute(holder, name, numbers)
        inner += leaves
    for each in inner:
        is_plain = isinstance(each, (Tensor, *_NOT_LOOKED_INTO)) or not hasattr(each, "__dict__")
        if not is_plain and id(each) not in seen:
            yield from _places(each, seen)
