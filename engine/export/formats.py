"""Exports a trained policy in a format, and proves that it acts as the engine does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from engine.errors import RunFailedError
from engine.export.agreement import Act, Agreement, check_agreement
from engine.export.graphs import (
    is_installed,
    load_onnx,
    load_torchscript,
    write_onnx,
    write_torchscript,
)
from engine.export.greedy_policy import GreedyPolicy
from engine.export.ports import Ports
from engine.export.precision import in_single_precision, share_of_equal_actions
from engine.export.recording import Recording, record
from engine.export.weights import load_weights, write_weights
from engine.trained.load import Trained

RECORDED = "recorded.npz"
NUM_KEPT = 16
"""Steps of the recording that go with the policy."""


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
        trained: The policy, in single precision.
        policy: The same as a function of tensors.
        recording: What it did.
        title: One line about it.
    """

    trained: Trained
    policy: GreedyPolicy
    recording: Recording
    title: str


_Write: TypeAlias = Callable[[Subject, Path], None]
_Load: TypeAlias = Callable[[Path, GreedyPolicy], Act]


@dataclass(frozen=True)
class Format:
    """A way to write a policy.

    Attributes:
        name: As `--format` takes it.
        file: Name of the main file.
        write, load: Writes it; acts with it.
        needs: Packages to write it, beside those of TianJi.
        runs_with: Distributions with which it runs.
    """

    name: str
    file: str
    write: _Write
    load: _Load
    needs: tuple[str, ...]
    runs_with: tuple[str, ...]


FORMATS = {
    "onnx": Format(
        "onnx",
        "policy.onnx",
        lambda subject, path: write_onnx(subject.policy, subject.recording.moment(0), path),
        load_onnx,
        ("onnx", "onnxscript", "onnxruntime"),
        ("numpy", "onnxruntime"),
    ),
    "torchscript": Format(
        "torchscript",
        "policy.pt",
        lambda subject, path: write_torchscript(subject.policy, subject.recording.moment(0), path),
        load_torchscript,
        (),
        ("numpy", "torch"),
    ),
    "safetensors": Format(
        "safetensors",
        "policy.safetensors",
        lambda subject, path: write_weights(subject.trained, subject.policy, path, subject.title),
        load_weights,
        (),
        ("numpy", "safetensors", "torch"),
    ),
}


@dataclass(frozen=True)
class Exported:
    """What was written, and what was found out about it.

    Attributes:
        ports: Inputs and outputs.
        agreement: With the engine.
        kept: The steps in `RECORDED`.
        share_of_half: Of a run in bfloat16, the share of recorded observations for which it acts
            as this policy, which computes in float32; None for other runs.
    """

    ports: Ports
    agreement: Agreement
    kept: Recording
    share_of_half: float | None


def lacking(chosen: Format) -> tuple[str, ...]:
    """Packages that a format needs and that are not installed."""
    return tuple(package for package in chosen.needs if not is_installed(package))


def export_policy(
    trained: Trained,
    chosen: Format,
    directory: Path,
    title: str,
    recording: Recording | None = None,
) -> Exported:
    """Writes a policy into a directory, loads it from there, and compares it with the engine.

    Args:
        trained: The policy.
        chosen: Its packages are installed.
        directory: Empty.
        title: One line about the policy.
        recording: What it did in single precision; None: it is recorded.

    Raises:
        ConfigError: The environment cannot be made, or the format cannot have this network.
        RunFailedError: It cannot be traced, or does not act as the engine does.
    """
    precise = in_single_precision(trained)
    recording = recording or record(precise)
    subject = Subject(precise, GreedyPolicy(precise), recording, title)
    ports, path = subject.policy.ports, directory / chosen.file
    chosen.write(subject, path)
    act = chosen.load(path, subject.policy)
    try:
        agreement = check_agreement(act, recording, precise, ports)
    except RunFailedError as error:
        error.where = error.where or f"--format {chosen.name}"
        raise
    kept = _kept(act, recording, ports)
    arrays = {**kept.inputs, **kept.outputs, "starts": kept.starts}
    np.savez_compressed(directory / RECORDED, allow_pickle=False, **arrays)
    is_half = precise is not trained
    share = share_of_equal_actions(trained, recording, ports) if is_half else None
    return Exported(ports, agreement, kept, share)


def _kept(act: Act, recording: Recording, ports: Ports) -> Recording:
    """The first steps, with what the exported policy did, which differs in last digits only."""
    kept = recording.first(NUM_KEPT)
    steps = [act(kept.moment(step)) for step in range(kept.num_steps)]
    outputs = {port.name: np.stack([step[port.name] for step in steps]) for port in ports.outputs}
    return Recording(kept.inputs, kept.starts, outputs)
