"""What trackers are told of a run: rows of its trace tables become named values. Pure.

Names are CleanRL's where it has one for the same thing (`charts/episodic_return`, `charts/SPS`,
`losses/policy_loss`, `losses/approx_kl`); `docs/watching.md` lists all.

The x axis is env steps collected by the whole run. Rows of episodes and evaluations carry them.
Any other row takes those of the first row of the ledger that is not older, in the order of the
file, and waits until there is one. So the same tables give the same values, whether they are read
as they grow or once the run has ended.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from engine.trace.records import (
    Consumption,
    Episode,
    Evaluation,
    Ledger,
    Merge,
    Record,
    Replay,
    Resources,
    Staleness,
    table_of,
)

RATE_S = 1.0
"""Least time between two values of a rate."""
Values: TypeAlias = dict[str, float]
_SAME_AS = {
    "approximate_kl": "losses/approx_kl",
    "q_mean": "losses/q_values",
    "learning_rate": "charts/learning_rate",
}
"""What the metrics of an algorithm are called elsewhere; others are `losses/<name>`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one row.

    Attributes:
        table: Where the row is.
        row: Its number there, from 1.
        t_s: On the run's timeline.
        env_steps: Collected by the whole run.
        values: By name; finite.
    """

    table: str
    row: int
    t_s: float
    env_steps: int
    values: Values


class SampleStream:
    """Makes samples of the rows of all tables.

    Args:
        replicas: How many there are of each role; if several learners, evaluators, buffers or
            groups, the names of their values end with which one.
    """

    def __init__(self, replicas: Mapping[str, int]) -> None:
        self._makers = _Makers(replicas)
        self._ledger = _StepCount()
        self._num_rows: dict[type[Record], int] = {}
        self._waiting: dict[str, deque[tuple[int, float, Values]]] = {}
        self._ready: list[Sample] = []

    def take(self, row: Record) -> None:
        """Takes in the next row of a table."""
        kind = type(row)
        number = self._num_rows[kind] = self._num_rows.get(kind, 0) + 1
        if isinstance(row, Ledger):
            self._ledger.add(row)
        values = _finite(self._makers.values_of(row))
        if not values:
            return
        table = table_of(kind)
        if isinstance(row, Episode | Evaluation):
            self._ready.append(Sample(table, number, row.t_s, row.env_steps_collected, values))
        else:
            self._waiting.setdefault(table, deque()).append((number, row.t_s, values))

    def ready(self, *, is_complete: bool = False) -> Iterator[Sample]:
        """The samples that are due, those of one table in the order of its rows.

        Args:
            is_complete: No row comes after those so far, so what still waits is due as well.
        """
        due, self._ready = self._ready, []
        yield from due
        for table, waiting in self._waiting.items():
            while waiting and (is_complete or self._ledger.covers(waiting[0][1])):
                number, t_s, values = waiting.popleft()
                yield Sample(table, number, t_s, self._ledger.at(t_s), values)


class _StepCount:
    """Env steps collected over time, as the ledger counts them."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._collected: list[int] = []

    def add(self, row: Ledger) -> None:
        if not self._times_s or row.t_s > self._times_s[-1]:
            self._times_s.append(row.t_s)
            self._collected.append(row.collected)

    def covers(self, t_s: float) -> bool:
        return bool(self._times_s) and self._times_s[-1] >= t_s

    def at(self, t_s: float) -> int:
        """At the first count that is not older; the last one after all of them."""
        if not self._times_s:
            return 0
        index = bisect_left(self._times_s, t_s)
        return self._collected[min(index, len(self._collected) - 1)]


