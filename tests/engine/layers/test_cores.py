"""Recurrent cores against PyTorch's own, against single steps, and against differences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from engine.layers.cores import CORES, Core, build_core
from engine.spec import CoreSpec

NUM_FEATURES, SIZE, NUM_STEPS, NUM_ENVS = 5, 6, 9, 4
EVERY_CORE = pytest.mark.parametrize("name", ["gru", "lstm"])
ORACLES: dict[str, type[nn.GRU | nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_core(name: str) -> Core:
    """With biases that matter."""
    torch.manual_seed(0)
    core = CORES[name](NUM_FEATURES, SIZE)
    for parameter in core.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return core


def make_inputs(core: Core, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Features, a first state, and resets inside: at least one in every second environment."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(NUM_STEPS, NUM_ENVS, NUM_FEATURES, generator=random)
    state = torch.randn(NUM_ENVS, core.state_size, generator=random).tanh()
    continues = torch.ones(NUM_STEPS, NUM_ENVS)
    continues[3, 0] = continues[4, 0] = continues[5, 2] = continues[-1, 2] = 0
    return x, state, continues


def step_by_step(core: Core, x: Tensor, state: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for x_t, goes_on in zip(x, continues, strict=True):
        output, state = core.step(x_t, state)
        state = state * goes_on[:, None]
        outputs.append(output)
    return torch.stack(outputs), state


def oracle_of(core: Core, name: str) -> nn.GRU | nn.LSTM:
    oracle = ORACLES[name](NUM_FEATURES, SIZE)
    with torch.no_grad():
        oracle.weight_ih_l0.copy_(core.weight_input)
        oracle.weight_hh_l0.copy_(core.weight_state)
        oracle.bias_ih_l0.copy_(core.bias)
        oracle.bias_hh_l0.zero_()
        if name == "gru":
            oracle.bias_hh_l0[2 * SIZE :] = core.bias_candidate
    return oracle


def unroll_oracle(
    oracle: nn.GRU | nn.LSTM, x: Tensor, state: Tensor, continues: Tensor
) -> tuple[Tensor, Tensor]:
    """PyTorch's own layer, called anew after each reset, for one environment after the other."""
    outputs, states = [], []
    for env in range(x.shape[1]):
        ends = [0, *(continues[:-1, env] == 0).nonzero().flatten().add(1).tolist(), len(x)]
        pieces, own = [], state[env]
        for first, last in itertools.pairwise(ends):
            own = own if first == 0 else torch.zeros_like(own)
            parts = tuple(part.view(1, 1, -1) for part in own.split(SIZE))
            piece, told = oracle(
                x[first:last, env : env + 1], parts if len(parts) > 1 else parts[0]
            )
            own = torch.cat([part.flatten() for part in (told if len(parts) > 1 else (told,))])
            pieces.append(piece.squeeze(1))
        outputs.append(torch.cat(pieces))
        states.append(own * continues[-1, env])
    return torch.stack(outputs, 1), torch.stack(states)


def gradients(
    unroll, parameters: list[Tensor], x: Tensor, state: Tensor, continues: Tensor
) -> tuple[Tensor, ...]:
    """Of a loss in which every output and every entry of the last state has its own weight."""
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    outputs, last = unroll(x, state, continues)
    random = torch.Generator().manual_seed(7)
    loss = (outputs * torch.randn(outputs.shape, generator=random)).sum()
    loss = loss + (last * torch.randn(last.shape, generator=random)).sum()
    return torch.autograd.grad(loss, [*parameters, x, state])


@EVERY_CORE
def test_unrolling_is_stepping_one_by_one_with_resets_inside(name: str):
    core = make_core(name)
    inputs = make_inputs(core)
    outputs, last = core.unroll(*inputs)
    wanted, wanted_last = step_by_step(core, *inputs)
    torch.testing.assert_close(outputs, wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(last, wanted_last, rtol=0, atol=1e-14)
    assert outputs.shape == (NUM_STEPS, NUM_ENVS, SIZE)
    assert last.shape == (NUM_ENVS, core.state_size)
    assert not last[2].any(), "the last step ended an episode"
    assert last[0].any()


@EVERY_CORE
def test_between_resets_it_is_the_layer_of_pytorch(name: str):
    core = make_core(name)
    oracle = oracle_of(core, name)
    inputs = make_inputs(core)
    outputs, last = core.unroll(*inputs)
    wanted, wanted_last = unroll_oracle(oracle, *inputs)
    torch.testing.assert_close(outputs, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, wanted_last, rtol=0, atol=1e-12)


@EVERY_CORE
def test_gradients_through_time_are_those_of_pytorch(name: str):
    core = make_core(name)
    oracle = oracle_of(core, name)
    inputs = make_inputs(core)
    own = [core.weight_input, core.weight_state, core.bias]
    theirs = [oracle.weight_ih_l0, oracle.weight_hh_l0, oracle.bias_ih_l0]
    if name == "gru":
        own.append(core.bias_candidate)
        theirs.append(oracle.bias_hh_l0)
    found = gradients(core.unroll, own, *inputs)
    wanted = list(gradients(lambda *a: unroll_oracle(oracle, *a), theirs, *inputs))
    if name == "gru":
        wanted[3] = wanted[3][2 * SIZE :]
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-11)


