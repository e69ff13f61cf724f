"""Checks the lag of a run whose bound moved: every rollout was trained within the bound that it was
admitted with, and each of these bounds had been in force."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from msgspec import UNSET

from engine.spec import LEAST_AUTO_LAG, MOST_AUTO_LAG
from engine.trace.records import UNCOUNTED, UNREPORTED, Event, Production, Staleness
from tianji_cli.analysis.history import Disagreement, broken, is_thinned
from tianji_cli.analysis.old_samples.lag_bound import decisions
from tianji_cli.analysis.run import RunData

CLOCKS_S = 1.0
"""By how much the clocks of an actor and a learner may differ."""


def check_moving_bound(run: RunData) -> Iterator[Disagreement]:
    """Finds what contradicts `staleness.max_lag: auto`; nothing if the bound was a number."""
    if run.manifest.is_lag_adaptive:
        yield from _check_decisions(run)
        yield from _check_batches(run)
        yield from _check_admissions(run)
        yield from _check_rollouts(run)


def _check_decisions(run: RunData) -> Iterator[Disagreement]:
    """The bound of each learner begins with 1, goes on from what it was, and keeps its limits."""
    current: dict[str, int] = {}
    for number, event in enumerate(run.events, start=1):
        for _, before, bound in decisions([event]):
            held = current.get(event.role, LEAST_AUTO_LAG)
            limit = min(max(bound, LEAST_AUTO_LAG), MOST_AUTO_LAG)
            yield from broken(
                Event,
                number,
                ("the bound on lag goes on", before, held, before == held),
                ("the bound on lag keeps its limits", bound, limit, bound == limit),
            )
            current[event.role] = bound


class _Largest:
    """The largest bound so far, at any time.

    Args:
        run: Its decisions.
        role: Of this learner only; by default of any.
    """

    def __init__(self, run: RunData, role: str | None = None) -> None:
        self._times_s: list[float] = []
        self._bounds = [LEAST_AUTO_LAG]
        for event, _, bound in decisions(run.events):
            if role in (None, event.role):
                self._times_s.append(event.t_s)
                self._bounds.append(max(bound, self._bounds[-1]))

    def by(self, t_s: float) -> int:
        return self._bounds[bisect_right(self._times_s, t_s)]


def _check_batches(run: RunData) -> Iterator[Disagreement]:
    """No batch holds a step older than all bounds that its learner had had by then: both rows are
    the learner's own, so their times can be compared."""
    largest: dict[int, _Largest] = {}
    for number, row in enumerate(run.staleness, start=1):
        of = largest.get(row.learner)
        if of is None:
            of = largest[row.learner] = _Largest(run, f"learner-{row.learner}")
        bound = of.by(row.t_s)
        rule = ("lag is within the bounds so far", row.lag_max, bound, row.lag_max <= bound)
        yield from broken(Staleness, number, rule)


def _check_admissions(run: RunData) -> Iterator[Disagreement]:
    """No rollout states a bound that had not been in force by its end, and each states one."""
    largest = _Largest(run)
    for number, row in enumerate(run.production, start=1):
        if row.sequence == UNREPORTED:
            continue
        stated, most = row.max_lag, largest.by(row.t_s + CLOCKS_S)
        holds = stated is not UNSET and LEAST_AUTO_LAG <= stated <= most
        written = None if stated is UNSET else stated
        rule = ("a rollout's bound had been in force", written, most, holds)
        yield from broken(Production, number, rule)


def _check_rollouts(run: RunData) -> Iterator[Disagreement]:
    """Of no behaviour version more env steps were trained at a lag than were admitted with a bound
    of that lag or more. Each batch is given the rollouts with the smallest bounds that suffice,
    which leaves the most to later ones."""
    is_unknown = any(event.kind == UNCOUNTED for event in run.events)
    if not run.is_whole or is_unknown or is_thinned(run):
        return
    left = _Admitted(run)
    unknown = sum(row.env_steps for row in run.production if row.sequence == UNREPORTED)
    for number, batch in enumerate(run.staleness, start=1):
        for lag, steps in batch.steps_by_lag.items():
            missing = left.take(batch.version - lag, lag, steps)
            allowed = steps - max(0, missing - unknown)
            unknown = max(0, unknown - missing)
            rule = (f"admitted with a bound of {lag} or more", steps, allowed, steps <= allowed)
            yield from broken(Staleness, number, rule)


class _Admitted:
    """Env steps that were sent and not trained yet, by behaviour version and bound."""

    def __init__(self, run: RunData) -> None:
        self._steps: dict[int, dict[int, int]] = {}
        self._bounds: dict[int, list[int]] = {}
        for row in run.production:
            if row.sent and row.sequence != UNREPORTED and row.max_lag is not UNSET:
                steps = self._steps.setdefault(row.version_min, {})
                if row.max_lag not in steps:
                    insort(self._bounds.setdefault(row.version_min, []), row.max_lag)
                steps[row.max_lag] = steps.get(row.max_lag, 0) + row.env_steps

    def take(self, version: int, lag: int, steps: int) -> int:
        """Takes env steps with this bound or more; returns how many are missing."""
        held, bounds = self._steps.get(version, {}), self._bounds.get(version, [])
        for bound in bounds[bisect_left(bounds, lag) :]:
            taken = min(held[bound], steps)
            held[bound] -= taken
            steps -= taken
        return steps
