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
    from tianji_cli.analysis.verify import ExaminedRun

REPORT_SCHEMA_VERSION = 1


class WrongFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that differs from the files of a run."""

    where: str
    name: str
    written: int | float | bool | None
    rebuilt: int | float | bool | None


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run in `report --json`; `summary` is null if the run wrote none.

    `profile` is empty unless the run was profiled.
    """

    run_id: str
    path: str
    summary: Summary | None
    rebuilt: Summary
    agrees: bool
    disagreements: list[WrongFigure]
    warnings: list[str]
    profile: list[RoleProfile] = []


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
            )
            for examined in runs
        ],
        differences=differing_settings([examined.run.manifest for examined in runs])
        if len(runs) > 1
        else None,
    )
