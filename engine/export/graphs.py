"""Writes a policy as a graph of operations, ONNX or TorchScript, and loads it again to act."""

from __future__ import annotations

import importlib.util
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from engine.blame import place_of
from engine.errors import RunFailedError
from engine.export.agreement import Act, Array, Arrays, told
from engine.export.greedy_policy import GreedyPolicy, to_tensor

if TYPE_CHECKING:
    from torch.export import ExportedProgram

BATCH = "batch"
"""Name of the axis that is left open."""
NUM_TRACED = 2
"""Rows of the traced step: with one, the axis could be taken for a constant."""
DEBUG_SUFFIX = ".debug_pkl"
_CATEGORIES = (DeprecationWarning, FutureWarning, UserWarning, TracerWarning)


def write_onnx(policy: GreedyPolicy, inputs: Arrays, path: Path) -> None:
    """Writes an ONNX model whose inputs and outputs have the names of the ports.

    Args:
        policy: What to write.
        inputs: A real step of at least two rows, by port.
        path: The file.

    Raises:
        RunFailedError: It cannot be traced.
    """
    names = [port.name for port in policy.ports.inputs], [p.name for p in policy.ports.outputs]
    with _tracing("an ONNX graph"):
        program = torch.onnx.export(
            _exported(policy, inputs),
            input_names=names[0],
            output_names=names[1],
            dynamic_shapes=_axes(policy),  # for the name of the axis
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # traces of Python's stack, with paths of this machine
        program.model.metadata_props.clear()
        program.save(path)


def load_onnx(path: Path, policy: GreedyPolicy) -> Act:
    """Acts with ONNX Runtime on this processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [port.name for port in policy.ports.outputs]

    def act(given: Arrays) -> dict[str, Array]:
        outputs = session.run(names, dict(given))
        return dict(zip(names, map(np.asarray, outputs), strict=True))

    return act


def write_torchscript(policy: GreedyPolicy, inputs: Arrays, path: Path) -> None:
    """Writes a TorchScript module that takes the inputs in order and returns all outputs.

    Args, raises: See `write_onnx`.
    """
    with _tracing("TorchScript"):
        example = _example(policy, inputs)
        traced = torch.jit.trace(policy, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, path)
    _without_debug(path)


def load_torchscript(path: Path, policy: GreedyPolicy) -> Act:
    """Acts with PyTorch."""
    with _quiet():
        module = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def act(given: Arrays) -> dict[str, Array]:
        with torch.inference_mode():
            outputs = module(*(to_tensor(given[port.name]) for port in policy.ports.inputs))
        ports = policy.ports.outputs
        return {port.name: o.numpy() for port, o in zip(ports, outputs, strict=True)}

    return act


def _exported(policy: GreedyPolicy, inputs: Arrays) -> ExportedProgram:
    """One step as a graph with an open number of rows."""
    # Layers choose between equal ways of computing by whether gradients are on; with them on,
    # none depends on the number of rows. No parameter has a gradient.
    with torch.enable_grad():
        return torch.export.export(
            policy, _example(policy, inputs), dynamic_shapes=_axes(policy), strict=False
        )


def _axes(policy: GreedyPolicy) -> tuple[object, ...]:
    """Which axis of each input is open."""
    batch = torch.export.Dim(BATCH)
    return (tuple({0: batch} for _ in policy.ports.inputs),)


def _example(policy: GreedyPolicy, inputs: Arrays) -> tuple[Tensor, ...]:
    return tuple(to_tensor(inputs[port.name][:NUM_TRACED]) for port in policy.ports.inputs)


@contextmanager
def _tracing(what: str) -> Iterator[None]:
    """Raises RunFailedError for anything that a tracer raises."""
    try:
        with _quiet():
            yield
    except Exception as error:
        raise RunFailedError(
            f"the policy cannot be written as {what}: {told(error)}{_place(error)}",
            fix="act_greedily and the network must compute with tensors alone: no Python code that"
            " depends on their values or number of rows; another --format may be possible",
        ) from error


def _place(error: Exception) -> str:
    """The user's line that raised it, if it was one."""
    place = place_of(error)
    return f"\n    {place}" if place else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch says to its own developers: deprecations, and optional packages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            for category in _CATEGORIES:
                warnings.simplefilter("ignore", category)
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _without_debug(path: Path) -> None:
    """Removes what only maps operations to lines of source, with paths of this machine."""
    whole = path.with_suffix(".whole")
    path.rename(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(DEBUG_SUFFIX):
                target.writestr(entry, source.read(entry))
    whole.unlink()


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None
