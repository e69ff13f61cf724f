"""The compiler: a process that turns an experiment's optimiser steps into a shared library.

`python -m engine.runtime.compiler LIBRARY WORKSPACE PARENT < experiment.json`

It plays one update on an empty batch, records what the algorithm asks `state.steps` to do, traces
that as one computation with fixed shapes, and has PyTorch's ahead-of-time compiler make a library
of it. It runs beside the training that wants the result and never inside it: tracing holds Python's
lock for seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import msgspec
import psutil
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from engine.algorithms.base import LearnerState
from engine.algorithms.gradient import (
    EagerSteps,
    FunctionalStep,
    GradientStep,
    Order,
    Samples,
    Trainable,
    gather,
)
from engine.runtime.blueprint import Blueprint, make_blueprint
from engine.runtime.compiled import Signature, TensorSignature, signature_path
from engine.runtime.process import die_with_parent, name_process
from engine.runtime.staging import SampleStaging, Staging
from engine.spec import Experiment


@dataclass
class Recorder:
    """Takes steps eagerly and keeps what the first call was about."""

    step: GradientStep | None = None
    samples: dict[str, Tensor] = field(default_factory=dict)
    order: Order | None = None

    def take(
        self,
        state: Trainable,
        step: GradientStep,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`."""
        if self.step is None:
            self.step, self.samples, self.order = step, dict(samples), order
        return EagerSteps().take(state, step, samples, order, rate)


def compile_steps(blueprint: Blueprint, library: Path) -> Signature:
    """Compiles the optimiser steps of an experiment.

    Args:
        blueprint: The experiment.
        library: Where the shared library goes; ends with `.so`. Its directory gets by-products.

    Returns:
        What the library may be called with.

    Raises:
        RuntimeError, AssertionError: The algorithm takes no steps, or its loss is not a pure
            function of its arguments.
    """
    state = blueprint.algorithm.init(0)
    recorder = record(blueprint, state)
    if recorder.step is None:
        raise RuntimeError("the algorithm does not take its steps through state.steps")
    graph, arguments = trace(recorder, state)
    with torch.no_grad():
        torch._inductor.aot_compile(
            graph, arguments, options={"aot_inductor.output_path": str(library)}
        )
    return Signature(
        samples={name: TensorSignature.of(t) for name, t in recorder.samples.items()},
        rows=None if recorder.order is None else TensorSignature.of(recorder.order[0]),
        num_parameters=state.weights.vector.numel(),
    )


def trace(recorder: Recorder, state: LearnerState) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """The recorded step as one graph, and the arguments that it was traced with.

    Raises:
        RuntimeError, AssertionError: The loss reads other tensors than its arguments (the second is
            how PyTorch says so).
    """
    arguments = [state.weights.vector.detach(), *state.optimizer.named_tensors().values()]
    arguments += [torch.ones(()), *(recorder.samples[name] for name in sorted(recorder.samples))]
    if recorder.order is not None:
        arguments.append(recorder.order[0])
    graph: GraphModule = make_fx(_Function(state, recorder), tracing_mode="fake")(*arguments)
    if captured := [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]:
        raise RuntimeError(f"the loss reads tensors that are not its arguments: {captured}")
    return graph, tuple(arguments)


def record(blueprint: Blueprint, state: LearnerState) -> Recorder:
    """Plays one update on a batch of zeros and returns what was recorded."""
    recorder = Recorder()
    state.steps = recorder
    if blueprint.algorithm.samples().kind == "replay":
        batch = SampleStaging(blueprint.samples).tensors
    else:
        batch = Staging(blueprint.layout, blueprint.rollouts_per_batch).tensors
    blueprint.algorithm.update(state, batch)
    return recorder


class _Function:
    """One step with flat arguments, in place on the first four."""

    def __init__(self, state: LearnerState, recorder: Recorder) -> None:
        assert recorder.step is not None
        self._step = FunctionalStep(state.network, recorder.step)
        self._names = sorted(recorder.samples)
        self._has_rows = recorder.order is not None

    def __call__(self, *arguments: Tensor) -> tuple[Tensor]:
        vector, mean, variance, num_steps, rate, *rest = arguments
        minibatch = dict(zip(self._names, rest, strict=False))
        if self._has_rows:
            minibatch = gather(minibatch, rest[-1])
        *new, metrics = self._step.take(vector, mean, variance, num_steps, rate, minibatch)
        for old, values in zip(arguments, new, strict=False):
            old.copy_(values)
        return (metrics,)


def write_library(blueprint: Blueprint, library: Path, workspace: Path) -> None:
    """Compiles in `workspace`, then moves library and signature to their place, whole.

    Raises:
        RuntimeError, AssertionError: As for `compile_steps`.
    """
    made = workspace / "steps.so"
    signature = compile_steps(blueprint, made)
    made.replace(library)
    temporary = workspace / "signature.json"
    temporary.write_bytes(msgspec.json.encode(signature))
    temporary.replace(signature_path(library))


NICENESS = 19
"""Training comes first: at equal priority a run of ten seconds on two cores lost a quarter of its
speed to a compiler whose work it could not wait for."""


def main() -> None:
    """Compiles what standard input describes; see the module's first lines."""
    signal.signal(signal.SIGTERM, _end)
    die_with_parent(signal.SIGTERM)
    name_process("tj-compiler")
    os.nice(NICENESS)
    library, workspace, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if os.getppid() != parent:  # it died before the line above asked to be told
        return
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1
    torch._inductor.config.cpp_cache_precompile_headers = False
    experiment = msgspec.json.decode(sys.stdin.buffer.read(), type=Experiment)
    write_library(make_blueprint(experiment), library, workspace)


def _end(number: int, _frame: FrameType | None) -> None:
    """Ends the C++ compiler, too, which would go on for seconds, and removes all by-products."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os._exit(128 + number)


if __name__ == "__main__":
    main()
