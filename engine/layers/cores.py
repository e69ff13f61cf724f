"""Cores: recurrent layers between trunk and heads, `network.core` of an experiment.

A core maps features and a state to an output and the next state. Its state is one vector for each
environment, [N, S], so that a rollout can have it as a field. Where an episode begins it is zero.

Unrolled over T steps, a core has its gradients written by hand (Werbos, 1990). Autograd would add
up the gradient of each weight step by step, T products of small matrices and as many sums; from
the stored gates it is one large product. A compiler sees half the operations, in both directions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.spec import CoreSpec


class Core(nn.Module, ABC):
    """A recurrent layer.

    Args:
        num_features: F, of the trunk.
        size: N, of the output.
        num_gates: Blocks of `size` rows of the two matrices.

    Attributes:
        size: N.
    """

    def __init__(self, num_features: int, size: int, num_gates: int) -> None:
        super().__init__()
        self.size = size
        self.weight_input = nn.Parameter(_orthogonal(num_gates, size, num_features))
        self.weight_state = nn.Parameter(_orthogonal(num_gates, size, size))
        self.bias = nn.Parameter(torch.zeros(num_gates * size))

    @property
    @abstractmethod
    def state_size(self) -> int:
        """S, entries of the state of one environment."""

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of each of N environments.

        Args:
            x: Features, [N, F].
            state: Before the step, [N, S]; zero where an episode begins.

        Returns:
            The output [N, size] and the state after the step [N, S].
        """

    @abstractmethod
    def _unroll(self, gates: Tensor, state: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        """`unroll`, with the features' part of all gates, [T, N, gates x size]."""

    def unroll(self, x: Tensor, state: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        """T steps of each of N environments: the same as T times `step`, with resets in between.

        Args:
            x: Features, [T, N, F].
            state: Before the first step, [N, S].
            continues: [T, N]; after step t the state is multiplied by `continues[t]`: 1, or 0 if
                the next step begins an episode. No gradient crosses a 0.

        Returns:
            Outputs [T, N, size], and the state after the last step [N, S], also multiplied.
        """
        gates = self._projected(x.flatten(0, 1))
        gates = gates.view(*x.shape[:2], gates.shape[-1])
        return self._unroll(gates, state, continues.to(x.dtype).unsqueeze(-1))

    def initial_state(self, num_envs: int) -> Tensor:
        """The state where an episode begins, zeros [N, S]."""
        return self.weight_input.new_zeros(num_envs, self.state_size)

    def _projected(self, x: Tensor) -> Tensor:
        """The features' part of the gates, [N, gates x size]."""
        return nn.functional.linear(x, self.weight_input, self.bias)


class Gru(Core):
    """A gated recurrent unit (Cho et al., 2014), as in `torch.nn.GRU`: its state is its output.

        r, z = sigmoid(W x + b + U h)    reset and update gate
        n    = tanh(W_n x + b_n + r (U_n h + c_n))
        h'   = n + z (h - n)

    The rows of both matrices are those of r, z, n. `torch.nn.GRU` has a second bias for r and z,
    which only adds to the first.
    """

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__(num_features, size, num_gates=3)
        self.bias_candidate = nn.Parameter(torch.zeros(size))

    @property
    def state_size(self) -> int:
        return self.size

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Core`."""
        of_state = state @ self.weight_state.t()
        output = _gru_step(self._projected(x), of_state, self.bias_candidate, state)[0]
        return output, output

    def _unroll(self, gates: Tensor, state: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        weights = (self.weight_state, self.bias_candidate)
        outputs, *_ = _apply(_GruUnroll, gates, *weights, state, continues)
        return outputs, outputs[-1] * continues[-1]


class Lstm(Core):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997; Gers et al., 2000), as in
    `torch.nn.LSTM`. Its state is its output h, then its cell c.

        i, f, o = sigmoid(W x + b + U h)    input, forget and output gate
        c'      = f c + i tanh(W_g x + b_g + U_g h)
        h'      = o tanh(c')

    The rows of both matrices are those of i, f, g, o. The forget gate's bias begins at 1
    (Jozefowicz et al., 2015).
    """

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__(num_features, size, num_gates=4)
        nn.init.ones_(self.bias[size : 2 * size])

    @property
    def state_size(self) -> int:
        return 2 * self.size

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Core`."""
        output, cell = state.chunk(2, -1)
        gates = torch.addmm(self._projected(x), output, self.weight_state.t())
        output, cell = _lstm_step(gates, cell)[:2]
        return output, torch.cat((output, cell), -1)

    def _unroll(self, gates: Tensor, state: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        outputs, cells, _ = _apply(_LstmUnroll, gates, self.weight_state, state, continues)
        last = torch.cat((outputs[-1], cells[-1]), -1)
        return outputs, last * continues[-1]


_STATE_VECTORS = {"gru": 1, "lstm": 2}
"""Vectors of `size` entries that are the state of a core."""
CORES: Mapping[str, Callable[[int, int], Core]] = {"gru": Gru, "lstm": Lstm}


def build_core(spec: CoreSpec, num_features: int) -> Core:
    """The core that `network.core` names, for a trunk of this many features."""
    return CORES[spec.name](num_features, spec.size)


def state_size(spec: CoreSpec | None) -> int:
    """S, entries of the state of one environment; 0 without a core."""
    return 0 if spec is None else _STATE_VECTORS[spec.name] * spec.size


def _orthogonal(num_gates: int, size: int, num_inputs: int) -> Tensor:
    """One orthogonal matrix (Saxe et al., 2014) for each gate, below each other."""
    return torch.cat([nn.init.orthogonal_(torch.empty(size, num_inputs)) for _ in range(num_gates)])


def _gru_step(
    gates: Tensor, of_state: Tensor, bias_candidate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """h', r, z, n and U_n h + c_n, [N, size] each."""
    x_r, x_z, x_n = gates.chunk(3, -1)
    h_r, h_z, h_n = of_state.chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    candidate = h_n + bias_candidate
    n = torch.tanh(x_n + r * candidate)
    return n + z * (state - n), r, z, n, candidate


class _Context(Protocol):
    """What a step of autograd keeps."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...


_Unroll: TypeAlias = type["_GruUnroll | _LstmUnroll"]


def _apply(unroll: _Unroll, *inputs: Tensor) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = unroll.apply(*inputs)  # type: ignore[no-untyped-call]
    return outputs


class _GruUnroll(torch.autograd.Function):
    """All steps of a GRU."""

    @staticmethod
    def forward(
        gates: Tensor, weight: Tensor, bias_candidate: Tensor, state: Tensor, continues: Tensor
    ) -> tuple[Tensor, ...]:
        told = []
        for t, of_features in enumerate(gates.unbind()):
            step = _gru_step(of_features, state @ weight.t(), bias_candidate, state)
            told.append(step)
            state = step[0] * continues[t]
        return tuple(torch.stack(values) for values in zip(*told, strict=True))

    @staticmethod
    def setup_context(
        ctx: _Context, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]
    ) -> None:
        _, weight, _, state, continues = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, state, continues, *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, first, continues, outputs, *saved = ctx.saved_tensors
        before = torch.cat((first.unsqueeze(0), outputs[:-1] * continues[:-1]))
        rows = zip(gradients[0], before, *saved, continues, strict=True)
        later = torch.zeros_like(first)  # of the state after the step, then before it
        of_gates, of_products = [], []
        for d_output, state, r, z, n, candidate, goes_on in reversed(list(rows)):
            d_h = d_output + later * goes_on
            d_n = d_h * (1 - z) * (1 - n * n)
            d_r = d_n * candidate * (r * (1 - r))
            d_z = d_h * (state - n) * (z * (1 - z))
            of_gates.append(torch.cat((d_r, d_z, d_n), -1))
            of_products.append(torch.cat((d_r, d_z, d_n * r), -1))
            later = torch.addmm(d_h * z, of_products[-1], weight)
        d_gates, d_products = torch.stack(of_gates[::-1]), torch.stack(of_products[::-1])
        flat = d_products.flatten(0, 1)
        d_weight = flat.t() @ before.flatten(0, 1)
        d_bias = flat[:, -first.shape[-1] :].sum(0)
        return d_gates, d_weight, d_bias, later, None


def _lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """h' and c', [N, size], and i, f, g, o, [N, 4 size]."""
    i, f, g, o = gates.chunk(4, -1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    cell = f * cell + i * g
    return o * torch.tanh(cell), cell, torch.cat((i, f, g, o), -1)


class _LstmUnroll(torch.autograd.Function):
    """All steps of an LSTM."""

    @staticmethod
    def forward(
        gates: Tensor, weight: Tensor, state: Tensor, continues: Tensor
    ) -> tuple[Tensor, ...]:
        told = []
        output, cell = state.chunk(2, -1)
        for t, of_features in enumerate(gates.unbind()):
            step = _lstm_step(torch.addmm(of_features, output, weight.t()), cell)
            told.append(step)
            output, cell = step[0] * continues[t], step[1] * continues[t]
        return tuple(torch.stack(values) for values in zip(*told, strict=True))

    @staticmethod
    def setup_context(
        ctx: _Context, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]
    ) -> None:
        _, weight, state, continues = inputs
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(weight, state, continues, *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, first, continues, outputs, cells, activations = ctx.saved_tensors
        first_output, first_cell = first.chunk(2, -1)
        before = torch.cat((first_output.unsqueeze(0), outputs[:-1] * continues[:-1]))
        cells_before = torch.cat((first_cell.unsqueeze(0), cells[:-1] * continues[:-1]))
        rows = zip(*gradients[:2], cells, cells_before, activations, continues, strict=True)
        later, later_cell = torch.zeros_like(first_output), torch.zeros_like(first_cell)
        of_gates = []
        for d_output, d_cell, cell, cell_before, gates, goes_on in reversed(list(rows)):
            i, f, g, o = gates.chunk(4, -1)
            squashed = torch.tanh(cell)
            d_h = d_output + later * goes_on
            d_c = d_cell + later_cell * goes_on + d_h * o * (1 - squashed * squashed)
            d_i, d_f = d_c * g * (i * (1 - i)), d_c * cell_before * (f * (1 - f))
            d_g, d_o = d_c * i * (1 - g * g), d_h * squashed * (o * (1 - o))
            of_gates.append(torch.cat((d_i, d_f, d_g, d_o), -1))
            later, later_cell = of_gates[-1] @ weight, d_c * f
        d_gates = torch.stack(of_gates[::-1])
        d_weight = d_gates.flatten(0, 1).t() @ before.flatten(0, 1)
        return d_gates, d_weight, torch.cat((later, later_cell), -1), None
