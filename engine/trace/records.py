"""The trace tables. One record is one line of `trace/<table>.jsonl`.

`t_s` is seconds since training started, on the coordinator's timeline. Field by field, with units:
`docs/results-format.md`. Adding a field is compatible; any other change raises `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

SCHEMA_VERSION = 1


class _Row(msgspec.Struct, frozen=True, kw_only=True, tag_field="table"):
    t_s: float


class Episode(_Row, frozen=True, kw_only=True, tag="episodes"):
    """A finished training episode, exploration included."""

    actor: int
    episode_return: float
    length_env_steps: int
    version: int
    env_steps_collected: int = 0
    """Of the whole run when the coordinator heard of it; written by the coordinator."""


class Evaluation(_Row, frozen=True, kw_only=True, tag="evaluations"):
    """Separate episodes with one version of the weights; `t_s` is when the last one ended."""

    evaluator: int
    version: int
    episodes: int
    return_mean: float
    return_min: float
    return_max: float
    length_mean_env_steps: float
    evaluate_s: float
    env_steps_collected: int = 0
    """By all actors when the coordinator heard of it; written by the coordinator."""


class Production(_Row, frozen=True, kw_only=True, tag="production"):
    """A rollout that an actor collected (or, `sent` false, was collecting when it stopped)."""

    actor: int
    epoch: int
    sequence: int
    env_steps: int
    env_steps_total: int
    version_min: int
    version_max: int
    collect_s: float
    wait_s: float
    sent: bool = True


class Consumption(_Row, frozen=True, kw_only=True, tag="consumption"):
    """A batch that a learner trained on."""

    learner: int
    version: int
    """The learner's version when it took the batch; the update made it one higher."""
    env_steps: int
    env_steps_total: int
    samples_trained: int
    samples_trained_total: int
    updates_total: int
    wait_s: float
    update_s: float
    metrics: dict[str, float]


class Staleness(_Row, frozen=True, kw_only=True, tag="staleness"):
    """How old that batch was, in versions (over its env steps) and in seconds (over rollouts)."""

    learner: int
    version: int
    env_steps: int
    lag_min: int
    lag_mean: float
    lag_p95: float
    lag_max: int
    steps_by_lag: dict[int, int]
    """Env steps of each lag: the histogram that the other lag figures summarise."""
    age_mean_s: float
    age_max_s: float


class Replay(_Row, frozen=True, kw_only=True, tag="replay"):
    """What a replay buffer took in and gave out since its last row."""

    buffer: int
    env_steps: int
    env_steps_total: int
    samples: int
    samples_total: int
    size_env_steps: int
    replay_ratio: float
    sample_age_mean_s: float
    sample_age_max_s: float


class WeightsPublished(_Row, frozen=True, kw_only=True, tag="weights"):
    """New weights offered to the actors."""

    learner: int
    version: int
    num_bytes: int
    num_subscribers: int


class Ledger(_Row, frozen=True, kw_only=True, tag="ledger"):
    """Where every collected env step is: collected = consumed + dropped + in_flight.

    The four are counted separately: `collected` by the actors, `consumed` by the learner,
    `dropped` and `in_flight` (queued, handed over, or on its way) by the buffer.
    """

    collected: int
    consumed: int
    dropped: int
    in_flight: int
    buffer: int = 0
    """The buffer whose count has changed; the figures are those of all buffers together."""


class Merge(_Row, frozen=True, kw_only=True, tag="merges"):
    """A group's model met those of the other groups at the reducer."""

    group: int
    version: int
    lag: int
    """Versions that this model was behind the newest of all groups."""
    lag_max: int
    """Versions between the newest and the oldest model that were merged."""
    versions: dict[int, int]
    """Version of the newest model of each group."""
    shares: dict[int, float]
    """How much each group weighed; a parameter server adds progress instead."""
    merges_total: int


class Resources(_Row, frozen=True, kw_only=True, tag="resources"):
    """What one process used so far, measured by the supervisor of its host."""

    host: str
    process: str
    pid: int
    cpu_s: float
    rss_bytes: int
    num_threads: int


class Profile(_Row, frozen=True, kw_only=True, tag="profile"):
    """Where the time of a role went since its last row; only `up --profile` writes any."""

    role: str
    process: str
    wall_s: float
    cpu_s: float
    process_cpu_s: float
    sections_s: dict[str, float]
    """By section of `engine.sections`; they add up to `wall_s`."""


class Event(_Row, frozen=True, kw_only=True, tag="events"):
    """Joins, starts, stops, exits, drops and errors."""

    kind: str
    host: str
    role: str
    detail: str
    origin_s: float | None = None
    """Of `started`: CLOCK_MONOTONIC of the coordinator's host when `t_s` was 0."""


Record: TypeAlias = (
    Episode
    | Evaluation
    | Production
    | Consumption
    | Staleness
    | Replay
    | WeightsPublished
    | Ledger
    | Merge
    | Resources
    | Profile
    | Event
)
RECORD_TYPES: tuple[type[Record], ...] = (
    Episode,
    Evaluation,
    Production,
    Consumption,
    Staleness,
    Replay,
    WeightsPublished,
    Ledger,
    Merge,
    Resources,
    Profile,
    Event,
)


def table_of(record_type: type[Record]) -> str:
    """The table that a record type is a row of; also its file's stem."""
    return str(record_type.__struct_config__.tag)
