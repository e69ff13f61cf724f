"""The bound on lag of a run: the number that was given, or what `max_lag: auto` made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import UNSET

from engine.spec import LEAST_AUTO_LAG
from engine.trace.records import LAG_BOUND, Event
from tianji_cli.analysis.run import RunData


def decisions(events: Iterable[Event]) -> Iterator[tuple[Event, int, int]]:
    """The events that tell what was decided about a bound, with it until then and from then on."""
    for event in events:
        if event.kind == LAG_BOUND and event.max_lag is not UNSET:
            before = event.max_lag_before
            yield event, event.max_lag if before is UNSET else before, event.max_lag


def largest_bound(run: RunData) -> int | None:
    """The largest bound that was in force at any time, in versions; None if there was none."""
    if not run.manifest.is_lag_adaptive:
        return run.manifest.max_lag
    return max((bound for _, _, bound in decisions(run.events)), default=LEAST_AUTO_LAG)


def bounds_over_time(run: RunData) -> dict[str, list[tuple[float, int]]]:
    """When the bound of each learner moved, in seconds, and to what; the first entry is that of
    its begin. Empty if a number was given."""
    if not run.manifest.is_lag_adaptive:
        return {}
    began_s = run.manifest.before.elapsed_s
    learners = {f"learner-{row.learner}" for row in run.consumption}
    found = {name: [(began_s, LEAST_AUTO_LAG)] for name in sorted(learners)}
    for event, before, bound in decisions(run.events):
        if bound != before:
            found.setdefault(event.role, [(began_s, before)]).append((event.t_s, bound))
    return found
