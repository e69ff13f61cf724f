"""Checks that a run's history is possible, by the invariants of this system.

Not whether figures agree with each other (that is `check`), but whether what the tables tell can
have happened: versions only rise, a life of an actor counts on from what it had, nothing is trained
that was not collected, no batch is older than the bound, and no count of the ledger ever falls;
also across restarts of roles and resumed checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import msgspec

from engine.trace.columns import column_of
from engine.trace.records import (
    UNCOUNTED,
    UNREPORTED,
    Consumption,
    Episode,
    Ledger,
    Production,
    Record,
    Replay,
    Staleness,
    WeightsPublished,
    table_of,
)
from tianji_cli.analysis.run import RunData

Number = int | float | bool | None


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that one file states and the others contradict.

    Attributes:
        where: File, and row (from 1) if it is a table.
        name: The field, or the rule that is broken.
        written: What the file says.
        rebuilt: What follows from the other rows.
    """

    where: str
    name: str
    written: Number
    rebuilt: Number


Rule: TypeAlias = tuple[str, Number, Number, bool]
"""Name, value of the row, value that it contradicts, and whether the rule holds."""
MAX_FINDINGS = 1000
"""Most findings of each kind: more would not help the reader."""


def check_history(run: RunData) -> list[Disagreement]:
    """Finds what trace tables contain but cannot have happened, or must not.

    `written` of a finding is what a row says, `rebuilt` what it contradicts: the value that it must
    have, or the least or greatest one that it may have.

    Args:
        run: Its files. If they are not whole, the tables may end at different moments, so what was
            trained is not compared with what was collected.
    """
    checks = (
        _check_versions(run),
        _check_lives(run.production),
        _check_learners(run),
        _check_stores(run.replay),
        _check_lags(run),
        _check_trained_once(run),
        _check_counts(run),
    )
    return [finding for found in checks for finding in islice(found, MAX_FINDINGS)]


def broken(kind: type[Record], number: int, *rules: Rule) -> Iterator[Disagreement]:
    """The rules that a row (from 1) breaks."""
    for name, written, rebuilt, holds in rules:
        if not holds:
            where = f"trace/{table_of(kind)}.jsonl:{number}"
            yield Disagreement(where=where, name=name, written=written, rebuilt=rebuilt)


def _check_versions(run: RunData) -> Iterator[Disagreement]:
    """Each version of a learner is newer than the one before; the first is not below the origin."""
    origin = int(run.manifest.number("resumed_from", "version") or 0)
    tables: tuple[Sequence[WeightsPublished | Consumption | Staleness], ...] = (
        run.weights,
        run.consumption,
        run.staleness,
    )
    for rows in tables:
        newest: dict[int, int] = {}
        for number, row in enumerate(rows, start=1):
            least = newest.get(row.learner, origin - 1) + 1
            rule = ("a learner's versions rise", row.version, least, row.version >= least)
            yield from broken(type(row), number, rule)
            newest[row.learner] = max(row.version, least - 1)


def _check_lives(rows: Sequence[Production]) -> Iterator[Disagreement]:
    """A life of an actor numbers its rollouts, adds up its env steps, takes no older weights."""
    last: dict[tuple[int, int], Production] = {}
    for number, row in enumerate(rows, start=1):
        before = last.get((row.actor, row.epoch))
        total = row.env_steps + (before.env_steps_total if before else 0)
        adds_up = row.env_steps_total == total
        yield from broken(
            Production, number, ("env_steps_total adds up", row.env_steps_total, total, adds_up)
        )
        if row.sequence == UNREPORTED:
            continue
        least = before.sequence + 1 if before else 0
        held = before.version_max if before else 0
        yield from broken(
            Production,
            number,
            ("no rollout comes twice", row.sequence, least, row.sequence >= least),
            ("an actor takes no older weights", row.version_max, held, row.version_max >= held),
            (
                "0 <= version_min <= version_max",
                row.version_min,
                row.version_max,
                0 <= row.version_min <= row.version_max,
            ),
        )
        last[row.actor, row.epoch] = row


def _check_learners(run: RunData) -> Iterator[Disagreement]:
    """A learner's counts begin with its first batch, and its updates with those of the origin."""
    origin = int(run.manifest.number("resumed_from", "updates") or 0)
    updates: dict[int, int] = {}
    for number, row in enumerate(run.consumption, start=1):
        least = updates.get(row.learner, origin)
        rise = row.updates_total >= least
        rules: list[Rule] = [("updates_total rises", row.updates_total, least, rise)]
        if row.learner not in updates:
            rules += [
                _begins("env_steps_total", row.env_steps_total, row.env_steps),
                _begins("samples_trained_total", row.samples_trained_total, row.samples_trained),
            ]
        yield from broken(Consumption, number, *rules)
        updates[row.learner] = max(row.updates_total, least)


def _begins(name: str, total: int, own: int) -> Rule:
    return f"{name} begins with the first row", total, own, total == own


