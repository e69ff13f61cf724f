"""The trace tables. One record is one line of `trace/<table>.jsonl`.

`t_s` is seconds since training started, on the coordinator's timeline. Field by field, with units:
`docs/results-format.md`. Adding a field is compatible; any other change raises `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

SCHEMA_VERSION = 1


MAX_WHOLE = 2**53
"""Every whole number up to it is exact in JSON readers and data frames; no count comes near it."""
MAX_SECONDS = 1e11
"""Three thousand years, within which all arithmetic of times is sound."""
Whole: TypeAlias = Annotated[int, Meta(ge=-MAX_WHOLE, le=MAX_WHOLE)]
Seconds: TypeAlias = Annotated[float, Meta(ge=-MAX_SECONDS, le=MAX_SECONDS)]


class _Row(msgspec.Struct, frozen=True, kw_only=True, tag_field="table"):
    t_s: Seconds


class Episode(_Row, frozen=True, kw_only=True, tag="episodes"):
    """A finished training episode, exploration included."""

    actor: Whole
    episode_return: float
    length_env_steps: Whole
    version: Whole
    env_steps_collected: Whole = 0
    """Of the whole run when the coordinator heard of it; written by the coordinator."""


class Evaluation(_Row, frozen=True, kw_only=True, tag="evaluations"):
    """Separate episodes with one version of the weights; `t_s` is when the last one ended."""

    evaluator: Whole
    version: Whole
    episodes: Whole
    return_mean: float
    return_min: float
    return_max: float
    length_mean_env_steps: float
    evaluate_s: float
    env_steps_collected: Whole = 0
    """By all actors when the coordinator heard of it; written by the coordinator."""


UNREPORTED = -1
"""`Production.sequence` of a row that the coordinator wrote for an actor that could not report."""

UNCOUNTED = "uncounted"
"""`Event.kind` of a row for a buffer that was lost together with reports of its actors."""


class Production(_Row, frozen=True, kw_only=True, tag="production"):
    """A rollout that an actor collected (or, `sent` false, was collecting when it stopped)."""

    actor: Whole
    epoch: Whole
    sequence: Whole
    env_steps: Whole
    env_steps_total: Whole
    version_min: Whole
    version_max: Whole
    collect_s: float
    wait_s: float
    sent: bool = True


class Consumption(_Row, frozen=True, kw_only=True, tag="consumption"):
    """A batch that a learner trained on."""

    learner: Whole
    version: Whole
    """The learner's version when it took the batch; the update made it one higher."""
    env_steps: Whole
    env_steps_total: Whole
    samples_trained: Whole
    samples_trained_total: Whole
    updates_total: Whole
    wait_s: float
    update_s: float
    metrics: dict[str, float]


class Staleness(_Row, frozen=True, kw_only=True, tag="staleness"):
    """How old that batch was, in versions (over its env steps) and in seconds (over rollouts)."""

    learner: Whole
    version: Whole
    env_steps: Whole
    lag_min: Whole
    lag_mean: float
    lag_p95: float
    lag_max: Whole
    steps_by_lag: dict[Whole, Whole]
    """Env steps of each lag: the histogram that the other lag figures summarise."""
    age_mean_s: float
    age_max_s: float


class Replay(_Row, frozen=True, kw_only=True, tag="replay"):
    """What a replay buffer took in and gave out since its last row."""

    buffer: Whole
    env_steps: Whole
    env_steps_total: Whole
    samples: Whole
    samples_total: Whole
    size_env_steps: Whole
    replay_ratio: float
    sample_age_mean_s: float
    sample_age_max_s: float


class WeightsPublished(_Row, frozen=True, kw_only=True, tag="weights"):
    """New weights offered to the actors."""

    learner: Whole
    version: Whole
    num_bytes: Whole
    num_subscribers: Whole


class Ledger(_Row, frozen=True, kw_only=True, tag="ledger"):
    """Where every collected env step is: collected = consumed + dropped + in_flight.

    The four are counted separately: `collected` by the actors, `consumed` by the learner,
    `dropped` and `in_flight` (queued, handed over, or in transit) by the buffer.
    """

    collected: Whole
    consumed: Whole
    dropped: Whole
    in_flight: Whole
    buffer: Whole = 0
    """The buffer whose count has changed; the figures are those of all buffers together."""


class Merge(_Row, frozen=True, kw_only=True, tag="merges"):
    """A group's model met those of the other groups at the reducer."""

    group: Whole
    version: Whole
    lag: Whole
    """Versions that this model was behind the newest of all groups."""
    lag_max: Whole
    """Versions between the newest and the oldest model that were merged."""
    versions: dict[Whole, Whole]
    """Version of the newest model of each group."""
    shares: dict[Whole, float]
    """How much each group weighed; a parameter server adds progress instead."""
    merges_total: Whole


class Resources(_Row, frozen=True, kw_only=True, tag="resources"):
    """What one process used so far, measured by the supervisor of its host."""

    host: str
    process: str
    pid: Whole
    cpu_s: float
    rss_bytes: Whole
    num_threads: Whole


class Profile(_Row, frozen=True, kw_only=True, tag="profile"):
    """Where the time of a role went since its last row; only `up --profile` writes any."""

    role: str
    process: str
    wall_s: float
    cpu_s: float
    process_cpu_s: float
    sections_s: dict[str, float]
    """By section of `engine.timing`; they add up to `wall_s`."""


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


def table_of(record_type: type[msgspec.Struct]) -> str:
    """The table that a record type is a row of; also its file's stem."""
    return str(record_type.__struct_config__.tag)
