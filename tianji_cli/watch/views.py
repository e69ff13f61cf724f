"""What the page is told about one run: plain data, encoded as JSON.

Times are seconds on the run's timeline, except those of files, which are their age in seconds. A
number is null where it is not known, or not finite.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tianji_cli.watch.flow import Flow

Liveness = Literal["live", "silent", "over", "away"]
"""live: its files grow. silent: no summary, and its files do not grow. over: it has ended, or is no
longer here. away: left alone on its hosts, so that its files here are as old as the last copy."""


class LiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """LiveFigures of the moment. Counts include those of the runs that this one resumed."""

    t_s: float
    env_steps_collected: float
    env_steps_consumed: float
    env_steps_dropped: float
    env_steps_in_flight: float
    samples_trained: float
    collect_per_s: float | None
    consume_per_s: float | None
    trained_per_s: float | None
    balance: float | None
    lag_mean: float | None
    lag_max: int | None
    max_lag: int | None
    weights_version: int
    updates: int
    episodes: int
    return_mean: float | None
    evaluation_return: float | None
    replay_ratio: float | None
    restarts: int
    threshold: float | None
    return_of: str
    env_steps_limit: float | None
    seconds_limit: float | None


class ReturnView(msgspec.Struct, frozen=True, kw_only=True):
    """The learning curve, a point for each time bin; and evaluations, a point for each."""

    t_s: list[float]
    env_steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    evaluation_t_s: list[float]
    evaluation_mean: list[float]


class NamedReturns(msgspec.Struct, frozen=True, kw_only=True):
    """The learning curve of an agent or a policy of a team, a point for each time bin."""

    name: str
    kind: Literal["agent", "policy"]
    t_s: list[float]
    mean: list[float]


class RateView(msgspec.Struct, frozen=True, kw_only=True):
    """Production and consumption over time, per second."""

    t_s: list[float]
    collect: list[float]
    consume: list[float]
    trained: list[float]


class LagView(msgspec.Struct, frozen=True, kw_only=True):
    """The histogram of lags: env steps by range of lags, both ends included."""

    low: list[int]
    high: list[int]
    env_steps: list[float]


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """A process and what it uses; `age_s`: since it was measured, on the run's timeline."""

    process: str
    host: str
    roles: list[str]
    state: str
    device: str
    cores: float | None
    rss_bytes: float | None
    threads: int | None
    age_s: float | None


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """A host, what it has, and what the run uses of it."""

    host: str
    cpu_model: str
    num_cores: float | None
    memory_bytes: float | None
    gpus: list[str]
    cores: float | None
    rss_bytes: float | None
    processes: int


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the run."""

    t_s: float
    kind: str
    host: str
    role: str
    detail: str


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        status: As of `tianji runs`.
        liveness: Whether news can be expected.
        words: What a reader should know about its state; empty if nothing.
        command: What to type to learn or do more; empty if nothing.
        age_s: Of the newest trace file; null without one.
        is_behind: Rows that are here have not been read yet.
        within_team: Of the first policies and agents; empty if there is one agent.
        problems: About files that are damaged.
        num_events: Of all, of which `events` are the newest.
    """

    run_id: str
    status: str
    liveness: Liveness
    words: str
    command: str
    age_s: float | None
    is_behind: bool
    started_at: str
    experiment: str
    algorithm: str
    env_id: str
    policy: str
    seed: str
    figures: LiveFigures
    returns: ReturnView
    within_team: list[NamedReturns]
    rates: RateView
    lags: LagView
    flow: Flow
    processes: list[ProcessView]
    hosts: list[HostView]
    events: list[EventView]
    num_events: int
    problems: list[str]
