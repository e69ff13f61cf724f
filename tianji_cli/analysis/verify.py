"""Complete examination of one run: the content of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.trace.summary import Summary
from tianji_cli.analysis.ancestry import Ancestor, ancestors_of
from tianji_cli.analysis.check import num_checks, rebuild_counters, warnings_of
from tianji_cli.analysis.curves import RunCurves, curves_of
from tianji_cli.analysis.history import Disagreement
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.run import RunData, load_run
from tianji_cli.analysis.settings import differing_settings
from tianji_cli.plain_text import plain
from tianji_cli.storage.run_dir import RunPaths, in_unicode


@dataclass(frozen=True)
class ExaminedRun:
    """A run and the results of its examination.

    Attributes:
        run: Its files.
        summary: The one it wrote, or the rebuilt one if it wrote none.
        rebuilt: The one from the trace tables alone.
        disagreements: Where its files contradict each other.
        num_fields_checked: Summary fields that were rebuilt.
        num_ledger_rows_checked: Ledger rows that were balanced.
        warnings: Notes that a reader needs first.
        curves: Data of its plots.
        before: The runs that it resumes, the earliest first.
    """

    run: RunData
    summary: Summary
    rebuilt: Summary
    disagreements: Sequence[Disagreement]
    num_fields_checked: int
    num_ledger_rows_checked: int
    warnings: Sequence[str]
    curves: RunCurves
    before: Sequence[Ancestor] = ()

    @property
    def label(self) -> str:
        """Name of the run in tables and legends."""
        return self.curves.label


def examine_runs(paths: Sequence[RunPaths]) -> list[ExaminedRun]:
    """Reads and examines runs; runs of the same id are distinguished by their paths.

    Raises:
        ConfigError: A run's files are damaged, or it has no trace rows.
    """
    ids = [path.run_id for path in paths]
    examined = [
        _examine(
            load_run(path),
            plain(in_unicode(path.run_id if ids.count(path.run_id) == 1 else str(path.root))),
        )
        for path in paths
    ]
    return _grouped(examined) if len(examined) > 1 else examined


def _grouped(runs: Sequence[ExaminedRun]) -> list[ExaminedRun]:
    """The same; the curves know which of them have equal settings."""
    groups = differing_settings([one.run.manifest for one in runs]).groups
    titles = {number: plain(group.title) for group in groups for number in group.runs}
    return [
        replace(one, curves=replace(one.curves, group=titles.get(number, "")))
        for number, one in enumerate(runs)
    ]


def _examine(run: RunData, label: str) -> ExaminedRun:
    rebuilt = rebuild_summary(run)
    summary = run.summary if run.is_closed and run.summary else rebuilt
    disagreements = rebuild_counters(run, rebuilt)
    num_fields, num_rows = num_checks(run)
    before, trouble = ancestors_of(run.paths.root, run.manifest)
    warnings = warnings_of(run, summary, disagreements)
    if trouble:
        warnings.append(
            f"An earlier run that it resumes cannot be read, so its curve does not begin with that:"
            f" {trouble}."
        )
    return ExaminedRun(
        run=run,
        summary=summary,
        rebuilt=rebuilt,
        disagreements=disagreements,
        num_fields_checked=num_fields,
        num_ledger_rows_checked=num_rows,
        warnings=warnings,
        curves=curves_of(run, summary, label, before),
        before=before,
    )
