"""A suite as data: work, systems and time limits (`experiments/bench/*.yaml`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.config.config_file import convert, suggest
from engine.errors import ConfigError
from engine.spec import (
    PETTINGZOO,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Scalar,
    Spec,
)
from tianji_cli.bench.kinds import read_suite
from tianji_cli.bench.tasks.from_experiment import with_experiments
from tianji_cli.bench.tasks.work import (
    Algorithm,
    BenchDqn,
    BenchEnv,
    BenchIppo,
    BenchNetwork,
    BenchPpo,
    Judging,
)

SYSTEMS = (
    *("tianji", "single-process", "compiled-loop"),
    *("rllib", "sample-factory", "xingtian", "sb3", "rejax"),
    "other-tianji",
)
"""Every system that a suite may name, in the order of tables and figures."""
OTHER = "other-tianji"
"""It runs every task that TianJi runs, as TianJi does; a suite need not name it."""
THREADED = ("tianji", "single-process", "compiled-loop", "sb3", OTHER)
"""Those that can be told how many threads of arithmetic to learn with."""
ALSO_CALLED = {"cleanrl": "single-process", "leanrl": "compiled-loop"}
"""Other names on the command line: CleanRL's and LeanRL's files are no packages, and these loops
are in their manner."""

LAG_BOUND = "lag bound, in versions"
"""A row of the parity table."""
DEFAULT_MAX_LAG = 1


class SystemOverrides(Spec, frozen=True, kw_only=True):
    """Settings of one system that differ from the others; the parity table shows them."""

    envs_per_worker: PositiveInt | None = None
    """Other than the task's."""
    rollout_steps: PositiveInt | None = None
    """Other than the task's."""
    threads: PositiveInt | None = None
    """Other than the task's."""


class Task(Spec, frozen=True, kw_only=True, rename={"systems": "peers"}):
    """One task that all its systems run.

    A cell (one system, one seed) ends when the threshold is reached, but not before `min_s`, and at
    the latest after `budget_s`; both count from the first sample, so that launch time costs no
    system training time. A cell that has not reached the threshold by then is right-censored.
    """

    env: BenchEnv
    algorithm: Algorithm
    """`name`, and hyperparameters of that algorithm in TianJi's names; each adapter translates
    them."""
    network: BenchNetwork = BenchNetwork()
    workers: PositiveInt = 2
    """Processes that step environments, in addition to the learner."""
    envs_per_worker: PositiveInt = 8
    """Environments that one worker steps together."""
    rollout_steps: PositiveInt
    """Steps of each environment between two checks for new weights."""
    threads: PositiveInt = 1
    """Threads of arithmetic of whoever learns."""
    max_lag: NonNegativeInt = DEFAULT_MAX_LAG
    """PPO: greatest age of a trained sample, in weights versions, for systems that collect during
    training."""
    policy: Literal["tianji", "gpu-only"] = "tianji"
    """TianJi's distribution policy: roles in processes of their own, or one loop that steps
    environments of tensors and learns by turns. Other systems have none."""
    threshold: float
    """For the mean return of training episodes, as `judge` says."""
    judge: Judging = Judging()
    budget_s: PositiveFloat
    """Seconds of training after which a cell that has not reached the threshold is censored."""
    min_s: NonNegativeFloat = 0.0
    """Minimum training time, so that throughput has a steady window."""
    env_steps: PositiveInt | None = None
    """Every cell collects this many and then ends, not at the threshold: returns are compared at
    equal env steps, and env steps trained per second. `null`: at the threshold."""
    start_s: PositiveFloat = 120.0
    """A system without a first sample by then has hung."""
    stall_s: PositiveFloat = 45.0
    """A system without a new env step for this long has hung."""
    systems: dict[str, SystemOverrides]
    """Systems that run it, with their own settings."""
    without: dict[str, str] = msgspec.field(default_factory=dict)
    """Systems that could run it but are left out, with the reason."""

    @property
    def algorithm_name(self) -> str:
        """`ppo`, `ippo`, `impala`, `dqn`, `sac` or `td3`."""
        return str(self.algorithm.__struct_config__.tag)

    def of(self, system: str) -> Task:
        """The same task with the overrides of one system applied."""
        overrides = self.systems[system]
        changes = {
            name: value
            for name in overrides.__struct_fields__
            if (value := getattr(overrides, name)) is not None
        }
        return msgspec.structs.replace(self, **changes)


