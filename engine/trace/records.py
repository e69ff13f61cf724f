"""The trace tables. One record is one line of `trace/<table>.jsonl`.

`t_s` is seconds since training started, on the coordinator's timeline. The text of a field is its
meaning, as in `docs/results-format.md`; its type or `_in` names the unit. Adding a field is
compatible; any other change raises `SCHEMA_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

SCHEMA_VERSION = 1


MAX_WHOLE = 2**53
"""Every whole number up to it is exact in JSON readers and data frames; no count comes near it."""
MAX_SECONDS = 1e11
"""Three thousand years, within which all arithmetic of times is sound."""
Whole: TypeAlias = Annotated[int, Meta(ge=-MAX_WHOLE, le=MAX_WHOLE)]
Seconds: TypeAlias = Annotated[float, Meta(ge=-MAX_SECONDS, le=MAX_SECONDS)]


def _in(unit: str) -> Meta:
    """The unit of a field, for `columns_of`."""
    return Meta(extra={"unit": unit})


EnvSteps: TypeAlias = Annotated[Whole, _in("env steps")]
Samples: TypeAlias = Annotated[Whole, _in("samples")]
Version: TypeAlias = Annotated[Whole, _in("version")]
Versions: TypeAlias = Annotated[Whole, _in("versions")]
NumBytes: TypeAlias = Annotated[Whole, _in("bytes")]
Reward: TypeAlias = Annotated[float, _in("reward")]
Duration: TypeAlias = Annotated[float, _in("s")]
MeanEnvSteps: TypeAlias = Annotated[float, _in("env steps")]
MeanVersions: TypeAlias = Annotated[float, _in("versions")]
ByLag: TypeAlias = dict[Whole, float] | UnsetType
"""Of importance ratios; absent where the algorithm reports none."""
ReturnsByName: TypeAlias = Annotated[dict[str, float] | UnsetType, _in("reward")]
"""Absent where the environment has one agent."""


class _Row(msgspec.Struct, frozen=True, kw_only=True, tag_field="table"):
    t_s: Annotated[Seconds, _in("s"), "time of the row, since training started"]


class Episode(_Row, frozen=True, kw_only=True, tag="episodes"):
    """A finished training episode, exploration included."""

    actor: Annotated[Whole, "number of the actor"]
    episode_return: Annotated[Reward, "undiscounted sum of the environment's own rewards"]
    length_env_steps: Annotated[EnvSteps, "length of the episode"]
    version: Annotated[Version, "weights that the actor held when it ended"]
    env_steps_collected: Annotated[
        EnvSteps,
        "by the whole run when the coordinator heard of it: the x of a learning curve",
    ] = 0
    agent_returns: Annotated[
        ReturnsByName, "of a team: the same sum for each agent, by name; together the team's return"
    ] = UNSET
    policy_returns: Annotated[
        ReturnsByName, "of a team: by policy, the sum over the agents that share it"
    ] = UNSET


class Evaluation(_Row, frozen=True, kw_only=True, tag="evaluations"):
    """Separate episodes with one version of the weights; `t_s` is when the last one ended."""

    evaluator: Annotated[Whole, "number of the evaluator"]
    version: Annotated[Version, "weights that were evaluated"]
    episodes: Annotated[Whole, "how many episodes"]
    return_mean: Annotated[Reward, "over the episodes, undiscounted"]
    return_min: Annotated[Reward, "over the episodes, undiscounted"]
    return_max: Annotated[Reward, "over the episodes, undiscounted"]
    length_mean_env_steps: Annotated[
        MeanEnvSteps,
        "over the episodes; these steps are not counted as collected",
    ]
    evaluate_s: Annotated[Duration, "duration of the evaluation"]
    env_steps_collected: Annotated[
        EnvSteps,
        "by the actors of the whole run when the coordinator heard of it",
    ] = 0
    agent_returns: Annotated[ReturnsByName, "of a team: `return_mean` of each agent, by name"] = (
        UNSET
    )
    policy_returns: Annotated[
        ReturnsByName, "of a team: by policy, the sum over the agents that share it"
    ] = UNSET


UNREPORTED = -1
"""`Production.sequence` of a row that the coordinator wrote for an actor that could not report."""

IRREPRODUCIBLE = "irreproducible"
"""Kind of the event that a run with a fixed lag is not what its seed gives elsewhere."""
UNCOUNTED = "uncounted"
"""`Event.kind` of a row for a buffer that was lost together with reports of its actors."""


class Production(_Row, frozen=True, kw_only=True, tag="production"):
    """A rollout that an actor collected (or, `sent` false, was collecting when it stopped)."""

    actor: Annotated[Whole, "number of the actor"]
    epoch: Annotated[Whole, "incarnation of this actor, from 0; +1 with each restart"]
    sequence: Annotated[
        Whole,
        "rollouts of this incarnation before this one; -1: the coordinator wrote the row at the "
        "end, for env steps of a lost actor that its buffer had counted or its learner had "
        "trained, but that the actor had not reported",
    ]
    env_steps: Annotated[EnvSteps, "in this rollout"]
    env_steps_total: Annotated[EnvSteps, "of this incarnation, this rollout included"]
    version_min: Annotated[Version, "oldest and newest weights that acted in it"]
    version_max: Annotated[Version, "oldest and newest weights that acted in it"]
    collect_s: Annotated[Duration, "time spent collecting the rollout"]
    wait_s: Annotated[
        Duration,
        "time waited before the rollout, for admission or for newer weights",
    ]
    sent: Annotated[bool, "false: unfinished when the run stopped, hence never sent"] = True
    agent_steps: Annotated[
        Whole | UnsetType,
        _in("agent steps"),
        "of a team: in this rollout, summed over env steps: the agents that were there",
    ] = UNSET
    max_lag: Annotated[
        Whole | UnsetType,
        _in("versions"),
        "with `staleness.max_lag: auto`: the bound that the rollout was admitted with",
    ] = UNSET


class Consumption(_Row, frozen=True, kw_only=True, tag="consumption"):
    """A batch that a learner trained on."""

    learner: Annotated[Whole, "number of the learner"]
    version: Annotated[
        Version,
        "the learner's when it took the batch; the update made it one higher",
    ]
    env_steps: Annotated[EnvSteps, "in the batch, each counted once"]
    env_steps_total: Annotated[EnvSteps, "consumed by this learner, this batch included"]
    samples_trained: Annotated[Samples, "env steps × times each was used (epochs, replay)"]
    samples_trained_total: Annotated[Samples, "by this learner, this batch included"]
    updates_total: Annotated[
        Whole,
        "optimiser steps of this learner so far; a batch can take several",
    ]
    wait_s: Annotated[Duration, "time the learner was idle before this batch"]
    update_s: Annotated[Duration, "duration of the update"]
    metrics: Annotated[
        dict[str, float],
        "values that the algorithm reports, such as losses; means over the batch; non-finite "
        "values are left out, and an event `not-finite` records them",
    ]


class Staleness(_Row, frozen=True, kw_only=True, tag="staleness"):
    """How old that batch was, in versions (over its env steps) and in seconds (over rollouts)."""

    learner: Annotated[Whole, "number of the learner"]
    version: Annotated[Version, "the learner's when it took the batch"]
    env_steps: Annotated[EnvSteps, "in the batch"]
    lag_min: Annotated[Versions, "over the env steps of the batch"]
    lag_mean: Annotated[MeanVersions, "over the env steps of the batch"]
    lag_p95: Annotated[MeanVersions, "over the env steps of the batch"]
    lag_max: Annotated[Versions, "over the env steps of the batch"]
    steps_by_lag: Annotated[
        dict[Whole, Whole],
        _in("env steps"),
        "the complete histogram: env steps by lag (JSON keys are strings)",
    ]
    age_mean_s: Annotated[
        Duration,
        "over its rollouts: from the end of collection to the start of training",
    ]
    age_max_s: Annotated[
        Duration,
        "over its rollouts: from the end of collection to the start of training",
    ]
    optimizer_lag_mean: Annotated[
        float | UnsetType,
        _in("optimiser steps"),
        "the same lag in optimiser steps of the learner, over the env steps of the batch",
    ] = UNSET
    optimizer_lag_max: Annotated[
        Whole | UnsetType,
        _in("optimiser steps"),
        "the same lag in optimiser steps of the learner, over the env steps of the batch",
    ] = UNSET
    ratio_batches: Annotated[
        Whole | UnsetType, "batches that the ratios are of: 1, or more in a merged row"
    ] = UNSET
    ratios_by_lag: Annotated[
        ByLag, "ratios, by lag in versions; keys up to 7 are one lag, 8 is 8 to 15, and so on"
    ] = UNSET
    ess_by_lag: Annotated[ByLag, "effective sample size of these ratios, as a share of them"] = (
        UNSET
    )
    clip_fraction_by_lag: Annotated[
        ByLag, "share of these ratios beyond the limits of the loss; DQN has none"
    ] = UNSET
    ratio_max_by_lag: Annotated[ByLag, "largest of these ratios"] = UNSET
    behaviour_kl_by_lag: Annotated[
        ByLag, _in("nats"), "divergence of the policy that acted from the one that learnt"
    ] = UNSET
    log_ratio_first_by_lag: Annotated[
        ByLag,
        _in("nats"),
        "largest absolute logarithm of a ratio before the first optimiser step",
    ] = UNSET


class Replay(_Row, frozen=True, kw_only=True, tag="replay"):
    """What a replay buffer took in and gave out since its last row."""

    buffer: Annotated[Whole, "number of the replay buffer"]
    env_steps: Annotated[EnvSteps, "inserted, hence consumed"]
    env_steps_total: Annotated[EnvSteps, "inserted so far"]
    samples: Annotated[Samples, "drawn"]
    samples_total: Annotated[
        Samples,
        "drawn so far; those of the last batches are possibly never trained on",
    ]
    size_env_steps: Annotated[EnvSteps, "stored now, without those already overwritten"]
    replay_ratio: Annotated[float, "`samples_total` ÷ `env_steps_total`"]
    sample_age_mean_s: Annotated[
        Duration,
        "over the samples drawn: since their rollout was collected; null if none",
    ]
    sample_age_max_s: Annotated[
        Duration,
        "over the samples drawn: since their rollout was collected; null if none",
    ]


class WeightsPublished(_Row, frozen=True, kw_only=True, tag="weights"):
    """New weights offered to the actors."""

    learner: Annotated[Whole, "number of the learner"]
    version: Annotated[Version, "of the weights"]
    num_bytes: Annotated[NumBytes, "size of the flat tensor"]
    num_subscribers: Annotated[Whole, "actors that it was offered to"]


class Ledger(_Row, frozen=True, kw_only=True, tag="ledger"):
    """Where every collected env step is: collected = consumed + dropped + in_flight.

    The four are counted separately: `collected` by the actors, `consumed` by the learner,
    `dropped` and `in_flight` (queued, handed over, or in transit) by the buffer.
    """

    collected: Annotated[EnvSteps, "stepped by actors"]
    consumed: Annotated[
        EnvSteps,
        "taken by the learner, or into the replay store; each counted once",
    ]
    dropped: Annotated[EnvSteps, "too old for the bound, or lost in transit"]
    in_flight: Annotated[EnvSteps, "queued, handed over but not trained, or unfinished at an actor"]
    buffer: Annotated[Whole, "the buffer whose count changed; the figures are over all buffers"] = 0


class Merge(_Row, frozen=True, kw_only=True, tag="merges"):
    """A group's model met those of the other groups at the reducer."""

    group: Annotated[Whole, "number of the group whose model was merged"]
    version: Annotated[Version, "of the group's model"]
    lag: Annotated[Versions, "that this model was behind the newest of all groups"]
    lag_max: Annotated[Versions, "between the newest and the oldest model that were merged"]
    versions: Annotated[
        dict[Whole, Whole],
        _in("version"),
        "of the newest model of each group (JSON keys are strings)",
    ]
    shares: Annotated[
        dict[Whole, float],
        "weight of each group in the mean; a parameter server adds progress instead",
    ]
    merges_total: Annotated[Whole, "merges of the run so far"]


