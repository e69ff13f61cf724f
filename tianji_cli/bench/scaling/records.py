"""The files of a scaling benchmark: `scaling.json` says what it is, each `cell.json` what one run
did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from tianji_cli.bench.cells import CampaignFiles, Manifest, Result, in_blocks
from tianji_cli.bench.kinds import SCALING
from tianji_cli.bench.scaling.suite import ScalingSuite
from tianji_cli.config.inventory import Inventory

RUN = "run"
Outcome = Literal["reached", "censored", "failed"]


class ScalingCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run: so many nodes, this seed."""

    nodes: int
    seed: int

    @property
    def name(self) -> str:
        return f"nodes-{self.nodes}-seed{self.seed}"


class ScalingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did, from its own summary and trace."""

    collect_per_s: float | None = None
    """Env steps over all nodes, in the steady window."""
    time_to_threshold_s: float | None = None
    steps_to_threshold: int | None = None
    return_mean: float | None = None
    wall_s: float = 0.0
    lag_mean: float | None = None
    lag_max: int | None = None
    used_cores: float | None = None
    """Processor time of the run's own processes, on all hosts, over the time that they ran."""
    used_cores_apart: float | None = None
    """Of them, what actors and learners did not use: coordinator, buffers, reducer."""


class ScalingResult(Result[ScalingCell], frozen=True, kw_only=True):
    """What became of a run; its own files are in `run/` beside it."""

    outcome: Outcome
    figures: ScalingFigures = ScalingFigures()
    busy_share: float | None = None
    """How busy this machine was during the run, by whatever ran on it: 1 is all its cores."""
    exit_code: int | None = None
    versions: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    """By host, of its packages; older cells list none."""


class ScalingManifest(Manifest[ScalingSuite, ScalingCell], frozen=True, kw_only=True):
    """`scaling.json`."""

    inventory: Inventory
    seeds: list[int]


class ScalingFiles(CampaignFiles[ScalingManifest, ScalingCell, ScalingResult]):
    """Where they lie."""

    kind = SCALING
    manifest_type = ScalingManifest
    result_type = ScalingResult


def make_cells(suite: ScalingSuite, seeds: Sequence[int]) -> list[ScalingCell]:
    """Randomised blocks: all numbers of nodes run with one seed before the next seed begins."""
    blocks = in_blocks(suite.name, {"nodes": suite.nodes}, seeds)
    return [ScalingCell(nodes=nodes, seed=seed) for _, nodes, seed in blocks]
