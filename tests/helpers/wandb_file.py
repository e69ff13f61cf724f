"""Reads what an offline run of Weights & Biases has written: a LevelDB log of its own records.

Its package ships the records (protocol buffers) and, in Go, the reader.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

BLOCK_BYTES = 32768
HEADER_BYTES = 7
"""Of the file: a name, a magic number, a version. Of a chunk: checksum, length, type."""
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """All records of a `.wandb` file, in order."""
    from wandb.proto import wandb_internal_pb2

    for data in _payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data.startswith(b":W&B")
    place, payload = HEADER_BYTES, b""
    while place < len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < HEADER_BYTES:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        payload += data[place + HEADER_BYTES : place + HEADER_BYTES + length]
        place += HEADER_BYTES + length
        if kind in (FULL, LAST):
            yield payload
            payload = b""


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of the run's history, by the names of their values."""
    rows = (record.history for record in records(path) if record.HasField("history"))
    return [{_key(item): json.loads(item.value_json) for item in row.item} for row in rows]


def config(path: Path) -> dict[str, Any]:
    """The run's configuration."""
    items = (item for r in records(path) if r.HasField("run") for item in r.run.config.update)
    return {_key(item): json.loads(item.value_json) for item in items}


def summary(path: Path) -> dict[str, Any]:
    """The last summary of the run."""
    items = (item for r in records(path) if r.HasField("summary") for item in r.summary.update)
    return {_key(item): json.loads(item.value_json) for item in items}


class _Item(Protocol):
    key: str
    nested_key: Sequence[str]


def _key(item: _Item) -> str:
    return item.key or "/".join(item.nested_key)