class Resources(_Row, frozen=True, kw_only=True, tag="resources"):
    """What one process used so far, measured by the supervisor of its host."""

    host: Annotated[str, "inventory name"]
    process: Annotated[str, "such as `actor-0`"]
    pid: Annotated[Whole, "process id on that host"]
    cpu_s: Annotated[Duration, "processor time, user and system, since it started"]
    rss_bytes: Annotated[NumBytes, "resident memory"]
    num_threads: Annotated[Whole, "threads"]


class Profile(_Row, frozen=True, kw_only=True, tag="profile"):
    """Where the time of a role went since its last row; only `up --profile` writes any."""

    role: Annotated[str, "such as `actor-0`"]
    process: Annotated[str, "the process that runs it; `inline` if one process runs all roles"]
    wall_s: Annotated[Duration, "wall time that the row covers"]
    cpu_s: Annotated[
        Duration,
        "processor time of the role's thread in it, without that of the other roles of its process",
    ]
    process_cpu_s: Annotated[
        Duration,
        "processor time of all threads of the process, including those of ZeroMQ and PyTorch",
    ]
    sections_s: Annotated[
        dict[str, float],
        _in("s"),
        "wall time by section (JSON keys are names); sections without time are left out",
    ]


LAG_BOUND = "lag-bound"
"""`Event.kind` of what `staleness.max_lag: auto` decides."""
DROP = "drop"
"""`Event.kind` of a whole rollout that was dropped, mostly because it was too old."""


