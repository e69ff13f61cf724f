"""What an evaluation writes beside its run, and what it prints."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from engine.spec import Scalar
from tianji_cli.bench.statistics import Interval, bootstrap_iqm
from tianji_cli.storage.run_dir import RunPaths

if TYPE_CHECKING:
    from engine.spaces.team import TeamReturns

SCHEMA_VERSION = 1


class EpisodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One episode: a line of the table of episodes."""

    episode: int
    """From 0."""
    seed: int
    """That it started from."""
    episode_return: float
    """Undiscounted sum of the environment's own rewards."""
    length_env_steps: int
    ended_by: str
    """`terminated`, `truncated`, or `limit`: it had not ended after `max_env_steps`."""
    agent_returns: dict[str, float] = {}
    """Of a team: the same sum for each agent, by name."""
    policy_returns: dict[str, float] = {}
    """Of a team: the sum over the agents that share each policy, by name."""


class ReturnStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of the returns of all episodes."""

    mean: float
    std: float | None
    """Standard deviation of a sample; null for a single episode."""
    iqm: Interval
    """Interquartile mean, with its 95 % bootstrap interval."""
    min: float
    max: float


class LengthStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of the lengths of all episodes, in env steps."""

    mean: float
    min: int
    max: int


class EvaluatedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The document of an evaluation."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    checkpoint: str
    """Its JSON file, below the run's directory."""
    version: int
    """Of the weights."""
    env_steps_consumed: int
    """By training, when the checkpoint was written."""
    env_id: str
    env_kwargs: dict[str, Scalar]
    """Those that replaced the run's."""
    seed: int
    episodes: int
    group_size: int
    """Episodes that stepped together; environments that share a generator depend on it."""
    is_sampled: bool
    max_env_steps: int
    returns: ReturnStatistics
    agent_returns: dict[str, float] = {}
    """Of a team: the mean return of each agent, by name."""
    policy_returns: dict[str, float] = {}
    """Of a team: likewise of each policy."""
    lengths: LengthStatistics
    num_at_limit: int
    """Episodes that had not ended after `max_env_steps`."""
    versions: dict[str, str]
    """Of the packages that decide what happens."""
    evaluated_at: str
    """UTC, ISO 8601."""
    wall_s: float
    num_processes: int


class EvaluatedFiles(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation in what `tianji evaluate --json` prints."""

    evaluation: EvaluatedRun
    path: str
    """Of its document."""
    episodes_path: str
    """Of its table of episodes."""


class EvaluateDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `tianji evaluate --json` prints."""

    schema_version: int = SCHEMA_VERSION
    evaluations: list[EvaluatedFiles]


def returns_within(team: TeamReturns | None) -> dict[str, dict[str, float]]:
    """The fields of `EpisodeRow` with returns within a team; none of a single agent."""
    if team is None:
        return {}
    return {"agent_returns": team.agents, "policy_returns": team.policies}


def return_statistics(rows: Sequence[EpisodeRow]) -> ReturnStatistics:
    """Of one episode or more."""
    values = np.array([row.episode_return for row in rows], np.float64)
    return ReturnStatistics(
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if len(values) > 1 else None,
        iqm=bootstrap_iqm(values.tolist()),
        min=float(values.min()),
        max=float(values.max()),
    )


def length_statistics(rows: Sequence[EpisodeRow]) -> LengthStatistics:
    """Of one episode or more."""
    lengths = [row.length_env_steps for row in rows]
    return LengthStatistics(mean=sum(lengths) / len(lengths), min=min(lengths), max=max(lengths))


def mean_by_name(returns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over all episodes; empty of a single agent.

    >>> mean_by_name([{"ann": 1.0, "bob": 0.0}, {"ann": 2.0, "bob": 4.0}])
    {'ann': 1.5, 'bob': 2.0}
    """
    return {name: sum(one[name] for one in returns) / len(returns) for name in returns[0]}


def episodes_csv(rows: Sequence[EpisodeRow]) -> str:
    """The table of episodes, with a line of names first; each return within a team is a column."""
    text = io.StringIO()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: EpisodeRow) -> dict[str, object]:
    """`agent_returns.NAME` for each agent, as in a table of episodes of a notebook."""
    columns: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(row).items():
        columns |= (
            {f"{name}.{key}": one for key, one in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return columns


def evaluation_files(root: Path, name: str) -> tuple[Path, Path]:
    """Document and table of an evaluation of the run in a directory."""
    directory = RunPaths(root).evaluations
    return directory / f"{name}.json", directory / f"{name}.csv"
