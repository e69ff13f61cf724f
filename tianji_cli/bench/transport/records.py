"""The files of a benchmark of transport: `transport.json` says what it is, each `cell.json` what
one run of a method did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from tianji_cli.bench.cells import CampaignFiles, Manifest, Result, check_known, in_blocks
from tianji_cli.bench.kinds import TRANSPORT
from tianji_cli.bench.transport.methods import METHODS, Found, Place
from tianji_cli.bench.transport.suite import TransportSuite
from tianji_cli.config.inventory import Host


class TransportCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run: one method, one number of senders, all sizes."""

    place: Place
    method: str
    senders: int
    block: int

    @property
    def name(self) -> str:
        place = "" if self.place == "one host" else "hosts-"
        return f"{place}{self.method}-{self.senders}-block{self.block}"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Measurement at one size.

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


class TransportResult(Result[TransportCell], frozen=True, kw_only=True):
    """Result of a run."""

    outcome: Literal["ok", "failed"]
    points: list[Point] = msgspec.field(default_factory=list)
    wall_s: float
    versions: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    """Between hosts: by host, of its packages; older cells list none."""


class TransportManifest(Manifest[TransportSuite, TransportCell], frozen=True, kw_only=True):
    """`transport.json`.

    Attributes:
        missing: Methods that are not installed here, with the reason.
        hosts: The receiver's first, then those of senders; empty on one host.
    """

    hosts: list[Host] = msgspec.field(default_factory=list)
    num_blocks: int
    found: dict[str, Found]
    missing: dict[str, str]


class TransportFiles(CampaignFiles[TransportManifest, TransportCell, TransportResult]):
    """Where they lie."""

    kind = TRANSPORT
    manifest_type = TransportManifest
    result_type = TransportResult

    def check_manifest(self, manifest: TransportManifest) -> None:
        named = (manifest.found, manifest.missing, manifest.suite.methods)
        names = {cell.method for cell in manifest.cells}.union(*named)
        check_known("methods", names, METHODS, self.manifest)


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
