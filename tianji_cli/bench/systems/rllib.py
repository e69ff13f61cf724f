"""Ray RLlib, new API stack, in a virtual environment of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from tianji_cli.bench.systems.base import Deviations
from tianji_cli.bench.systems.probe import GAMES, TORCH, VenvBaseline
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task
from tianji_cli.bench.tasks.work import BenchDqn, BenchImpala, BenchIppo, BenchSac

TEAMS = ("pettingzoo", "mpe2")
"""Modules that only environments of several agents need."""


MINIBATCHES = (
    "a sample without loss is added to each episode, so there can be more minibatches in an epoch"
)
"""Its `AddOneTsToEpisodesAndTruncate`, and its `MiniBatchCyclicIterator`."""


class RllibResult(msgspec.Struct, frozen=True, kw_only=True):
    """RLlib's own result of one training iteration (`raw/rllib-results.txt`).

    Its mean return is NaN (here null) before the first episode, and it covers only the last part
    of an episode that several iterations share; the figures of a report come from the counting
    environments instead.
    """

    training_iteration: float | None
    num_env_steps_sampled_lifetime: float | None
    num_module_steps_trained_lifetime: float | None
    episode_return_mean: float | None
    time_total_s: float | None


def parse_results(lines: Iterable[str]) -> list[RllibResult]:
    """Complete lines of `rllib-results.txt`; Python's NaN becomes null."""
    found = []
    for line in lines:
        if not line.endswith("\n"):
            continue
        data = json.loads(line, parse_constant=lambda _constant: None)
        found.append(msgspec.convert(data, RllibResult))
    return found


class Rllib(VenvBaseline):
    """`PPO`, `IMPALA` and `DQN` of `ray.rllib`; env runners are its workers."""

    name = "rllib"
    title = "RLlib"
    drivers: ClassVar = {
        **dict.fromkeys(("ppo", "impala", "dqn"), "rllib_driver.py"),
        "ippo": "rllib_team_driver.py",
    }
    packages = (
        TORCH,
        "ray[rllib]==2.60.0",
        "ale-py==0.12.1",
        "pettingzoo==1.27.0",
        "mpe2==1.1.1",
        *GAMES,
    )
    modules = (
        "ray",
        "torch",
        "gymnasium",
        "ray.rllib.algorithms.ppo=rllib",
        "ale_py",
        "minatar",
    )
    caveats = (
        "RLlib's KL loss and value clipping, on by default, are off here: nobody else has them.",
        "RLlib's learner lives in the driver process (num_learners 0), its default on one host.",
    )

    def refusal(self, task: Task) -> str | None:
        if isinstance(task.algorithm, BenchSac):
            return "RLlib's SAC is not set up here"
        return super().refusal(task)

    def modules_for(self, tasks: Sequence[Task]) -> Sequence[str]:
        has_teams = any(isinstance(task.algorithm, BenchIppo) for task in tasks)
        return (*self.modules, *TEAMS) if has_teams else self.modules

    def deviations(self, task: Task) -> Deviations:
        if isinstance(task.algorithm, BenchDqn):
            return {"target_update_period": ("equal", "given in env steps")}
        if isinstance(task.algorithm, BenchImpala):
            return {"value_coefficient": ("equal", "given doubled: RLlib halves the loss")}
        of_ppo: Deviations = {
            LAG_BOUND: ("different", "0: it collects and learns by turns"),
            "advantage normalisation": ("different", "per batch"),
            "minibatch_steps": ("different", MINIBATCHES),
            "value loss clipping": ("equal", "off; on by default"),
        }
        if not isinstance(task.algorithm, BenchIppo):
            return of_ppo
        return {
            **of_ppo,
            "environment": ("equal", "in its `ParallelPettingZooEnv`, one copy after the other"),
            "minibatch_steps": ("different", f"given in steps of agents; {MINIBATCHES}"),
            "policies": ("equal", "a wrapper appends the number"),
        }
