"""Texts and table rows of a search: the same for the terminal, the page and the Markdown page."""

from __future__ import annotations

from collections.abc import Mapping

from engine.spec import Scalar
from tianji_cli import units
from tianji_cli.bench.search.space import num_trials
from tianji_cli.bench.search.spec import Search
from tianji_cli.bench.study.compare import TaskResult
from tianji_cli.bench.study.trials import SearchResult, TrialResult

MAX_ROWS = 10
"""Trials in the terminal: the best ones."""
MEANING = (
    "The value of a trial is the median over its seeds. A pruned trial was ended because its mean"
    " return was below the median of the finished trials at the same share of the budget; it has"
    " no value, and neither has one that failed. Importance is the share of a key in what"
    " distinguishes the best trials from all of them (PED-ANOVA); with few trials it is rough."
)


def search_words(search: Search) -> str:
    """What is searched, in one line before it starts."""
    trials = units.plural(num_trials(search), "trial")
    direction = "maximize" if search.to_maximize else "minimize"
    pruned = "pruned below the median" if search.is_pruned else "none pruned"
    return f"{trials} by {search.sampler} over {', '.join(search.space)}; {direction}" + (
        f" {search.objective}; {pruned}"
    )


def scalar_text(value: Scalar) -> str:
    """
    >>> scalar_text(0.00123456), scalar_text(True), scalar_text(None), scalar_text("tanh")
    ('0.001235', 'true', 'null', 'tanh')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def setting_text(params: Mapping[str, Scalar]) -> str:
    """A setting in one line.

    >>> setting_text({"algorithm.learning_rate": 0.00123456, "algorithm.num_epochs": 4})
    'learning_rate 0.001235, num_epochs 4'
    """
    return ", ".join(f"{short_key(key)} {scalar_text(value)}" for key, value in params.items())


def short_key(key: str) -> str:
    """The last part of a key.

    >>> short_key("algorithm.learning_rate")
    'learning_rate'
    """
    return key.rpartition(".")[2]


def value_text(found: SearchResult, value: float | None) -> str:
    """A value of the objective."""
    if value is None:
        return units.NONE
    is_time = found.objective == "time to threshold"
    return units.seconds(value) if is_time else units.mean_return(value)


def trial_headings(found: SearchResult) -> tuple[str, ...]:
    """The columns of `trial_rows`."""
    return ("trial", "state", found.objective, *_keys(found))


def short_headings(found: SearchResult) -> tuple[str, ...]:
    """The columns of `best_rows`: keys by their last part, unless two have the same."""
    keys = _keys(found)
    names = tuple(map(short_key, keys))
    return ("trial", "state", found.objective, *(names if len(set(names)) == len(names) else keys))


def _keys(found: SearchResult) -> list[str]:
    return list(found.trials[0].params) if found.trials else []


def trial_rows(found: SearchResult) -> list[tuple[str, ...]]:
    """One row for each trial, by number."""
    return [_row(found, trial) for trial in found.trials]


def best_rows(found: SearchResult) -> list[tuple[str, ...]]:
    """Some of them, the best first."""
    sign = -1 if found.direction == "maximize" else 1
    known = [trial for trial in found.trials if trial.value is not None]
    known.sort(key=lambda trial: sign * (trial.value or 0.0))
    return [_row(found, trial) for trial in known[:MAX_ROWS]]


def _row(found: SearchResult, trial: TrialResult) -> tuple[str, ...]:
    params = (scalar_text(value) for value in trial.params.values())
    state = "best" if trial.trial == found.best else trial.state
    value = value_text(found, trial.value)
    if trial.state == "complete" and trial.value is None:
        value = "not reached"
    return (trial.variant, state, value, *params)


def search_lines(task: TaskResult) -> list[str]:
    """What a search has found, a sentence each."""
    found = task.search
    if found is None:
        return []
    states = [trial.state for trial in found.trials]
    counts = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("complete", "pruned", "failed", "open")
        if state in states
    )
    lines = [f"{task.task}: {units.plural(len(states), 'trial')}: {counts}."]
    best = found.best_trial
    if best is None:
        return [*lines, f"{task.task}: no trial is complete, so none is the best."]
    lines.append(
        f"{task.task}: the best is {best.variant}, {found.objective}"
        f" {value_text(found, best.value)}, with {setting_text(best.params)}."
    )
    if found.importance:
        shares = ", ".join(
            f"{short_key(key)} {share:.0%}" for key, share in found.importance.items()
        )
        lines.append(f"{task.task}: importance: {shares}.")
    else:
        lines.append(f"{task.task}: no importance: {found.importance_missing}.")
    return lines


def title_of_history(task: TaskResult) -> str:
    """What the history shows."""
    found = task.search
    assert found is not None
    best = found.best_trial
    if best is None:
        return f"{task.task}: no trial is complete"
    value = value_text(found, best.value)
    return f"{task.task}: the best of {len(found.trials)} trials is {best.variant}, {value}"


def title_of_importance(task: TaskResult) -> str:
    """Which key matters most."""
    found = task.search
    assert found is not None
    key, share = next(iter(found.importance.items()))
    return f"{short_key(key)} explains {share:.0%} of what makes a trial good"


def title_of_slices(task: TaskResult) -> str:
    """What the slices show."""
    found = task.search
    assert found is not None
    best = found.best_trial
    return f"{task.task}: best at " + (setting_text(best.params) if best else units.NONE)


def title_of_trials(task: TaskResult) -> str:
    """What the learning curves show."""
    found = task.search
    assert found is not None
    num_pruned = sum(trial.state == "pruned" for trial in found.trials)
    return (
        f"{task.task}: learning curves of {len(found.trials)} trials, {num_pruned} of them pruned"
    )