@EVERY_CORE
def test_gradients_through_time_are_those_of_single_steps(name: str):
    core = make_core(name)
    inputs = make_inputs(core, seed=3)
    parameters = list(core.parameters())
    found = gradients(core.unroll, parameters, *inputs)
    wanted = gradients(lambda *a: step_by_step(core, *a), parameters, *inputs)
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-12)


@EVERY_CORE
def test_gradients_through_time_are_the_differences(name: str):
    core = make_core(name)
    x, state, continues = make_inputs(core)
    names = [name for name, _ in core.named_parameters()]

    def unroll(x: Tensor, state: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        pieces = dict(zip(names, parameters, strict=True))
        bound = {f"core.{name}": value for name, value in pieces.items()}
        return torch.func.functional_call(_Unrolled(core), bound, (x, state, continues))

    arguments = (x[:6, :2], state[:2], *(p.detach() for p in core.parameters()))
    continues = continues[:6, :2]
    assert torch.autograd.gradcheck(unroll, [a.clone().requires_grad_() for a in arguments])


class _Unrolled(nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: Tensor, state: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        return self.core.unroll(x, state, continues)


@EVERY_CORE
def test_nothing_crosses_a_reset(name: str):
    core = make_core(name)
    x, state, continues = make_inputs(core)
    continues[3] = 0
    x, state = x.requires_grad_(), state.requires_grad_()
    outputs, _ = core.unroll(x, state, continues)
    of_x, of_state = torch.autograd.grad(outputs[4:].sum(), [x, state])
    assert not of_x[:4].any()
    assert not of_state.any()
    assert of_x[4:].any()
    fresh, _ = core.unroll(x[4:], core.initial_state(NUM_ENVS), continues[4:])
    torch.testing.assert_close(outputs[4:], fresh, rtol=0, atol=1e-14)


@EVERY_CORE
def test_a_rollout_can_be_cut_anywhere_since_the_state_carries_over(name: str):
    core = make_core(name)
    x, state, continues = make_inputs(core)
    whole, last = core.unroll(x, state, continues)
    for cut in (1, 4, 5, NUM_STEPS - 1):
        first, between = core.unroll(x[:cut], state, continues[:cut])
        second, end = core.unroll(x[cut:], between, continues[cut:])
        torch.testing.assert_close(torch.cat((first, second)), whole, rtol=0, atol=1e-14)
        torch.testing.assert_close(end, last, rtol=0, atol=1e-14)


def test_the_state_of_an_lstm_is_its_output_and_then_its_cell():
    core = make_core("lstm")
    assert core.state_size == 2 * SIZE
    x, state, _ = make_inputs(core)
    output, after = core.step(x[0], state)
    oracle = oracle_of(core, "lstm")
    parts = (state[None, :, :SIZE].contiguous(), state[None, :, SIZE:].contiguous())
    _, (h, c) = oracle(x[:1], parts)
    torch.testing.assert_close(after[:, :SIZE], h[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(after[:, SIZE:], c[0], rtol=0, atol=1e-12)
    assert torch.equal(after[:, :SIZE], output)


@EVERY_CORE
def test_each_gate_begins_with_an_orthogonal_matrix(name: str):
    torch.set_default_dtype(torch.float32)
    core = build_core(CoreSpec(name=name, size=SIZE), num_features=8)  # type: ignore[arg-type]
    for block in core.weight_state.split(SIZE):
        torch.testing.assert_close(block @ block.t(), torch.eye(SIZE), rtol=0, atol=1e-5)
    for block in core.weight_input.split(SIZE):
        torch.testing.assert_close(block @ block.t(), torch.eye(SIZE), rtol=0, atol=1e-5)
    assert all(p.dtype == torch.float32 for p in core.parameters())
    assert not core.initial_state(3).any()
    assert core.initial_state(3).shape == (3, core.state_size)


@EVERY_CORE
def test_its_gradient_can_be_traced(name: str):
    """As a compiler of optimiser steps does it: by functional derivatives, with fixed shapes."""
    core = make_core(name)
    inputs = make_inputs(core)
    names = [name for name, _ in core.named_parameters()]

    def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
        *parameters, x, state, continues = arguments

        def loss(pieces: dict[str, Tensor]) -> Tensor:
            outputs, last = torch.func.functional_call(
                _Unrolled(core), pieces, (x, state, continues)
            )
            return outputs.square().sum() + last.square().sum()

        pieces = {f"core.{name}": p for name, p in zip(names, parameters, strict=True)}
        return tuple(torch.func.grad(loss)(pieces).values())

    arguments = [*(p.detach() for p in core.parameters()), *inputs]
    graph = make_fx(gradient, tracing_mode="fake")(*arguments)
    assert not [node for node in graph.graph.nodes if node.op == "get_attr"]
    outputs, last = core.unroll(*inputs)
    wanted = torch.autograd.grad(
        outputs.square().sum() + last.square().sum(), list(core.parameters())
    )
    for value, other in zip(graph(*arguments), wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-12)
