"""The files of a benchmark of transport: `transport.json` says what it is, each `cell.json` what
one run of a method did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tianji_cli.bench.cell_files import CellFiles, check_known, read_finished
from tianji_cli.bench.machine import Load, Machine
from tianji_cli.bench.schedule import in_blocks
from tianji_cli.documents import read_json
from tianji_cli.files import is_file
from tianji_cli.git_state import GitState
from tianji_cli.inventory import Host
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
    versions: dict[str, dict[str, str]] = {}
    """Between hosts: by host, of its packages; cells of before list none."""


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


class TransportPaths(CellFiles):
    """Where they lie."""

    kind = "transport"


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
    return is_file(TransportPaths(place).manifest)


def read_manifest(paths: TransportPaths) -> TransportManifest:
    """Reads `transport.json`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    manifest = read_json(paths.manifest, TransportManifest, TRANSPORT_SCHEMA_VERSION, WHAT)
    named = (manifest.found, manifest.missing, manifest.suite.methods)
    names = {cell.method for cell in manifest.cells}.union(*named)
    check_known("methods", names, METHODS, paths.manifest)
    return manifest


def read_results(
    paths: TransportPaths, manifest: TransportManifest
) -> dict[TransportCell, TransportResult]:
    """The finished cells.

    Raises:
        ConfigError: A file is damaged, or was written on another machine.
    """
    cells, machine = manifest.cells, manifest.machine
    return read_finished(paths, cells, machine, TransportResult, TRANSPORT_SCHEMA_VERSION, WHAT)
