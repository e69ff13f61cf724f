"""What a reader of a study must know before trusting its figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from engine.wording import is_or_are, plural
from tianji_cli.bench.machine import MAX_BUSY_CORES
from tianji_cli.bench.statistics import FEW_BLOCKS
from tianji_cli.bench.study.comparability import why_no_times
from tianji_cli.bench.study.records import StudyCell, StudyManifest, StudyRun


def warnings_of(manifest: StudyManifest, runs: Mapping[StudyCell, StudyRun]) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    if missing := len(manifest.cells) - len(runs):
        runs_in_all = plural(len(manifest.cells), "run")
        found.append(f"{missing} of {runs_in_all} {is_or_are(missing)} still to be made.")
    few = min(manifest.suite.seeds_of(task) for task in manifest.suite.tasks)
    if few < FEW_BLOCKS and manifest.suite.search is None:
        found.append(f"Fewer than {FEW_BLOCKS} seeds: intervals are narrower than they should be.")
    found += [
        f"{run.cell.name} failed: {run.detail.partition(chr(10))[0]}"
        for run in runs.values()
        if run.outcome == "failed"
    ]
    found += _unequal(manifest, runs)
    found += [
        f"{run.cell.name}: {plural(run.disagreements, 'figure')} disagreed with its traces."
        for run in runs.values()
        if run.disagreements
    ]
    busy = [run for run in runs.values() if run.load and run.load.busy_cores > MAX_BUSY_CORES]
    if busy:
        most = max(run.load.busy_cores for run in busy if run.load)
        found.append(
            f"The machine was busy before {len(busy)} of {plural(len(runs), 'run')} (up to"
            f" {most:.1f} of {plural(manifest.machine.num_cores, 'core')}): times and throughput"
            " are not to be quoted."
        )
    if manifest.git.dirty:
        found.append("The code had uncommitted changes.")
    return found


def _unequal(manifest: StudyManifest, runs: Mapping[StudyCell, StudyRun]) -> list[str]:
    """Tasks whose times are not compared."""
    reasons = {
        name: why_no_times([run for cell, run in runs.items() if cell.task == name])
        for name in manifest.suite.tasks
    }
    return [
        f"{name}: times and rates are not compared: {reason}. Where the budget is a time, such runs"
        " differ also in how much they could learn within it."
        for name, reason in reasons.items()
        if reason is not None
    ]
