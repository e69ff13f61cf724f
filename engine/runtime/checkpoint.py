"""Checkpoints: `v<version>.safetensors` with all tensors, `v<version>.json` with the rest.

Each file is written beside its place, flushed to disk and renamed. The JSON comes last and carries
the tensors' checksum: a checkpoint exists once its JSON does, whatever crashed meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import safetensors.torch
import torch

from engine.algorithms.base import LearnerState

SCHEMA_VERSION = 1


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON part of a checkpoint."""

    schema_version: int = SCHEMA_VERSION
    version: int
    counters: dict[str, int]
    sha256: str


def save_checkpoint(
    directory: Path,
    state: LearnerState,
    *,
    version: int,
    counters: Mapping[str, int],
    keep: int,
) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`.

    Returns:
        The JSON file's path.

    Raises:
        OSError: The disk is full or not writable; earlier checkpoints are untouched.
    """
    data = safetensors.torch.save(_tensors(state))
    info = CheckpointInfo(
        version=version, counters=dict(counters), sha256=hashlib.sha256(data).hexdigest()
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"v{version:010d}.json"
    _write_durably(path.with_suffix(".safetensors"), data)
    _write_durably(path, msgspec.json.format(msgspec.json.encode(info)) + b"\n")
    _tidy(directory, keep)
    return path


def _tidy(directory: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and what crashes left of unfinished ones."""
    for old in sorted(directory.glob("v*.json"))[:-keep]:
        old.unlink()
    complete = {path.stem for path in directory.glob("v*.json")}
    for tensors in directory.glob("v*.safetensors"):
        if tensors.stem not in complete:
            tensors.unlink()
    for temporary in directory.glob(".v*.tmp"):
        temporary.unlink()


def _tensors(state: LearnerState) -> dict[str, torch.Tensor]:
    tensors = {f"network.{name}": p.detach() for name, p in state.network.named_parameters()}
    tensors["generator"] = state.generator.get_state()
    for name, tensor in state.optimizer.named_tensors().items():
        tensors[f"optimizer.{name}"] = tensor
    if state.target is not None:
        for name, parameter in state.target.network.named_parameters():
            tensors[f"target.{name}"] = parameter.detach()
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _write_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