class Event(_Row, frozen=True, kw_only=True, tag="events"):
    """Joins, starts, stops, exits, drops and errors."""

    kind: Annotated[str, "what happened, such as `joined` or `restarted`"]
    host: Annotated[str, "inventory name; empty if it concerns no host"]
    role: Annotated[str, "such as `actor-0` or `coordinator`"]
    detail: Annotated[str, "text for people"]
    origin_s: Annotated[
        float | None,
        _in("s"),
        "for `started`: CLOCK_MONOTONIC of the coordinator's host at `t_s` 0, to align the run "
        "with other records of that host; else null",
    ] = None
    epoch: Annotated[
        Whole | UnsetType, "for `drop`: the rollout's, as in `production`; else absent"
    ] = UNSET
    sequence: Annotated[
        Whole | UnsetType, "for `drop`: the rollout's, as in `production`; else absent"
    ] = UNSET
    env_steps: Annotated[
        Whole | UnsetType, _in("env steps"), "for `drop`: in that rollout; else absent"
    ] = UNSET
    max_lag: Annotated[
        Whole | UnsetType,
        _in("versions"),
        "for `lag-bound`: of rollouts admitted from then on; else absent",
    ] = UNSET
    max_lag_before: Annotated[
        Whole | UnsetType, _in("versions"), "for `lag-bound`: until then; else absent"
    ] = UNSET


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


class ColumnDoc(NamedTuple):
    """Unit and meaning of a field; the unit is empty where a number has none."""

    unit: str
    meaning: str


def columns_of(record_type: type[Record]) -> dict[str, ColumnDoc]:
    """The fields of a table, in order."""
    return {
        field.encode_name: _doc_of(getattr(field.type, "__metadata__", ()))
        for field in msgspec.structs.fields(record_type)
    }


def _doc_of(notes: Sequence[object]) -> ColumnDoc:
    units = [note.extra["unit"] for note in notes if isinstance(note, Meta) and note.extra]
    meanings = [note for note in notes if isinstance(note, str)]
    return ColumnDoc(str(units[-1]) if units else "", meanings[-1] if meanings else "")