class Suite(Spec, frozen=True, kw_only=True, tag_field="kind", tag="comparison"):
    """Complete description of a benchmark."""

    version: int = 1
    """Version of the file format."""
    name: str
    """Part of the benchmark's id."""
    summary: str
    """One line about it, for reports."""
    seeds: PositiveInt
    """Blocks: in each, every system runs every task once with the same seed."""
    tasks: dict[str, Task]
    """The compared work, by name. A task with the key `experiment` takes what it leaves out from
    that experiment file."""

    def systems_of(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The requested systems that can run at least one task, in the order of `SYSTEMS`."""
        able = {system for task in self.tasks.values() for system in task.systems}
        return tuple(system for system in SYSTEMS if system in wanted and system in able)

    def with_other(self) -> Suite:
        """The same suite, in which another TianJi runs what TianJi runs, as TianJi does."""
        tasks = {
            name: msgspec.structs.replace(
                task, systems={OTHER: task.systems["tianji"], **task.systems}
            )
            if "tianji" in task.systems
            else task
            for name, task in self.tasks.items()
        }
        return msgspec.structs.replace(self, tasks=tasks)

    def tasks_of(self, system: str) -> list[Task]:
        """What a system is to run."""
        return [task for task in self.tasks.values() if system in task.systems]


def load_suite(name: str, settings: Sequence[str] = ()) -> Suite:
    """Reads a suite: the name of one that comes with TianJi, or a path.

    Args:
        name: Such as `smoke` or `my/suite.yaml`.
        settings: `tasks.ppo.budget_s=10`, laid over the file.

    Raises:
        ConfigError: No such suite, or it cannot be used.
    """
    document = with_experiments(read_suite(name, settings))
    suite = convert(document, Suite)
    for task_name, task in suite.tasks.items():
        for key, problem, fix in _problems(task):
            where = document.where(("tasks", task_name, *key.split(".")))
            raise ConfigError(problem, where=where, fix=fix)
    return suite


def _problems(task: Task) -> list[tuple[str, str, str]]:
    """Checks across several fields: key, what is wrong, what to do."""
    found = [
        (f"peers.{system}", f"unknown system {system!r}", suggest(system, SYSTEMS))
        for system in (*task.systems, *task.without)
        if system not in SYSTEMS
    ]
    found += [
        (f"peers.{system}", f"{system} is not set up for several threads", "set its threads to 1")
        for system in task.systems
        if system not in THREADED and task.of(system).threads > 1
    ]
    if not task.systems:
        found.append(("peers", "no system is to run this task", f"known: {', '.join(SYSTEMS)}"))
    algorithm = task.algorithm
    if isinstance(algorithm, BenchPpo) and algorithm.batch_steps % algorithm.minibatch_steps:
        problem = f"{algorithm.minibatch_steps} does not divide the batch"
        found.append(("algorithm.minibatch_steps", problem, "choose a divisor"))
    if task.max_lag != DEFAULT_MAX_LAG and not isinstance(algorithm, BenchPpo):
        problem = f"{task.algorithm_name} has no lag bound here"
        found.append(("max_lag", problem, "leave it out"))
    if task.network.precision != "float32" and task.network.name == "mlp":
        problem = "only convolutional networks are set up for other precisions"
        found.append(("network.precision", problem, "leave it out"))
    if task.policy == "gpu-only" and task.max_lag != DEFAULT_MAX_LAG:
        found.append(("max_lag", "gpu-only collects and learns by turns", "leave it out"))
    if not math.isfinite(task.threshold):
        found.append(("threshold", "can never be reached or is reached at once", "a number"))
    if task.min_s > task.budget_s:
        found.append(("min_s", "is longer than budget_s", "lower it"))
    return [*found, *_problems_with_agents(task)]


def _problems_with_agents(task: Task) -> list[tuple[str, str, str]]:
    """Checks whether algorithm and environment are both for several agents; see `_problems`."""
    env, name = task.env, task.algorithm_name
    if not isinstance(task.algorithm, BenchIppo):
        is_pettingzoo = env.id.startswith(f"{PETTINGZOO}:")
        return [("env.id", f"{name} is for one agent here", "use ippo")] if is_pettingzoo else []
    found = []
    if ":" not in env.id:
        fix = f"{PETTINGZOO}:MODULE, or module:function for a function that makes such a one"
        found.append(("env.id", f"{name} is for several agents", fix))
    if env.clip_reward:
        found.append(("env.clip_reward", "a team's rewards are not clipped", "leave it out"))
    return found


def scalar_rows(task: Task) -> dict[str, Scalar]:
    """All that a system must match, flat, in the order of the parity table."""
    algorithm = task.algorithm
    return {
        **task.env.settings(),
        "algorithm": task.algorithm_name,
        **{name: getattr(algorithm, name) for name in algorithm.__struct_fields__},
        "network": task.network.words(has_policy=not isinstance(algorithm, BenchDqn)),
        "workers": task.workers,
        "envs_per_worker": task.envs_per_worker,
        "rollout_steps": task.rollout_steps,
        "threads": task.threads,
        **({LAG_BOUND: task.max_lag} if isinstance(algorithm, BenchPpo) else {}),
        **algorithm.practices,
        "bootstrap at truncation": "on",
        "seed": "the block's",
        "judge": task.judge.words(task.threshold),
    }
