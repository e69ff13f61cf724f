"""Chooses actions row by row, directly into their rollout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.algorithms.base import Algorithm, EnvSlice
from engine.algorithms.gradient import pieces_of
from engine.compilation.compiled import act_named
from engine.compilation.fit import Fit
from engine.compilation.library import Library
from engine.devices.visible import CPU
from engine.errors import RunFailedError
from engine.layers.flat import FlatParameters, flatten
from engine.layers.inputs import STATE, Inputs, input_names
from engine.layers.trunks import names_in_bfloat16
from engine.rollout import Layout

Row: TypeAlias = tuple[Tensor, ...]
"""Tensors of one step: the inputs of acting, noise, and the destination of each output."""
Choice: TypeAlias = Row | Callable[[], None]
"""What chooses the actions of one step: its row, or a call of a library that knows its rows."""


class PolicyInference:
    """The policy of an actor, and its noise.

    Args:
        algorithm: Whose `act` it is.
        env_slice: The environments that it acts in.
        generator: Source of randomness; everything is on its device.

    Attributes:
        parameters: The flat parameters, float32 [P].
        inputs: The fields that it acts upon.
        names: The fields that it fills in.
        weights: The inputs of acting: the flat parameters, and their rounded copy if there is one.
    """

    def __init__(
        self, algorithm: Algorithm, env_slice: EnvSlice, generator: torch.Generator
    ) -> None:
        self._algorithm = algorithm
        self._env_slice = env_slice
        self._generator = generator
        self._network: nn.Module = algorithm.network().requires_grad_(False)
        self._network.to(generator.device)
        self.parameters: FlatParameters = flatten(self._network)
        self.inputs = input_names(algorithm.samples().fields)
        self.names = chosen_names(algorithm)
        vector = self.parameters.vector.detach()
        self._rounding = Rounding(self._network)
        self.weights = self._rounding.weights(vector)
        self._array = vector.numpy() if vector.device.type == CPU else None
        self._library: Library | None = None
        self._fit = Fit({})
        self._is_checked = False

    def load(self, values: npt.NDArray[np.float32]) -> None:
        """Acts with these parameters, float32 [P], from now on."""
        if self._array is not None:
            np.copyto(self._array, values)
        else:
            self.parameters.load(torch.from_numpy(values))
        self.refresh()

    def refresh(self) -> None:
        """Must be called after `parameters` were changed: acts with them from now on."""
        self._rounding.round(*self.weights)

    def use(self, library: Library) -> None:
        """Uses a library of the kind `act` for all calls that fit its signature."""
        self._library, self._fit = library, Fit(library.signature)

    def rows(
        self, tensors: Mapping[str, Tensor], columns: Sequence[slice] = (slice(None),)
    ) -> Sequence[Sequence[Choice]]:
        """The steps of a new rollout, [T] per split, with new noise; to be chosen in this order.

        Args:
            tensors: Its fields, `state` with one row for each step and one more; the noise is
                drawn for as many steps as they have.
            columns: Columns of each split along axis B; all have the same size.

        Raises:
            RunFailedError: `act` does not return what the fields of a rollout declare.
        """
        parts = self._parts(tensors, columns)
        first = tuple(field[0] for field in parts[0])
        self.check_once(first)
        library = self._library
        if library is None or not self._fit.takes(act_named(self.weights, first)):
            return [unbound(part) for part in parts]
        return [[library.calls(self.weights, part)] * len(part[0]) for part in parts]

    def _parts(self, tensors: Mapping[str, Tensor], columns: Sequence[slice]) -> list[list[Tensor]]:
        """What rows are rows of, for each split; see `rows`."""
        fields = self.fields(tensors)
        return [[field[:, part] for field in fields] for part in columns]

    def fields(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """What the tensors of a row are rows of, each [T, B, ...], with new noise.

        Args:
            tensors: See `rows`.
        """
        num_steps = len(tensors[self.names[0]])
        noise = self._algorithm.noise(self._generator, num_steps, self._env_slice)
        inputs = [tensors[name][:num_steps] for name in self.inputs]
        outputs = [tensors[name][1:] if name == STATE else tensors[name] for name in self.names]
        return [*inputs, noise, *outputs]

    def check_once(self, row: Row) -> None:
        """Checks at its first call what `act` returns.

        Raises:
            RunFailedError: It is not what the fields of a rollout declare.
        """
        if not self._is_checked:
            self._check(row)
            self._is_checked = True

    def _check(self, row: Row) -> None:
        """Checks shapes, since copying into a row would silently broadcast a wrong one."""
        inputs, noise, outputs = split_row(row, self.inputs)
        chosen = self._algorithm.act(self._network, inputs, noise)
        for name, output in zip(self.names, outputs, strict=True):
            if name not in chosen:
                raise RunFailedError(f"act() returns no {name}, which samples().fields lists")
            if chosen[name].shape != output.shape:
                raise RunFailedError(
                    f"act() returns {name} of shape {tuple(chosen[name].shape)};"
                    f" samples().fields declares {tuple(output.shape)}"
                )

    def choose(self, row: Choice) -> None:
        """Fills in one row."""
        if isinstance(row, tuple):
            self._act(row)
        else:
            row()

    def _act(self, row: Row) -> None:
        """Fills in one row, kernel by kernel."""
        inputs, noise, outputs = split_row(row, self.inputs)
        chosen = self._algorithm.act(self._network, inputs, noise)
        for name, output in zip(self.names, outputs, strict=True):
            output.copy_(chosen[name])


def unbound(fields: Sequence[Tensor]) -> list[Row]:
    """The rows of these fields, each [T, ...]."""
    return list(zip(*(field.unbind() for field in fields), strict=True))


class Rounding:
    """Parameters that a network uses in bfloat16, rounded once instead of in every step.

    Args:
        network: It is changed to use the rounded parameters; its parameters must be flat.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._shapes = [(name, p.shape) for name, p in network.named_parameters()]
        self._names = names_in_bfloat16(network)

    def weights(self, vector: Tensor) -> tuple[Tensor, ...]:
        """The flat parameters, float32 [P], and their bfloat16 copy [P], if there is one."""
        if not self._names:
            return (vector,)
        rounded = vector.to(torch.bfloat16)
        pieces = pieces_of(rounded, self._shapes)
        for name, parameter in self._network.named_parameters():
            if name in self._names:
                parameter.grad, parameter.data = None, pieces[name]
        return vector, rounded

    def round(self, vector: Tensor, rounded: Tensor | None = None) -> None:
        """Updates the copy `rounded`, bfloat16 [P], from `vector`, float32 [P]."""
        if rounded is not None:
            rounded.copy_(vector)

    def pieces(self, vector: Tensor, rounded: Tensor | None = None) -> dict[str, Tensor]:
        """The parameters by name: views of `vector` [P] or of its bfloat16 copy `rounded` [P]."""
        pieces = pieces_of(vector, self._shapes)
        if rounded is not None:
            low = pieces_of(rounded, self._shapes)
            pieces |= {name: low[name] for name in self._names}
        return pieces

    @property
    def num_weights(self) -> int:
        """How many tensors `weights` are."""
        return 2 if self._names else 1


def chosen_names(algorithm: Algorithm) -> tuple[str, ...]:
    """The fields of a rollout that acting fills in, `action` first, a memory's `state` last."""
    fields = algorithm.samples().fields
    inputs = input_names(fields)
    names = [field.name for field in fields if field.name not in (*inputs, "action")]
    return ("action", *names, *(name for name in inputs if name == STATE))


def split_row(row: Sequence[Tensor], inputs: Sequence[str]) -> tuple[Inputs, Tensor, Row]:
    """What `act` gets, its noise, and the destinations of its outputs."""
    if len(inputs) == 1:
        return row[0], row[1], tuple(row[2:])
    number = len(inputs)
    return dict(zip(inputs, row, strict=False)), row[number], tuple(row[number + 1 :])


def with_states(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The fields of a rollout, with the memory of every step, zeros [T+1, B, S], if there is one.

    A rollout itself has only what the update needs of it.
    """
    if STATE not in tensors:
        return dict(tensors)
    state = tensors[STATE]
    return {**tensors, STATE: state.new_zeros(layout.num_steps + 1, *state.shape[1:])}


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays as tensors of the same shapes, dtypes and memory."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
