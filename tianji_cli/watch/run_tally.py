"""Adds up the rows of one run into what the page shows (pure)."""

from __future__ import annotations

from collections import deque

from engine.spec import LEAST_AUTO_LAG
from engine.trace.records import (
    Consumption,
    Episode,
    Evaluation,
    Event,
    Ledger,
    Merge,
    Production,
    Record,
    Replay,
    Resources,
    Staleness,
    WeightsPublished,
)
from engine.trace.team_returns import return_of
from tianji_cli.analysis.old_samples.lag_bound import decisions
from tianji_cli.analysis.run import ManifestView
from tianji_cli.watch.flow import Flow, FlowPlan
from tianji_cli.watch.roles import RoleStates, State, processes_of, shown
from tianji_cli.watch.tallies import LagCounts, RecentRate, ReturnBins, SumBins
from tianji_cli.watch.usage import RunUsage
from tianji_cli.watch.views import (
    EventView,
    LagView,
    LiveFigures,
    RateView,
    ReturnView,
)
from tianji_cli.watch.within_team import WithinTeam

COLLECTED, CONSUMED, TRAINED = range(3)
MAX_EVENTS = 200
MAX_DETAIL = 2000
MAX_EVALUATIONS = 300
MAX_SOURCES = 4096
"""Roles whose rates are kept: a damaged table can name any number of them."""
RECENT_BATCHES = 20


