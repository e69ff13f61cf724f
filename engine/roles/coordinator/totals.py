"""Running totals of a run, from the records that roles report; the source of `summary.json`."""

from __future__ import annotations

import math
from array import array
from collections import deque

import msgspec
from msgspec import UNSET

from engine.admission.rates import RateWindow
from engine.messages import role_of
from engine.progress import Judge, MeanReturn, Resumed, RunCounters, Standing
from engine.roles.coordinator.returns import RunReturns
from engine.spec import Experiment
from engine.trace.records import (
    Consumption,
    Episode,
    Evaluation,
    Ledger,
    Production,
    Record,
    Replay,
    Resources,
    Staleness,
    WeightsPublished,
)
from engine.trace.summary import RunStatus, Summary, steady_rate_per_s, summarise_lag
from engine.trace.warm_start import WarmStart

RATE_WINDOW_S = 5.0
EVALUATED_LEARNER = 0
"""The evaluator takes its weights from this one."""
MAX_POINTS = 1 << 16
"""Above this, every second point of a series is dropped: a mebibyte each, however long the run. The
start of the steady window is then exact to a thirty-thousandth of its length."""

_NOTHING = Ledger(t_s=0.0, collected=0, consumed=0, dropped=0, in_flight=0)


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a summary that no trace record has."""

    run_id: str
    num_hosts: int
    num_actors: int
    num_groups: int
    resumed: Resumed | None = None
    warm_start: WarmStart | None = None


class Series:
    """A growing counter over time, for its steady rate and its rate right now.

    Args:
        begin_s, total: Time and value at the start, nonzero for a resumed run.
    """

    def __init__(self, begin_s: float = 0.0, total: int = 0) -> None:
        self.total = total
        self._times_s = array("d")
        self._totals = array("q")
        self._recent = RateWindow(RATE_WINDOW_S)
        self._recent.add(begin_s, total)

    def add(self, t_s: float, increase: int) -> None:
        self.total += increase
        self._times_s.append(t_s)
        self._totals.append(self.total)
        self._recent.add(t_s, self.total)
        if len(self._times_s) > MAX_POINTS:
            self._times_s, self._totals = self._times_s[::2], self._totals[::2]

    def recent_per_s(self) -> float:
        return self._recent.per_s()

    def steady_per_s(self) -> float | None:
        return steady_rate_per_s(list(zip(self._times_s, self._totals, strict=True)))


class RunTotals:
    """Adds up records.

    Args:
        experiment: Threshold and window.
        resumed: The checkpoint that the run resumes. Counters continue; rates, lag and the window
            of returns are of this run alone.
        is_joint: All learners make every update together, so one writes the checkpoint for all.
    """

    def __init__(
        self, experiment: Experiment, resumed: Resumed | None = None, *, is_joint: bool = False
    ) -> None:
        self._experiment = experiment
        self._is_joint = is_joint
        self.before = before = resumed.counters if resumed else RunCounters()
        """Counters of the runs before this one; zeros if it resumes none."""
        self.collected = Series(before.elapsed_s, before.env_steps_collected)
        self.consumed = Series(before.elapsed_s, before.env_steps_consumed)
        self.trained = Series(before.elapsed_s, before.samples_trained)
        self.steps_by_lag: dict[int, int] = {}
        self.recent_staleness: deque[Staleness] = deque(maxlen=20)
        self.returns = RunReturns(experiment.stop)
        self.agent_steps: int | None = None
        """Steps that the agents of a team have reported as collected; None if there is one."""
        self.num_episodes = before.episodes
        self.has_replay = False
        self._newest_actor_version = 0
        """Of the weights that acted in the newest episode."""
        self.updates = resumed.updates if resumed else 0
        self.weights_version = resumed.version if resumed else 0
        self.ledger: Ledger | None = None
        """The latest count, over all buffers."""
        self.collected_by: dict[int, int] = {}
        """Env steps that each actor has reported as collected."""
        self.consumed_by: dict[int, int] = {}
        """Env steps that each group has reported as consumed."""
        self._trained_by: dict[int, int] = {}
        """Samples that each learner has reported as trained."""
        self._ledgers: dict[int, Ledger] = {}
        self._ledger_sums = _NOTHING
        """Sum of these; cached, since there can be many buffers."""
        self.cores: dict[str, float] = {}
        """Cores that each process used between its last two measurements."""
        self._resources: dict[str, Resources] = {}
        self.reached_at_s: float | None = None
        self.reached_env_steps: int | None = None
        self.restarts = 0

    def add(self, record: Record, now_s: float) -> Record:
        """Adds one record.

        Returns:
            The record to write: an episode also has the run's env steps, and a ledger row is that
            of all buffers together.
        """
        match record:
            case Production():
                self.collected.add(record.t_s, record.env_steps)
                before = self.collected_by.get(record.actor, 0)
                self.collected_by[record.actor] = before + record.env_steps
                if record.agent_steps is not UNSET:
                    self.agent_steps = (self.agent_steps or 0) + record.agent_steps
            case Consumption():
                if record.env_steps:  # none from replay: there the buffer reports what it inserted
                    self.consumed.add(record.t_s, record.env_steps)
                self.trained.add(record.t_s, record.samples_trained)
                self._trained_by[record.learner] = record.samples_trained_total
                if record.env_steps:
                    self.consumed_by[record.learner] = record.env_steps_total
                self.updates = max(self.updates, record.updates_total)
            case Replay():
                self.has_replay = True
                self.consumed_by[record.buffer] = record.env_steps_total
                self.consumed.add(record.t_s, record.env_steps)
            case Staleness():
                self.recent_staleness.append(record)
                for lag, steps in record.steps_by_lag.items():
                    self.steps_by_lag[lag] = self.steps_by_lag.get(lag, 0) + steps
            case WeightsPublished():
                self.weights_version = max(self.weights_version, record.version)
            case Ledger():
                return self._add_ledger(record)
            case Resources():
                self._add_resources(record)
            case Episode():
                return self._add_episode(record, now_s)
            case Evaluation():
                return self._add_evaluation(record, now_s)
        return record

    def _add_ledger(self, record: Ledger) -> Ledger:
        """Adds up the latest counts of all buffers; sums of balanced rows are balanced.

        A learner's rows can arrive later than its buffer's. Until then their env steps are not
        consumed but in flight: if the learner dies, the rows possibly never arrive.
        """
        untold = record.consumed - self.consumed_by.get(record.buffer, 0)
        if untold > 0:
            record = msgspec.structs.replace(
                record, consumed=record.consumed - untold, in_flight=record.in_flight + untold
            )
        sums, before = self._ledger_sums, self._ledgers.get(record.buffer)
        self._ledgers[record.buffer] = record
        own = msgspec.structs.replace(
            record,
            collected=record.collected + sums.collected - (before.collected if before else 0),
            consumed=record.consumed + sums.consumed - (before.consumed if before else 0),
            dropped=record.dropped + sums.dropped - (before.dropped if before else 0),
            in_flight=record.in_flight + sums.in_flight - (before.in_flight if before else 0),
        )
        self._ledger_sums = own
        self.ledger = self.in_all(own)
        return self.ledger

    def in_all(self, own: Ledger) -> Ledger:
        """A count of this run plus that of the runs before it."""
        return msgspec.structs.replace(
            own,
            collected=own.collected + self.before.env_steps_collected,
            consumed=own.consumed + self.before.env_steps_consumed,
            dropped=own.dropped + self.before.env_steps_dropped,
        )

    def standing_of(self, address: str, now_s: float) -> Standing:
        """The progress for a role that writes a checkpoint; empty, unless it is a learner."""
        if role_of(address) != "learner":
            return Standing()
        number = int(address.rpartition("-")[2])
        counters = RunCounters(
            elapsed_s=now_s,
            env_steps_collected=self.collected.total,
            env_steps_consumed=self.consumed.total,
            env_steps_dropped=self.ledger.dropped if self.ledger else self.before.env_steps_dropped,
            samples_trained=self.trained.total,
            episodes=self.num_episodes,
        )
        learners = list(self._trained_by) if self._is_joint else [number]
        consumed = 0 if self.has_replay else sum(self.consumed_by.get(n, 0) for n in learners)
        trained = sum(self._trained_by.get(n, 0) for n in learners)
        return Standing(
            counters=counters,
            known_return=self.known_return_of(number),
            consumed=consumed,
            trained=trained,
        )

    def known_return_of(self, learner: int) -> MeanReturn | None:
        """How good a learner's policy is; None if it is not known.

        In a run with evaluations that is the newest of these: of the learner whose weights were
        evaluated, or of all if they are equal. Otherwise it is the mean of the window of training
        episodes, of all groups, since these are merged.
        """
        row, mean = self.returns.evaluation, self.returns.mean
        version = self._newest_actor_version
        judge: Judge = "training"
        if self._experiment.evaluation is not None:
            if row is None or not (self._is_joint or learner == EVALUATED_LEARNER):
                return None
            mean, judge, version = self.returns.evaluation_mean, "evaluation", row.version
        if mean is None or not math.isfinite(mean):
            return None
        return MeanReturn(mean=mean, judge=judge, version=version)

    def ledger_of(self, buffer: int) -> Ledger:
        """The latest count of a buffer, of this run alone."""
        return self._ledgers.get(buffer, _NOTHING)

    def close_ledger(self, final: Ledger) -> None:
        """Sets the final count of all buffers."""
        self.ledger = final

    def _add_resources(self, record: Resources) -> None:
        before = self._resources.get(record.process)
        self._resources[record.process] = record
        if before is not None and before.pid == record.pid and record.t_s > before.t_s:
            used_s = record.cpu_s - before.cpu_s
            self.cores[record.process] = used_s / (record.t_s - before.t_s)

    def _add_episode(self, record: Episode, now_s: float) -> Episode:
        self._newest_actor_version = record.version
        self.num_episodes += 1
        if self.returns.add_episode(record):
            self._reach(now_s)
        return msgspec.structs.replace(record, env_steps_collected=self.collected.total)

    def _add_evaluation(self, record: Evaluation, now_s: float) -> Evaluation:
        if self.returns.add_evaluation(record):
            self._reach(now_s)
        return msgspec.structs.replace(record, env_steps_collected=self.collected.total)

    def _reach(self, now_s: float) -> None:
        """Records when the threshold was held for long enough, the first time."""
        if self.reached_at_s is None:
            self.reached_at_s = now_s
            self.reached_env_steps = self.collected.total

    @property
    def balance(self) -> float | None:
        """Production over consumption within the last seconds."""
        consumed = self.consumed.recent_per_s()
        return self.collected.recent_per_s() / consumed if consumed else None

    def summary(
        self, info: RunInfo, *, status: RunStatus, error: str | None, stop_reason: str, now_s: float
    ) -> Summary:
        """The run in one document; `ledger` must hold the final count."""
        ledger = self.ledger
        collect, consume = self.collected.steady_per_s(), self.consumed.steady_per_s()
        stop, returns = self._experiment.stop, self.returns
        return Summary(
            run_id=info.run_id,
            status=status,
            error=error,
            stop_reason=stop_reason,
            algorithm=self._experiment.algorithm_name,
            env_id=self._experiment.env.id,
            policy=self._experiment.policy,
            seed=self._experiment.seed,
            num_hosts=info.num_hosts,
            num_actors=info.num_actors,
            num_groups=info.num_groups,
            wall_s=now_s,
            env_steps_collected=ledger.collected if ledger else 0,
            env_steps_consumed=ledger.consumed if ledger else 0,
            env_steps_dropped=ledger.dropped if ledger else 0,
            env_steps_in_flight=ledger.in_flight if ledger else 0,
            samples_trained=self.trained.total,
            collect_per_s=collect,
            consume_per_s=consume,
            trained_per_s=self.trained.steady_per_s(),
            updates=self.updates,
            weights_version=self.weights_version,
            lag=summarise_lag(self.steps_by_lag),
            balance=collect / consume if collect is not None and consume else None,
            return_mean=returns.mean,
            episodes=self.num_episodes,
            threshold=stop.return_threshold,
            reached=None if stop.return_threshold is None else self.reached_at_s is not None,
            time_to_threshold_s=self.reached_at_s,
            steps_to_threshold=self.reached_env_steps,
            restarts=self.restarts,
            resumed_from=info.resumed.run_id if info.resumed else None,
            judge=stop.judge,
            evaluation_return=returns.evaluation_mean,
            replay_ratio=self._replay_ratio(),
            return_of=stop.return_of,
            team_return=returns.team,
            agent_returns=returns.agents,
            policy_returns=returns.policies,
            agent_steps_collected=self.agent_steps,
        )

    def _replay_ratio(self) -> float | None:
        if not self.has_replay or not self.collected.total:
            return None
        return self.trained.total / self.collected.total
