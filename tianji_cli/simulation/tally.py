"""Counts what simulated roles report, as the coordinator of a run would."""

from __future__ import annotations

from collections import Counter

from engine.messages import Report
from engine.trace.records import Consumption, Production, Replay, Staleness
from engine.trace.summary import steady_rate_per_s
from tianji_cli.simulation.timeline import Timeline

HARDLY_WAITING = 0.8
MIN_ROLLOUTS = 4
"""Of an actor, before it has a rate of its own."""


class _Span:
    """What an actor collected after its first rollout."""

    __slots__ = ("count", "env_steps", "first_s", "last_s")

    def __init__(self, first_s: float) -> None:
        self.first_s = self.last_s = first_s
        self.count = self.env_steps = 0

    def add(self, time_s: float, env_steps: int) -> None:
        self.last_s = time_s
        self.count += 1
        self.env_steps += env_steps


class Tally:
    """The counts of a simulation.

    Args:
        timeline: Simulated time.

    Attributes:
        num_reports, num_batches: So far.
        collect_s: Of all actors together, since `reset`.
        lags: Env steps by lag, since `reset`.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.num_reports = self.num_batches = 0
        self.collect_s = 0.0
        self.lags: Counter[int] = Counter()
        self._spans: dict[int, _Span] = {}
        """By actor."""
        self._collected: list[tuple[float, int]] = []
        self._consumed: list[tuple[float, int]] = []
        self._num_collected = self._num_consumed = 0

    def reset(self) -> None:
        """Counts collecting and lag from here on."""
        self.collect_s = 0.0
        self.lags.clear()
        self._spans.clear()

    def tell(self, report: Report) -> None:
        """Takes in a report."""
        self.num_reports += 1
        for row in report.records:
            match row:
                case Production():
                    self._produced(row)
                case Consumption(env_steps=env_steps):
                    self.num_batches += 1
                    self._consume(env_steps)
                case Replay(env_steps=env_steps):
                    self._consume(env_steps)
                case Staleness(steps_by_lag=steps_by_lag):
                    self.lags.update(steps_by_lag)

    def _produced(self, row: Production) -> None:
        self.collect_s += row.collect_s
        now_s = self._timeline.now_s
        span = self._spans.get(row.actor)
        if span is None:
            self._spans[row.actor] = _Span(now_s)
        else:
            span.add(now_s, row.env_steps)
        self._num_collected += row.env_steps
        self._collected.append((self._timeline.now_s, self._num_collected))

    def _consume(self, env_steps: int) -> None:
        if env_steps:
            self._num_consumed += env_steps
            self._consumed.append((self._timeline.now_s, self._num_consumed))

    def collect_per_s(self, actors: int, collecting: float) -> float:
        """Env steps per second.

        As in `summary.json`; or, if actors hardly wait, the sum of their own rates, which does not
        depend on where the time ends between rollouts that come together.

        Args:
            actors: How many there are.
            collecting: Share of the time in which they collect.
        """
        spans, is_even = self._spans.values(), collecting >= HARDLY_WAITING
        if is_even and len(spans) == actors and all(span.count >= MIN_ROLLOUTS for span in spans):
            return sum(span.env_steps / (span.last_s - span.first_s) for span in spans)
        return steady_rate_per_s(self._collected) or 0.0

    @property
    def consume_per_s(self) -> float:
        """Likewise, consumed."""
        return steady_rate_per_s(self._consumed) or 0.0

    @property
    def lag_mean(self) -> float | None:
        """Over env steps; None if nothing was consumed."""
        total = sum(self.lags.values())
        return sum(lag * n for lag, n in self.lags.items()) / total if total else None
