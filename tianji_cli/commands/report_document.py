"""What `tianji report --json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.trace.summary import Summary
from tianji_cli.analysis.profile import RoleProfile
from tianji_cli.analysis.settings import Differences, differing_settings

if TYPE_CHECKING:
    import pandas as pd

    from tianji_cli.analysis.verify import ExaminedRun

REPORT_SCHEMA_VERSION = 1
MAX_CURVE_POINTS = 200


class WrongFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that differs from the files of a run."""

    where: str
    name: str
    written: int | float | bool | None
    rebuilt: int | float | bool | None


class ResumedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run before, up to the checkpoint with which the next one goes on."""

    run_id: str
    t_s: float
    env_steps_collected: int
    episodes: int


class ReturnCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Mean returns of full windows of training episodes, thinned out; over the runs before too."""

    t_s: list[float]
    env_steps: list[int]
    return_mean: list[float]


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run in `report --json`; `summary` is null if the run wrote none.

    `profile` is empty unless the run was profiled, `resumes` unless it resumes runs that are there.
    """

    run_id: str
    path: str
    summary: Summary | None
    rebuilt: Summary
    agrees: bool
    disagreements: list[WrongFigure]
    warnings: list[str]
    profile: list[RoleProfile] = []
    resumes: list[ResumedRun] = []
    curve: ReturnCurve | None = None
    curves_within_team: dict[str, ReturnCurve] = {}
    """The same of each policy and each agent of a team, by name."""


class ReportDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `report --json` prints."""

    schema_version: int = REPORT_SCHEMA_VERSION
    report: str
    figures: list[str]
    runs: list[RunReport]
    differences: Differences | None = None
    """Settings that differ between runs; null for a single run."""


def document_of(
    runs: Sequence[ExaminedRun], report: Path, figures: Sequence[Path]
) -> ReportDocument:
    """The document for these runs and their report."""
    return ReportDocument(
        report=str(report),
        figures=[str(path) for path in figures],
        runs=[
            RunReport(
                run_id=examined.run.paths.run_id,
                path=str(examined.run.paths.root),
                summary=examined.run.summary,
                rebuilt=examined.rebuilt,
                agrees=not examined.disagreements,
                disagreements=[
                    WrongFigure(
                        where=item.where,
                        name=item.name,
                        written=item.written,
                        rebuilt=item.rebuilt,
                    )
                    for item in examined.disagreements
                ],
                warnings=list(examined.warnings),
                profile=examined.curves.profile,
                resumes=[
                    ResumedRun(
                        run_id=one.run_id,
                        t_s=one.until.elapsed_s,
                        env_steps_collected=one.until.env_steps_collected,
                        episodes=len(one.episodes),
                    )
                    for one in examined.before
                ],
                curve=_curve_of(examined.curves.episodes),
                curves_within_team={
                    name: _curve_of(curve) for name, curve in examined.curves.within_team.items()
                },
            )
            for examined in runs
        ],
        differences=differing_settings([examined.run.manifest for examined in runs])
        if len(runs) > 1
        else None,
    )


def _curve_of(curve: pd.DataFrame) -> ReturnCurve:
    full = curve[curve["is_full"].astype(bool)]
    step = -(-len(full) // MAX_CURVE_POINTS) or 1
    kept = full.iloc[(len(full) - 1) % step :: step] if len(full) else full  # the last is there
    return ReturnCurve(
        t_s=[float(value) for value in kept["t_s"]],
        env_steps=[int(value) for value in kept["env_steps"]],
        return_mean=[float(value) for value in kept["return_mean"]],
    )
