"""Long runs: rows of one second become one row once a table is large, and every sum stays exact.

A table is written in full detail up to `DETAIL_BYTES`. Beyond that, the rows of one role are added
up for a second at a time; so a table grows by a row a second for each role, whatever the rates.
Counts, sums and means are those over all rows, running totals and versions those of the last one,
extremes those over all; metrics of an algorithm are the last that it reported. Episodes,
evaluations, events, profiles and resources are never merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.trace.records import (
    ByLag,
    Consumption,
    Ledger,
    Merge,
    Production,
    Record,
    Replay,
    Staleness,
    WeightsPublished,
)
from engine.trace.summary import weighted_percentile

DETAIL_BYTES = 64 * 2**20
WINDOW_S = 1.0
RATIOS_BY_LAG = "ratios_by_lag"
_MEANS_BY_LAG = ("ess_by_lag", "clip_fraction_by_lag", "behaviour_kl_by_lag")
_LARGEST_BY_LAG = ("ratio_max_by_lag", "log_ratio_first_by_lag")

_Rule: TypeAlias = tuple[Callable[[Any], Hashable], Callable[[Any, Any], Record]]
"""Which rows belong together, and what an earlier and a later one become."""


class Thinner:
    """Merges rows of one table.

    Args:
        kind: Type of its rows.
        detail_bytes: Up to this size nothing is merged.
    """

    def __init__(self, kind: type[Record], detail_bytes: int = DETAIL_BYTES) -> None:
        self._rule = _RULES.get(kind)
        self._detail_bytes = detail_bytes
        self._pending: dict[Hashable, tuple[float, Record]] = {}

    def take(self, row: Record, table_bytes: int) -> Iterator[Record]:
        """Takes a row in and yields what is to be written now.

        Args:
            row: The next row.
            table_bytes: Size of the table so far.
        """
        if self._rule is None or (table_bytes < self._detail_bytes and not self._pending):
            yield row
            return
        key_of, merge = self._rule
        key = key_of(row)
        begin_s, before = self._pending.pop(key, (row.t_s, None))
        if before is None:
            self._pending[key] = (row.t_s, row)
        elif row.t_s - begin_s < WINDOW_S:
            self._pending[key] = (begin_s, merge(before, row))
        else:
            yield before
            self._pending[key] = (row.t_s, row)

    def rest(self) -> Iterator[Record]:
        """What has not been written yet, at the end."""
        pending, self._pending = self._pending, {}
        yield from (row for _, row in pending.values())


def _productions(a: Production, b: Production) -> Production:
    return replace(
        b,
        env_steps=a.env_steps + b.env_steps,
        version_min=min(a.version_min, b.version_min),
        version_max=max(a.version_max, b.version_max),
        collect_s=a.collect_s + b.collect_s,
        wait_s=a.wait_s + b.wait_s,
        agent_steps=_sum_of(a.agent_steps, b.agent_steps),
        max_lag=_greatest_of(a.max_lag, b.max_lag),
    )


def _sum_of(a: int | UnsetType, b: int | UnsetType) -> int | UnsetType:
    """Of those that there are."""
    if a is UNSET or b is UNSET:
        return b if a is UNSET else a
    return a + b


def _greatest_of(a: int | UnsetType, b: int | UnsetType) -> int | UnsetType:
    """Of those that there are."""
    if a is UNSET or b is UNSET:
        return b if a is UNSET else a
    return max(a, b)


def _mean_of(*of_each: tuple[float | UnsetType, float]) -> float | UnsetType:
    """The mean of (value, weight), of the values that there are."""
    there = [(value, weight) for value, weight in of_each if value is not UNSET]
    if not there:
        return UNSET
    total = sum(weight for _, weight in there)
    return sum(value * weight for value, weight in there) / total if total else there[-1][0]


def _ratios_of(a: Staleness, b: Staleness) -> dict[str, ByLag]:
    """The fields with importance ratios by lag."""
    merged: dict[str, ByLag] = {}
    for name in (RATIOS_BY_LAG, *_MEANS_BY_LAG, *_LARGEST_BY_LAG):
        rows = [row for row in (a, b) if getattr(row, name) is not UNSET]
        lags = sorted({lag for row in rows for lag in getattr(row, name)})
        if rows:
            merged[name] = {lag: _ratio_of(rows, name, lag) for lag in lags}
    return merged


def _ratio_of(rows: Sequence[Staleness], name: str, lag: int) -> float:
    """A statistic of the ratios of one lag, over the rows that have it."""
    rows = [row for row in rows if lag in getattr(row, name)]
    values: list[float] = [getattr(row, name)[lag] for row in rows]
    if name == RATIOS_BY_LAG:
        return sum(values)
    if name in _LARGEST_BY_LAG or len(rows) == 1:
        return max(values)
    counts = [0 if row.ratios_by_lag is UNSET else row.ratios_by_lag[lag] for row in rows]
    products = (value * count for value, count in zip(values, counts, strict=True))
    return sum(products) / max(sum(counts), 1)


def _consumptions(a: Consumption, b: Consumption) -> Consumption:
    return replace(
        b,
        env_steps=a.env_steps + b.env_steps,
        samples_trained=a.samples_trained + b.samples_trained,
        wait_s=a.wait_s + b.wait_s,
        update_s=a.update_s + b.update_s,
        metrics=a.metrics | b.metrics,
    )


def _stalenesses(a: Staleness, b: Staleness) -> Staleness:
    counts = dict(a.steps_by_lag)
    for lag, steps in b.steps_by_lag.items():
        counts[lag] = counts.get(lag, 0) + steps
    env_steps = a.env_steps + b.env_steps
    age_s = a.age_mean_s * a.env_steps + b.age_mean_s * b.env_steps
    return replace(
        b,
        env_steps=env_steps,
        lag_min=min(a.lag_min, b.lag_min),
        lag_mean=sum(lag * steps for lag, steps in counts.items()) / max(env_steps, 1),
        lag_p95=weighted_percentile(counts, 0.95),
        lag_max=max(a.lag_max, b.lag_max),
        steps_by_lag=counts,
        optimizer_lag_mean=_mean_of(
            (a.optimizer_lag_mean, a.env_steps), (b.optimizer_lag_mean, b.env_steps)
        ),
        optimizer_lag_max=_greatest_of(a.optimizer_lag_max, b.optimizer_lag_max),
        age_mean_s=age_s / max(env_steps, 1),
        age_max_s=max(a.age_max_s, b.age_max_s),
        ratio_batches=_sum_of(a.ratio_batches, b.ratio_batches),
        **_ratios_of(a, b),
    )


def _replays(a: Replay, b: Replay) -> Replay:
    drawn = [row for row in (a, b) if row.samples]  # the others know of no age
    samples = a.samples + b.samples
    age_s = sum(row.sample_age_mean_s * row.samples for row in drawn)
    return replace(
        b,
        env_steps=a.env_steps + b.env_steps,
        samples=samples,
        sample_age_mean_s=age_s / samples if samples else math.nan,
        sample_age_max_s=max((row.sample_age_max_s for row in drawn), default=math.nan),
    )


def _merges(a: Merge, b: Merge) -> Merge:
    return replace(b, lag=max(a.lag, b.lag), lag_max=max(a.lag_max, b.lag_max))


def _latest(_: Record, b: Record) -> Record:
    return b


_RULES: dict[type[Record], _Rule] = {
    Production: (lambda row: (row.actor, row.epoch, row.sent), _productions),
    Consumption: (lambda row: row.learner, _consumptions),
    Staleness: (lambda row: row.learner, _stalenesses),
    Replay: (lambda row: row.buffer, _replays),
    WeightsPublished: (lambda row: row.learner, _latest),
    Ledger: (lambda row: None, _latest),
    Merge: (lambda row: row.group, _merges),
}
