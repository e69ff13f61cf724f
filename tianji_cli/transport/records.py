"""The files of a benchmark of transport: `transport.json` says what it is, each `cell.json` what
one run of a method did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tianji_cli.anonymous import anonymous
from tianji_cli.bench.machine import Load, Machine, check_same
from tianji_cli.bench.schedule import in_blocks
from tianji_cli.documents import read_json, write_json
from tianji_cli.inventory import Host
from tianji_cli.manifest import GitState
from tianji_cli.transport.methods import METHODS, Found, Place
from tianji_cli.transport.suite import TransportSuite

TRANSPORT_SCHEMA_VERSION = 1
WHAT = "a benchmark of transport"


class TransportCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run: this method, so many senders, all sizes."""

    place: Place
    method: str
    senders: int
    block: int

    @property
    def name(self) -> str:
        place = "" if self.place == "one host" else "hosts-"
        return f"{place}{self.method}-{self.senders}-block{self.block}"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured at one size.

    Attributes:
        messages: Of all senders, while the clock ran for `seconds`.
        latencies_s: Of single messages, one way; between hosts from the receiver's asking over TCP.
    """

    size_bytes: int
    messages: int
    seconds: float
    latencies_s: list[float] = []

    @property
    def bytes_per_s(self) -> float:
        return self.messages * self.size_bytes / self.seconds


class TransportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run."""

    schema_version: int = TRANSPORT_SCHEMA_VERSION
    cell: TransportCell
    outcome: Literal["ok", "failed"]
    detail: str = ""
    points: list[Point] = []
    started_at: str
    wall_s: float
    load: Load | None = None
    """Just before."""
    machine_id: str
    command: list[str] = []


class TransportManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`transport.json`.

    Attributes:
        missing: Methods that are not installed here, with the reason.
        hosts: The receiver's first, then those of senders; empty on one host.
    """

    schema_version: int = TRANSPORT_SCHEMA_VERSION
    bench_id: str
    argv: list[str]
    suite: TransportSuite
    hosts: list[Host] = []
    num_blocks: int
    cells: list[TransportCell]
    found: dict[str, Found]
    missing: dict[str, str]
    machine: Machine
    git: GitState
    started_at: str


@dataclass(frozen=True)
class TransportPaths:
    """Paths inside `results/<bench id>/`.

    Args:
        root: The benchmark's own directory.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "transport.json"

    @property
    def comparison(self) -> Path:
        return self.root / "comparison.json"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    def cell(self, cell: TransportCell) -> Path:
        return self.root / "cells" / cell.name

    def result(self, cell: TransportCell) -> Path:
        """Written last: a cell without it is not finished."""
        return self.cell(cell) / "cell.json"


def make_cells(
    suite: TransportSuite, place: Place, found: Sequence[str], num_blocks: int
) -> list[TransportCell]:
    """Randomised blocks: in each, every method with every number of senders once."""
    sides = [
        (name, senders)
        for name in suite.methods
        if name in found and place in METHODS[name].places
        for senders in suite.senders
        if senders <= (METHODS[name].max_senders or senders)
    ]
    blocks = in_blocks(suite.name, {"transport": sides}, range(num_blocks))
    return [
        TransportCell(place=place, method=method, senders=senders, block=block)
        for _, (method, senders), block in blocks
    ]


def is_transport(place: Path) -> bool:
    """Whether a directory holds a benchmark of transport."""
    return TransportPaths(place).manifest.is_file()


def read_manifest(paths: TransportPaths) -> TransportManifest:
    """Reads `transport.json`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    return read_json(paths.manifest, TransportManifest, TRANSPORT_SCHEMA_VERSION, WHAT)


def read_results(
    paths: TransportPaths, manifest: TransportManifest
) -> dict[TransportCell, TransportResult]:
    """The finished cells.

    Raises:
        ConfigError: A file is damaged, or was written on another machine.
    """
    found = {
        cell: read_json(paths.result(cell), TransportResult, TRANSPORT_SCHEMA_VERSION, WHAT)
        for cell in manifest.cells
        if paths.result(cell).is_file()
    }
    check_same(manifest.machine, [r.machine_id for r in found.values()], str(paths.root))
    return found


def keep(
    target: TransportPaths,
    manifest: TransportManifest,
    results: Mapping[TransportCell, TransportResult],
) -> None:
    """Writes what a report is made of to another place, without paths.

    Raises:
        OSError: It cannot be written.
    """
    target.root.mkdir(parents=True, exist_ok=True)
    write_json(target.manifest, anonymous(manifest))
    for result in results.values():
        target.cell(result.cell).mkdir(parents=True, exist_ok=True)
        write_result(target, anonymous(result))


def write_result(paths: TransportPaths, result: TransportResult) -> None:
    """Makes a cell finished."""
    write_json(paths.result(result.cell), result)
