"""What a reproduction has found, from its records alone: ours beside the published. Pure functions.

The verdict of a row is that of a 95 % interval of the difference, ours minus published. If it
contains zero they agree; otherwise ours is better or worse, as larger returns are better.

- Figures over several runs are compared by Welch's interval: two samples of runs, of which the
  published one is known by mean, standard deviation and size.
- A figure of one run is compared as one more run of the same kind: the interval is that of a
  prediction from our runs. Its published spread, over evaluation episodes, only says how exactly
  that run was measured, and is added as such.

A single run of ours has no spread, and gets no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Literal, TypeAlias

import msgspec

from engine.wording import is_or_are, plural
from tianji_cli.bench.cells import SCHEMA_VERSION
from tianji_cli.bench.machine import MAX_BUSY_CORES
from tianji_cli.bench.published.records import PublishedManifest, PublishedRun
from tianji_cli.bench.published.suite import Judge, PublishedReturn, PublishedSource
from tianji_cli.bench.published.welch import (
    SampleMoments,
    difference_from_one,
    mean_difference,
    mean_interval,
    sample_of,
)
from tianji_cli.bench.statistics import Interval
from tianji_cli.bench.study.records import StudyCell

Verdict: TypeAlias = Literal["agrees", "better", "worse"]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run that has been judged."""

    seed: int
    return_mean: float
    """Over the episodes that judge it."""
    env_steps: int
    """Consumed by the learner."""
    wall_s: float
    """Of training."""
    num_beside: int
    """The most other runs on the same cores at once."""


class RowResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    row: str
    env_id: str
    algorithm: str
    policy: str
    judge: Judge
    episodes: int
    """Of each run, that judge it."""
    source: PublishedSource
    differs: tuple[str, ...]
    settings: dict[str, object]
    """Changes to the experiment file."""
    published: PublishedReturn
    ours: Interval | None
    """Mean over runs with its interval (Student's t); null without any run."""
    difference: Interval | None
    """Ours minus published, with its interval; null for fewer than two runs."""
    verdict: Verdict | None
    """Null for fewer than two runs."""
    env_steps: float | None
    """Median over runs."""
    wall_s: float | None
    """Median over runs."""
    runs: list[RunResult]
    num_planned: int
    num_failed: int


class PublishedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`comparison.json`."""

    schema_version: int = SCHEMA_VERSION
    bench_id: str
    rows: list[RowResult]
    warnings: list[str]


def compare_published(
    manifest: PublishedManifest, runs: Mapping[StudyCell, PublishedRun]
) -> PublishedComparison:
    """Computes all figures of a reproduction.

    Args:
        manifest: What was to be done.
        runs: Records of the runs finished so far.
    """
    return PublishedComparison(
        bench_id=manifest.bench_id,
        rows=[_row(manifest, name, runs_of(runs, name)) for name in manifest.suite.rows],
        warnings=warnings_of(manifest, runs),
    )


def runs_of(runs: Mapping[StudyCell, PublishedRun], row: str) -> list[PublishedRun]:
    """Finished runs of one row by seed."""
    own = [run for cell, run in runs.items() if cell.task == row]
    return sorted(own, key=lambda run: run.cell.seed)


def _row(manifest: PublishedManifest, name: str, runs: Sequence[PublishedRun]) -> RowResult:
    row, study = manifest.suite.rows[name], manifest.suite.study
    found = [result_of(run) for run in runs if run.outcome != "failed"]
    means = [run.return_mean for run in found]
    difference = difference_of(means, row.published)
    known = next((run.summary for run in runs if run.summary), None)
    return RowResult(
        row=name,
        env_id=known.env_id if known else "",
        algorithm=known.algorithm if known else "",
        policy=known.policy if known else "",
        judge=row.judge,
        episodes=row.episodes,
        source=row.source,
        differs=row.differs,
        settings=dict(study.tasks[name].settings),
        published=row.published,
        ours=mean_interval(means) if means else None,
        difference=difference,
        verdict=None if difference is None else verdict_of(difference),
        env_steps=median([run.env_steps for run in found]) if found else None,
        wall_s=median([run.wall_s for run in found]) if found else None,
        runs=found,
        num_planned=sum(cell.task == name for cell in manifest.cells),
        num_failed=len(runs) - len(found),
    )


def result_of(run: PublishedRun) -> RunResult:
    """Of a run that has not failed."""
    assert run.summary is not None
    return RunResult(
        seed=run.cell.seed,
        return_mean=fmean(run.judged),
        env_steps=run.summary.env_steps_consumed,
        wall_s=run.summary.wall_s,
        num_beside=run.num_beside,
    )


def difference_of(ours: Sequence[float], published: PublishedReturn) -> Interval | None:
    """Ours minus published, with its interval.

    Args:
        ours: Mean return of each run.
        published: The figure.

    Returns:
        None for fewer than two runs.
    """
    if len(ours) < 2:
        return None
    count, squares = published.runs, published.spread**2
    if count == 1:
        error = squares / (published.episodes or 1)
        return difference_from_one(sample_of(ours), published.mean, error)
    theirs = SampleMoments(published.mean, squares * count / (count - 1), count)
    return mean_difference(sample_of(ours), theirs)


def verdict_of(difference: Interval) -> Verdict:
    """
    >>> verdict_of(Interval(estimate=3.0, low=1.0, high=5.0))
    'better'
    """
    if difference.contains(0.0):
        return "agrees"
    return "better" if difference.estimate > 0 else "worse"


def warnings_of(manifest: PublishedManifest, runs: Mapping[StudyCell, PublishedRun]) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    if missing := len(manifest.cells) - len(runs):
        in_all = plural(len(manifest.cells), "run")
        found.append(f"{missing} of {in_all} {is_or_are(missing)} still to be made.")
    found += [
        f"{run.cell.name} failed: {run.detail.partition(chr(10))[0]}"
        for run in runs.values()
        if run.outcome == "failed"
    ]
    found += [
        f"{run.cell.name}: {plural(run.disagreements, 'figure')} disagreed with its traces."
        for run in runs.values()
        if run.disagreements
    ]
    if shared := sum(run.num_beside > 0 for run in runs.values()):
        found.append(
            f"{shared} of {plural(len(runs), 'run')} shared the cores with other runs: wall times"
            " are longer than those of a run alone. Returns under policy local do not depend on it."
        )
    busy = [run.load.busy_cores for run in runs.values() if run.load]
    if num_busy := sum(cores > MAX_BUSY_CORES for cores in busy):
        found.append(
            f"The machine was busy before {plural(num_busy, 'run')}: wall times are upper bounds."
        )
    if manifest.git.dirty:
        found.append("The code had uncommitted changes.")
    return found
