"""Functions to compile, as graphs: recorded from the algorithm and traced with fixed shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule

from engine.algorithms.base import Algorithm, EnvSlice, LearnerState
from engine.algorithms.gradient import (
    EagerSteps,
    Order,
    Samples,
    Step,
    Trainable,
    gather,
)
from engine.blueprint import Blueprint
from engine.compilation.compiled import METRICS, act_named, step_arguments, steps_named
from engine.compilation.library import Signature, describe
from engine.compilation.native.recording import UnrecordableError, recorded
from engine.compilation.policy_inference import (
    PolicyInference,
    Rounding,
    as_tensors,
    split_row,
    with_states,
)
from engine.compilation.staging import SampleStaging, Staging
from engine.layers.inputs import Inputs
from engine.spaces.observations import MASK


@dataclass(frozen=True)
class Traced:
    """One function as a graph.

    Attributes:
        graph: The graph to compile.
        arguments: The arguments of the trace.
        signature: Signature of the compiled function.
    """

    graph: GraphModule
    arguments: tuple[Tensor, ...]
    signature: Signature


def trace_steps(blueprint: Blueprint) -> Traced:
    """The optimiser step of an experiment: changes its first arguments in place.

    Raises:
        RuntimeError, AssertionError: The algorithm takes no steps, or its loss is not a pure
            function of its arguments.
    """
    state = blueprint.algorithm.init(0)
    recorder = record(blueprint, state)
    if recorder.step is None:
        raise RuntimeError("the algorithm does not take its steps through state.steps")
    arguments = step_arguments(state, recorder.step, recorder.samples, 1.0)
    if recorder.order is not None:
        arguments.append(recorder.order[0])
    arguments += [recorder.metrics, torch.zeros(())]
    signature = describe(steps_named(state, recorder.samples, recorder.order))
    signature |= describe({METRICS: recorder.metrics})
    return trace(_StepFunction(state, recorder), arguments, signature)


def trace_act(blueprint: Blueprint) -> Traced:
    """Acting in one step of a rollout: writes its outputs into its last arguments.

    Raises:
        RuntimeError, AssertionError: `act` is not a pure function of its arguments.
    """
    num_envs = blueprint.layout.num_envs
    env_slice = EnvSlice(0, num_envs, num_envs)
    acting = PolicyInference(blueprint.algorithm, env_slice, torch.Generator())
    layout = blueprint.layout
    tensors = with_states(as_tensors(layout.views(layout.allocate())), layout)
    for name in acting.inputs:
        if name == MASK:  # of a mask of zeros, no choice is valid
            tensors[name].fill_(True)
    row = acting.rows(tensors, blueprint.env.columns)[0][0]
    assert isinstance(row, tuple)
    function = _ActFunction(blueprint.algorithm, acting)
    return trace(function, [*acting.weights, *row], describe(act_named(acting.weights, row)))


def trace(
    function: Callable[..., tuple[Tensor, ...]], arguments: list[Tensor], signature: Signature
) -> Traced:
    """Raises RuntimeError or AssertionError (as PyTorch does) if it reads other tensors."""
    return Traced(graph_of(function, arguments), tuple(arguments), signature)


def graph_of(
    function: Callable[..., tuple[Tensor, ...]], arguments: Sequence[Tensor]
) -> GraphModule:
    """The graph of a function without results that writes into its arguments.

    Raises:
        RuntimeError, AssertionError: It reads other tensors.
    """
    with suppress(UnrecordableError, RuntimeError, AssertionError, ValueError, LookupError):
        return recorded(function, arguments)
    return traced_by_pytorch(function, arguments)


def traced_by_pytorch(
    function: Callable[..., tuple[Tensor, ...]], arguments: Sequence[Tensor]
) -> GraphModule:
    """The same by PyTorch, which reads its compilers for that, and knows more."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph: GraphModule = make_fx(function, tracing_mode="fake")(*arguments)
    if captured := [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]:
        raise RuntimeError(f"it reads tensors that are not its arguments: {captured}")
    return graph


@dataclass
class StepRecorder:
    """Makes steps in eager mode and records the first call, and the metrics of its first step."""

    step: Step | None = None
    samples: dict[str, Tensor] = field(default_factory=dict)
    order: Order | None = None
    metrics: Tensor = field(default_factory=lambda: torch.zeros(0))

    def take(
        self,
        state: Trainable,
        step: Step,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`."""
        told = EagerSteps().take(state, step, samples, order, rate)
        if self.step is None:
            self.step, self.samples, self.order = step, dict(samples), order
            self.metrics = told[0]
        return told


def record(blueprint: Blueprint, state: LearnerState) -> StepRecorder:
    """Runs one update on a batch of zeros and returns the recorded step."""
    recorder = StepRecorder()
    state.steps = recorder
    blueprint.algorithm.update(state, batch_of_zeros(blueprint))
    return recorder


def batch_of_zeros(blueprint: Blueprint) -> dict[str, Tensor]:
    """What an update of this run is given, all zeros; see `Batch`."""
    if blueprint.algorithm.samples().samples_replay:
        return SampleStaging(blueprint.samples).tensors
    return Staging(blueprint.layout, blueprint.rollouts_per_batch).tensors


class _StepFunction:
    """One step with flat arguments, in place on the first ones; writes its results into the last
    two."""

    def __init__(self, state: LearnerState, recorder: StepRecorder) -> None:
        assert recorder.step is not None
        self._step = recorder.step.functional(state)
        self._num_changed = len(recorder.step.changed(state))
        self._names = sorted(recorder.samples)
        self._has_rows = recorder.order is not None

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        changed = arguments[: self._num_changed]
        learning_rate, *rest = arguments[self._num_changed : -2]
        minibatch = dict(zip(self._names, rest, strict=False))
        if self._has_rows:
            minibatch = gather(minibatch, rest[-1])
        results = self._step.write(changed, learning_rate, minibatch)
        for told, result in zip(arguments[-2:], results, strict=True):
            told.copy_(result)
        return ()


class _ActFunction:
    """Acting with flat arguments, in place on the last ones."""

    def __init__(self, algorithm: Algorithm, acting: PolicyInference) -> None:
        self._bound = BoundAct(algorithm)
        self._rounding = Rounding(self._bound)
        self._inputs, self._names = acting.inputs, acting.names

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        num_weights = self._rounding.num_weights
        inputs, noise, outputs = split_row(arguments[num_weights:], self._inputs)
        pieces = self._rounding.pieces(*arguments[:num_weights])
        with torch.no_grad():
            chosen: dict[str, Tensor] = functional_call(self._bound, pieces, (inputs, noise))
        for name, output in zip(self._names, outputs, strict=True):
            output.copy_(chosen[name])
        return ()


class BoundAct(nn.Module):
    """`act` as a module, so that its parameters can be exchanged."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.network = algorithm.network().requires_grad_(False)
        self._algorithm = algorithm

    def forward(self, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        return self._algorithm.act(self.network, inputs, noise)
