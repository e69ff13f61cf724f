"""Checkpoints written by hand, without torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from engine.progress import RunCounters
from engine.trace.checkpoint_file import CheckpointInfo, identity_sha256

ONE = {"network.weight": np.ones(2, np.float32)}


def tensors_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file of float32 arrays."""
    header, body = {}, b""
    for name, values in tensors.items():
        data = values.astype("<f4").tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def write_checkpoint(
    directory: Path,
    version: int,
    return_mean: float | None = None,
    tensors: Mapping[str, np.ndarray] | bytes = ONE,
) -> Path:
    """Writes a complete checkpoint, and returns its JSON file."""
    directory.mkdir(parents=True, exist_ok=True)
    data = tensors if isinstance(tensors, bytes) else tensors_file(tensors)
    info = CheckpointInfo(
        version=version,
        updates=version,
        counters=RunCounters(),
        return_mean=return_mean,
        return_judge=None if return_mean is None else "training",
        return_version=None if return_mean is None else version,
        identity={},
        identity_sha256=identity_sha256({}),
        buffer={},
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    ).sealed()
    (directory / info.tensors_name).write_bytes(data)
    path = directory / info.name
    path.write_bytes(msgspec.json.encode(info))
    return path
