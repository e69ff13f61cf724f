"""A suite as data: which work, on which systems, for how long (`experiments/bench/*.yaml`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.config_file import apply_settings, convert, read_yaml, suggest
from engine.errors import ConfigError
from engine.spec import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Scalar,
    Spec,
)
from tianji_cli.files import find_file, study_names

PEERS = ("tianji", "single-process", "rllib", "sample-factory", "xingtian")
"""Every system that a suite may name, in the order of tables and figures."""


class BenchEnv(Spec, frozen=True, kw_only=True):
    """The environment, by the id under which every peer knows it."""

    id: str


class BenchPpo(Spec, frozen=True, kw_only=True):
    """PPO's hyperparameters, in TianJi's names; each adapter translates them."""

    name: str = "ppo"
    learning_rate: PositiveFloat
    discount: PositiveFloat
    gae_lambda: NonNegativeFloat
    clip_range: PositiveFloat
    entropy_coefficient: NonNegativeFloat
    value_coefficient: NonNegativeFloat
    max_gradient_norm: PositiveFloat
    batch_steps: PositiveInt
    minibatch_steps: PositiveInt
    num_epochs: PositiveInt


class BenchNetwork(Spec, frozen=True, kw_only=True):
    """Fully connected layers, separate for policy and value: what every peer can build."""

    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"


class PeerOverrides(Spec, frozen=True, kw_only=True):
    """What one peer cannot do as the others; the parity table shows it as different."""

    envs_per_worker: PositiveInt | None = None
    rollout_steps: PositiveInt | None = None


class Task(Spec, frozen=True, kw_only=True):
    """One piece of work that all its peers do.

    A cell (one peer, one seed) ends when the threshold is reached, but not before `min_s`, and at
    the latest after `budget_s`; both count from the first sample, so that nobody's launch is
    trained away. What then has not reached the threshold is right-censored.
    """

    env: BenchEnv
    algorithm: BenchPpo
    network: BenchNetwork = BenchNetwork()
    workers: PositiveInt = 2
    """Processes that step environments, beside the learner."""
    envs_per_worker: PositiveInt = 8
    rollout_steps: PositiveInt
    """Steps of each environment between two looks at new weights."""
    threshold: float
    """Mean return of the last `return_window` finished training episodes."""
    return_window: PositiveInt = 100
    budget_s: PositiveFloat
    min_s: NonNegativeFloat = 0.0
    """Trains at least so long, so that throughput has a steady window."""
    start_s: PositiveFloat = 120.0
    """A system without a first sample by then has hung."""
    stall_s: PositiveFloat = 45.0
    """A system without a new env step for so long has hung."""
    peers: dict[str, PeerOverrides]

    def of(self, peer: str) -> Task:
        """The same task with the overrides of one peer applied."""
        overrides = self.peers[peer]
        changes = {
            name: value
            for name in overrides.__struct_fields__
            if (value := getattr(overrides, name)) is not None
        }
        return msgspec.structs.replace(self, **changes)


class Suite(Spec, frozen=True, kw_only=True):
    """A benchmark, completely described."""

    version: int = 1
    name: str
    summary: str
    seeds: PositiveInt
    tasks: dict[str, Task]

    def peers_of(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The wanted peers that can do at least one task, in the order of `PEERS`."""
        able = {peer for task in self.tasks.values() for peer in task.peers}
        return tuple(peer for peer in PEERS if peer in wanted and peer in able)


def load_suite(name: str, settings: Sequence[str] = ()) -> Suite:
    """Reads a suite: the name of one that comes with TianJi, or a path.

    Args:
        name: Such as `smoke` or `my/suite.yaml`.
        settings: `tasks.ppo.budget_s=10`, laid over the file.

    Raises:
        ConfigError: No such suite, or it cannot be used.
    """
    path = find_file("experiments/bench", name, study_names())
    document = apply_settings(read_yaml(path), settings)
    suite = convert(document, Suite)
    for task_name, task in suite.tasks.items():
        for key, problem, fix in _problems(task):
            where = document.where(("tasks", task_name, *key.split(".")))
            raise ConfigError(problem, where=where, fix=fix)
    return suite


def _problems(task: Task) -> list[tuple[str, str, str]]:
    """What no single field can say: key, what is wrong, what to do."""
    found = [
        (f"peers.{peer}", f"unknown peer {peer!r}", suggest(peer, PEERS))
        for peer in task.peers
        if peer not in PEERS
    ]
    if not task.peers:
        found.append(("peers", "nobody is to do this task", f"known: {', '.join(PEERS)}"))
    if task.algorithm.name != "ppo":
        found.append(("algorithm.name", "only ppo can be compared", "name: ppo"))
    if task.algorithm.batch_steps % task.algorithm.minibatch_steps:
        problem = f"{task.algorithm.minibatch_steps} does not divide the batch"
        found.append(("algorithm.minibatch_steps", problem, "choose a divisor"))
    if not math.isfinite(task.threshold):
        found.append(("threshold", "can never be reached or is reached at once", "a number"))
    if task.min_s > task.budget_s:
        found.append(("min_s", "is longer than budget_s", "lower it"))
    return found


def scalar_rows(task: Task) -> dict[str, Scalar | str]:
    """Every setting of a task that a peer must match, flat, in the order of the parity table."""
    rows: dict[str, Scalar | str] = {"environment": task.env.id, "algorithm": task.algorithm.name}
    for name in task.algorithm.__struct_fields__[1:]:
        rows[name] = getattr(task.algorithm, name)
    rows["network"] = (
        f"separate policy and value, {' x '.join(map(str, task.network.hidden_sizes))},"
        f" {task.network.activation}"
    )
    rows |= {
        "workers": task.workers,
        "envs_per_worker": task.envs_per_worker,
        "rollout_steps": task.rollout_steps,
    }
    return rows