class RunTally:
    """All that the rows of a run say, in bounded memory.

    Args:
        manifest: Of the run.
    """

    def __init__(self, manifest: ManifestView) -> None:
        self._manifest = manifest
        self.processes = processes_of(manifest)
        self.roles = RoleStates(self.processes)
        self.usage = RunUsage(manifest)
        self._flow = FlowPlan(self.processes, manifest.text("experiment", "policy"))
        before = manifest.before
        self._totals = [
            float(before.env_steps_collected),
            float(before.env_steps_consumed),
            float(before.samples_trained),
        ]
        self._num_episodes_before = before.episodes
        self._rates = (RecentRate(), RecentRate(), RecentRate())
        self._rate_bins = SumBins(len(self._rates))
        self._by_role: dict[tuple[str, str], RecentRate] = {}
        self._returns = ReturnBins(manifest.return_window)
        self._return_of = manifest.return_of
        self.within_team = WithinTeam(manifest.return_window)
        self._evaluations: deque[Evaluation] = deque(maxlen=MAX_EVALUATIONS)
        self._lags = LagCounts()
        self._recent_lags: deque[Staleness] = deque(maxlen=RECENT_BATCHES)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._num_events = 0
        self._restarts = 0
        self._bounds: dict[str, int] = {}
        """Of lag, by learner, where it moves."""
        self._ledger: Ledger | None = None
        self._weights: WeightsPublished | None = None
        self._updates = 0
        self.has_replay = False
        self.last_s = before.elapsed_s
        """The latest moment that any row tells of."""

    def add(self, record: Record) -> None:
        """Adds one row."""
        self.last_s = max(self.last_s, record.t_s)
        match record:
            case Episode():
                self._add_episode(record)
            case Production():
                self._count(COLLECTED, record.t_s, record.env_steps)
                self._count_for(f"actor-{record.actor}", "rollout", record.t_s, record.env_steps)
            case Consumption():
                self._add_consumption(record)
            case Replay():
                self.has_replay = True
                self._count(CONSUMED, record.t_s, record.env_steps)
                self._count_for(f"learner-{record.buffer}", "drawn", record.t_s, record.samples)
            case Staleness():
                self._lags.add(record.steps_by_lag)
                self._recent_lags.append(record)
            case WeightsPublished():
                if self._weights is None or record.version >= self._weights.version:
                    self._weights = record
                self._count_for(f"learner-{record.learner}", "weights", record.t_s, 1)
            case Ledger():
                self._ledger = record
            case Merge():
                self._count_for(f"learner-{record.group}", "model", record.t_s, 1)
            case Resources():
                self.usage.take(record)
            case Event():
                self._add_event(record)
            case Evaluation():
                self._evaluations.append(record)

    def _add_episode(self, row: Episode) -> None:
        value = return_of(row, self._return_of)
        self._returns.add(row.t_s, value, row.env_steps_collected)
        self.within_team.add(row)

    def _add_consumption(self, row: Consumption) -> None:
        if row.env_steps:  # none from a replay store: its own rows say what it took in
            self._count(CONSUMED, row.t_s, row.env_steps)
        self._count(TRAINED, row.t_s, row.samples_trained)
        self._count_for(f"learner-{row.learner}", "batch", row.t_s, row.env_steps)
        self._updates = max(self._updates, row.updates_total)

    def _add_event(self, event: Event) -> None:
        self._events.append(event)
        self._num_events += 1
        self._restarts += event.kind == "restarted"
        for _, _, bound in decisions([event]):
            if len(self._bounds) < MAX_SOURCES:
                self._bounds[event.role] = bound
        self.roles.take(event)

    def _count(self, count: int, t_s: float, amount: int) -> None:
        self._totals[count] += amount
        self._rates[count].add(t_s, amount)
        self._rate_bins.add(t_s, count, amount)

    def _count_for(self, role: str, carries: str, t_s: float, amount: int) -> None:
        rate = self._by_role.get((role, carries))
        if rate is None:
            if len(self._by_role) >= MAX_SOURCES:
                return
            rate = self._by_role[role, carries] = RecentRate()
        rate.add(t_s, amount)

    @property
    def return_mean(self) -> float | None:
        """Mean return of the last training episodes."""
        return self._returns.mean

    def collect_per_s(self, now_s: float) -> float | None:
        """Env steps per second of all actors."""
        return self._rates[COLLECTED].per_s(now_s)

    @property
    def _max_lag(self) -> int | None:
        """The bound on lag; the largest of all learners now, if it moves."""
        if self._manifest.is_lag_adaptive:
            return max(self._bounds.values(), default=LEAST_AUTO_LAG)
        return self._manifest.max_lag

    def figures(self, now_s: float) -> LiveFigures:
        """The figures at a moment of the run's timeline."""
        collect, consume, trained = (rate.per_s(now_s) for rate in self._rates)
        stop = self._manifest
        steps = sum(row.env_steps for row in self._recent_lags)
        lagged = sum(row.lag_mean * row.env_steps for row in self._recent_lags)
        collected, consumed, samples = self._totals
        ledger = self._ledger
        return LiveFigures(
            t_s=now_s,
            env_steps_collected=collected,
            env_steps_consumed=consumed,
            env_steps_dropped=float(ledger.dropped if ledger else 0),
            env_steps_in_flight=float(ledger.in_flight if ledger else 0),
            samples_trained=samples,
            collect_per_s=collect,
            consume_per_s=consume,
            trained_per_s=trained,
            balance=collect / consume if collect is not None and consume else None,
            lag_mean=lagged / steps if steps else None,
            lag_max=max((row.lag_max for row in self._recent_lags), default=None),
            max_lag=self._max_lag,
            weights_version=self._weights.version if self._weights else 0,
            updates=self._updates,
            episodes=self._num_episodes_before + self._returns.num_episodes,
            return_mean=self._returns.mean,
            evaluation_return=self._evaluated[-1] if self._evaluations else None,
            replay_ratio=samples / collected if self.has_replay and collected else None,
            restarts=self._restarts,
            threshold=stop.threshold,
            return_of=shown(self._return_of or ""),
            env_steps_limit=stop.number("experiment", "stop", "env_steps"),
            seconds_limit=stop.number("experiment", "stop", "seconds"),
        )

    def returns(self) -> ReturnView:
        """The learning curve."""
        bins = self._returns.curve()
        return ReturnView(
            t_s=[bin_.t_s for bin_ in bins],
            env_steps=[float(bin_.env_steps) for bin_ in bins],
            mean=[bin_.mean for bin_ in bins],
            low=[bin_.low for bin_ in bins],
            high=[bin_.high for bin_ in bins],
            evaluation_t_s=[row.t_s for row in self._evaluations],
            evaluation_mean=self._evaluated,
        )

    @property
    def _evaluated(self) -> list[float]:
        """The mean return of each evaluation."""
        return [return_of(row, self._return_of) for row in self._evaluations]

    def rates(self, now_s: float) -> RateView:
        """Production and consumption over time."""
        curve = self._rate_bins.curve(now_s)
        collect, consume, trained = curve.per_s
        return RateView(t_s=curve.t_s, collect=collect, consume=consume, trained=trained)

    def lags(self) -> LagView:
        """The histogram of lags."""
        bars = self._lags.bars()
        return LagView(
            low=[bar.low for bar in bars],
            high=[bar.high for bar in bars],
            env_steps=[float(bar.env_steps) for bar in bars],
        )

    def flow(self, now_s: float, *, is_over: bool) -> Flow:
        """The graph of roles and hosts, with rates on its edges."""
        num_bytes = float(self._weights.num_bytes) if self._weights else None

        def rate_of(carries: str, role: str) -> float | None:
            rate = self._by_role.get((role, self._counted_as(carries)))
            return rate.per_s(now_s) if rate else None

        return self._flow.flow(self.states(is_over=is_over), rate_of, num_bytes)

    def _counted_as(self, carries: str) -> str:
        if carries == "observation":
            return "rollout"
        return "drawn" if carries == "batch" and self.has_replay else carries

    def states(self, *, is_over: bool) -> dict[str, State]:
        """The state of each role."""
        return self.roles.end() if is_over else self.roles.states

    def events(self) -> list[EventView]:
        """The newest events, in the order in which they came."""
        return [
            EventView(
                t_s=event.t_s,
                kind=shown(event.kind),
                host=shown(event.host),
                role=shown(event.role),
                detail=shown(event.detail, MAX_DETAIL),
            )
            for event in self._events
        ]

    @property
    def num_events(self) -> int:
        """Of all events, of which the newest are kept."""
        return self._num_events
