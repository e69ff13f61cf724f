"""The trials of a search, from the records of their runs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from engine.spec import Scalar
from tianji_cli.bench.search.board import Told, step_of
from tianji_cli.bench.search.importance import importance_of
from tianji_cli.bench.search.progress import filled
from tianji_cli.bench.search.spec import Direction, Search
from tianji_cli.bench.statistics import mean_over_steps, median
from tianji_cli.bench.study.records import StudyCell, StudyManifest, StudyRun

TrialState = Literal["complete", "pruned", "failed", "open"]


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """One setting that a search has tried."""

    trial: int
    variant: str
    params: dict[str, Scalar]
    state: TrialState
    """`open`: not all of its runs are finished."""
    value: float | None = None
    """Of the objective, the median over its seeds; null unless it is complete, and where the
    threshold was not reached."""
    detail: str = ""
    """Why it was pruned or has failed."""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a search has found for one task."""

    objective: str
    direction: Direction
    trials: list[TrialResult]
    best: int | None = None
    """Number of the best trial; null if none is complete."""
    importance: dict[str, float] = {}
    """By key, the most important first: its share in what distinguishes the best trials from all
    (PED-ANOVA); empty if that cannot be said."""
    importance_missing: str = ""
    """Why it is empty."""

    @property
    def best_trial(self) -> TrialResult | None:
        return next((trial for trial in self.trials if trial.trial == self.best), None)


def search_of(
    manifest: StudyManifest, task: str, runs: Mapping[StudyCell, StudyRun]
) -> SearchResult | None:
    """What the trials of one task have found so far; None if the study does not search."""
    search = manifest.suite.search
    if search is None:
        return None
    trials = trials_of(manifest, task, runs)
    best = best_of(search, trials)
    complete = [(trial.params, trial.value) for trial in trials if trial.state == "complete"]
    importance, missing = importance_of(
        search, [(params, value) for params, value in complete if value is not None]
    )
    return SearchResult(
        objective=search.objective,
        direction="maximize" if search.to_maximize else "minimize",
        trials=trials,
        best=None if best is None else best.trial,
        importance=importance,
        importance_missing=missing,
    )


def trials_of(
    manifest: StudyManifest, task: str, runs: Mapping[StudyCell, StudyRun]
) -> list[TrialResult]:
    """The trials of one task of which at least one run is finished, by number."""
    found = []
    for trial, variant in enumerate(manifest.suite.variants_of(task)):
        own = runs_of_trial(manifest, task, variant, runs)
        if own:
            found.append(_trial(manifest, task, trial, own))
    return found


def runs_of_trial(
    manifest: StudyManifest, task: str, variant: str, runs: Mapping[StudyCell, StudyRun]
) -> list[StudyRun]:
    """Its finished runs, by seed."""
    seeds = range(manifest.suite.seeds_of(task))
    cells = (StudyCell(task=task, variant=variant, seed=seed) for seed in seeds)
    return [runs[cell] for cell in cells if cell in runs]


def _trial(manifest: StudyManifest, task: str, trial: int, runs: Sequence[StudyRun]) -> TrialResult:
    told = told_of(manifest, task, runs)
    value = None if told is None or told.value is None else told.value
    return TrialResult(
        trial=trial,
        variant=runs[0].cell.variant,
        params=runs[0].params,
        state="open" if told is None else told.state,
        value=value if value is not None and math.isfinite(value) else None,
        detail="" if told is None else _detail(told, runs),
    )


def _detail(told: Told, runs: Sequence[StudyRun]) -> str:
    if told.state == "complete":
        return ""
    said = next((run.detail for run in runs if run.outcome in (told.state, "failed")), "")
    return said.partition("\n")[0] or "no episode was finished"


def told_of(manifest: StudyManifest, task: str, runs: Sequence[StudyRun]) -> Told | None:
    """How a trial has ended; None if one of its runs is not finished.

    Args:
        manifest: The study.
        task: The task.
        runs: All finished runs of the trial, by seed.
    """
    study = manifest.suite
    assert study.search is not None
    if len(runs) < study.seeds_of(task):
        return None
    params, returns = runs[0].params, _intermediate(runs)
    if any(run.outcome == "pruned" for run in runs):
        return Told(params, "pruned", returns=returns)
    values = [value_of(study.search, run, study.budget_of(task)) for run in runs]
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < len(values):
        return Told(params, "failed", returns=returns)
    middle = median(known)
    return Told(params, "complete", math.inf if middle is None else middle, returns)


def _intermediate(runs: Sequence[StudyRun]) -> dict[int, float]:
    """By Optuna's step; the points that a run did not need are as its end."""
    found = {}
    for run in runs:
        if run.summary is None:
            continue
        is_whole = run.outcome not in ("pruned", "failed")
        final = run.summary.return_mean if is_whole else None
        for point, value in filled(run.intermediate, final).items():
            found[step_of(run.cell.seed, point)] = value
    return found


def value_of(search: Search, run: StudyRun, budget_s: float) -> float | None:
    """The objective of one run: infinite if the threshold was not reached, None if it has none."""
    summary = run.summary
    if run.outcome in ("failed", "pruned") or summary is None:
        return None
    if search.objective == "final return":
        return summary.return_mean
    if search.objective == "time to threshold":
        return math.inf if summary.time_to_threshold_s is None else summary.time_to_threshold_s
    t_s, means = run.curve.t_s, run.curve.return_mean
    if not t_s:
        return summary.return_mean
    times = [min(0.0, t_s[0]), *t_s, max(budget_s, t_s[-1])]
    return mean_over_steps(times, [means[0], *means, means[-1]], budget_s)


def best_of(search: Search, trials: Sequence[TrialResult]) -> TrialResult | None:
    """The best complete trial; the earliest of equals."""
    known = [trial for trial in trials if trial.value is not None]
    sign = 1 if search.to_maximize else -1
    return max(known, key=lambda trial: (sign * (trial.value or 0.0), -trial.trial), default=None)