def _check_stores(rows: Sequence[Replay]) -> Iterator[Disagreement]:
    """The totals of a replay store grow by exactly what each row adds."""
    totals: dict[int, tuple[int, int]] = {}
    for number, row in enumerate(rows, start=1):
        steps, samples = totals.get(row.buffer, (0, 0))
        steps, samples = steps + row.env_steps, samples + row.samples
        yield from broken(
            Replay,
            number,
            ("env_steps_total adds up", row.env_steps_total, steps, row.env_steps_total == steps),
            ("samples_total adds up", row.samples_total, samples, row.samples_total == samples),
        )
        totals[row.buffer] = row.env_steps_total, row.samples_total


def _check_lags(run: RunData) -> Iterator[Disagreement]:
    """No batch holds a step older than the bound, or one of weights that do not exist."""
    bound = None if run.replay else run.manifest.max_lag
    for number, row in enumerate(run.staleness, start=1):
        lags = row.steps_by_lag
        if not lags:
            continue
        lowest, highest = min(lags), max(lags)
        yield from broken(
            Staleness,
            number,
            ("lag is within the bound", highest, bound, bound is None or highest <= bound),
            ("lag is not negative", lowest, 0, lowest >= 0),
            ("lag is not above the version", highest, row.version, highest <= row.version),
            ("lag_min is that of steps_by_lag", row.lag_min, lowest, row.lag_min == lowest),
            ("lag_max is that of steps_by_lag", row.lag_max, highest, row.lag_max == highest),
            *_fixed_lag(run, row.version, lowest, highest),
        )


def _fixed_lag(run: RunData, version: int, lowest: int, highest: int) -> Iterator[Rule]:
    """If the lag is fixed, every batch has it, except that no weights are older than the first."""
    lag = run.manifest.fixed_lag
    if lag is not None:
        first = int(run.manifest.number("resumed_from", "version") or 0)
        lag = max(0, min(lag, version - first))
        yield "no lag is below the fixed one", lowest, lag, lowest == lag
        yield "no lag is above the fixed one", highest, lag, highest == lag


def _check_trained_once(run: RunData) -> Iterator[Disagreement]:
    """Of no behaviour version more env steps were trained than were collected with it.

    A rollout that was trained twice shows here as soon as the others of its version were trained
    too; if all others were dropped, in the ledger. Samples from replay are used more than once.
    If a buffer was lost together with reports of its actors, it is unknown what they collected.
    """
    is_unknown = any(event.kind == UNCOUNTED for event in run.events)
    if run.replay or not run.is_whole or is_unknown or is_thinned(run):
        return
    left, unknown = _collected_by_version(run.production)
    for number, batch in enumerate(run.staleness, start=1):
        for lag, steps in batch.steps_by_lag.items():
            acted = batch.version - lag
            missing = max(0, steps - left.get(acted, 0))
            left[acted] = max(0, left.get(acted, 0) - steps)
            allowed = steps - max(0, missing - unknown)
            unknown = max(0, unknown - missing)
            rule = (f"trained once, of version {acted}", steps, allowed, steps <= allowed)
            yield from broken(Staleness, number, rule)


def _collected_by_version(rows: Sequence[Production]) -> tuple[dict[int, int], int]:
    """Env steps sent, by their oldest behaviour version, and those whose version is unknown."""
    known: dict[int, int] = {}
    for row in rows:
        if row.sent and row.sequence != UNREPORTED:
            known[row.version_min] = known.get(row.version_min, 0) + row.env_steps
    return known, sum(row.env_steps for row in rows if row.sequence == UNREPORTED)


def is_thinned(run: RunData) -> bool:
    """Whether rows were merged by the second, so that versions of single rollouts are unknown."""
    last: dict[tuple[type, int, int], int] = {}
    for row in run.production:
        if row.sent and row.sequence != UNREPORTED:
            key = (Production, row.actor, row.epoch)
            if row.sequence > last.get(key, -1) + 1:
                return True
            last[key] = row.sequence
    for batch in run.staleness:
        before = last.get((Staleness, batch.learner, 0), batch.version)
        if batch.version > before + 1:
            return True
        last[Staleness, batch.learner, 0] = batch.version
    return False


def _check_counts(run: RunData) -> Iterator[Disagreement]:
    """Counts of the run never decrease, and start at those of the run that it resumes."""
    before = run.manifest.before
    least = (before.env_steps_collected, before.env_steps_consumed, before.env_steps_dropped)
    for number, row in enumerate(run.ledger, start=1):
        counts = (row.collected, row.consumed, row.dropped)
        names = ("collected never falls", "consumed never falls", "dropped never falls")
        yield from broken(
            Ledger,
            number,
            *((n, c, low, c >= low) for n, c, low in zip(names, counts, least, strict=True)),
            ("in_flight is not negative", row.in_flight, 0, row.in_flight >= 0),
        )
        least = (
            max(counts[0], least[0]),
            max(counts[1], least[1]),
            max(counts[2], least[2]),
        )
    steps = before.env_steps_collected
    for number, heard in enumerate(column_of(run.episodes, "env_steps_collected"), start=1):
        rule = ("env_steps_collected never falls", heard, steps, heard >= steps)
        yield from broken(Episode, number, rule)
        steps = max(heard, steps)