@dataclass
class _Makers:
    """How the rows of each table become values."""

    replicas: Mapping[str, int]
    _counted: Ledger | None = None
    """The last row of the ledger from which rates were made."""
    _used: dict[tuple[str, str, int], Resources] = field(default_factory=dict)

    def values_of(self, row: Record) -> Values:
        makers: dict[type[Record], Callable[[Any], Values]] = {
            Episode: _episode,
            Evaluation: self._evaluation,
            Ledger: self._rates,
            Consumption: self._update,
            Staleness: self._staleness,
            Replay: self._replay,
            Merge: self._merge,
            Resources: self._resources,
        }
        maker = makers.get(type(row))
        return {} if maker is None else maker(row)

    def _of(self, role: str, index: int, values: Values) -> Values:
        """Values of one role, with its name if there are several."""
        if self.replicas.get(role, 1) < 2:
            return values
        return {f"{name}/{role}-{index}": value for name, value in values.items()}

    def _evaluation(self, row: Evaluation) -> Values:
        values = {
            "eval/episodic_return": row.return_mean,
            "eval/return_min": row.return_min,
            "eval/return_max": row.return_max,
            "eval/episodic_length": row.length_mean_env_steps,
            **_within_team("eval", row),
        }
        return self._of("evaluator", row.evaluator, values)

    def _rates(self, row: Ledger) -> Values:
        before = self._counted
        if before is not None and row.t_s - before.t_s < RATE_S:
            return {}
        self._counted = row
        values = {
            "ledger/in_flight": float(row.in_flight),
            "ledger/dropped": float(row.dropped),
        }
        if before is not None:
            took_s = row.t_s - before.t_s
            values["charts/SPS"] = (row.collected - before.collected) / took_s
            values["charts/consumed_per_s"] = (row.consumed - before.consumed) / took_s
        return values

    def _update(self, row: Consumption) -> Values:
        named = {_SAME_AS.get(name, f"losses/{name}"): v for name, v in row.metrics.items()}
        values = named | {
            "charts/updates": float(row.updates_total),
            "charts/weights_version": float(row.version + 1),
            "time/update_s": row.update_s,
            "time/learner_wait_s": row.wait_s,
        }
        return self._of("learner", row.learner, values)

    def _staleness(self, row: Staleness) -> Values:
        values = {
            "staleness/lag_mean": row.lag_mean,
            "staleness/lag_p95": row.lag_p95,
            "staleness/lag_max": float(row.lag_max),
            "staleness/age_mean_s": row.age_mean_s,
            "staleness/age_max_s": row.age_max_s,
        }
        return self._of("learner", row.learner, values)

    def _replay(self, row: Replay) -> Values:
        values = {
            "replay/replay_ratio": row.replay_ratio,
            "replay/size_env_steps": float(row.size_env_steps),
            "replay/sample_age_mean_s": row.sample_age_mean_s,
        }
        return self._of("buffer", row.buffer, values)

    def _merge(self, row: Merge) -> Values:
        values = {"merges/lag": float(row.lag), "merges/lag_max": float(row.lag_max)}
        return self._of("learner", row.group, values)

    def _resources(self, row: Resources) -> Values:
        key = (row.host, row.process, row.pid)
        before, self._used[key] = self._used.get(key), row
        values = {f"resources/{row.process}/rss_mib": row.rss_bytes / 2**20}
        if before is not None and row.t_s > before.t_s:
            cores = (row.cpu_s - before.cpu_s) / (row.t_s - before.t_s)
            values[f"resources/{row.process}/cores"] = cores
        return values


def _episode(row: Episode) -> Values:
    return {
        "charts/episodic_return": row.episode_return,
        "charts/episodic_length": float(row.length_env_steps),
        **_within_team("charts", row),
    }


def _within_team(section: str, row: Episode | Evaluation) -> Values:
    """The returns of a team's agents and policies; nothing where there is one agent."""
    if not row.agent_returns:
        return {}
    agents = {f"{section}/agent_return/{name}": v for name, v in row.agent_returns.items()}
    policies = row.policy_returns or {}
    return agents | {f"{section}/policy_return/{name}": v for name, v in policies.items()}


def _finite(values: Values) -> Values:
    """Without what is unknown (NaN): no tracker draws it, and not all of them take it."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
