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
    for old in sorted(directory.glob("v*.json"))[:-keep]:
        old.unlink()
        old.with_suffix(".safetensors").unlink()
    return path


def _tensors(state: LearnerState) -> dict[str, torch.Tensor]:
    tensors = {f"network.{name}": p.detach() for name, p in state.network.named_parameters()}
    tensors["generator"] = state.generator.get_state()
    for name, tensor in state.optimizer.named_tensors().items():
        tensors[f"optimizer.{name}"] = tensor
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _write_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
