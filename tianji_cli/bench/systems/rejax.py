"""rejax: algorithms and environments in JAX, in a virtual environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from engine.wording import plural
from tianji_cli.bench.systems.base import (
    CellPaths,
    Command,
    Deviations,
    Installed,
    Job,
    initial_weights,
)
from tianji_cli.bench.systems.probe import VenvBaseline
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task
from tianji_cli.bench.tasks.work import BenchDqn, BenchPpo, BenchSac, BenchTd3

ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")
"""Those of gymnax that a test has found to step as Gymnasium's do."""
DQN_SIZES = (64, 64)
ONE_THREAD: Mapping[str, str] = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
}


class Rejax(VenvBaseline):
    """`PPO`, `DQN` and `SAC` of `rejax`, with gymnax's environments inside its compiled loop."""

    name = "rejax"
    title = "rejax"
    drivers: ClassVar = dict.fromkeys(("ppo", "dqn", "sac"), "rejax_driver.py")
    packages = ("jax==0.10.2", "rejax==0.1.3", "gymnax==1.0.1")
    modules = ("jax", "rejax", "gymnax")
    caveats = (
        "rejax steps gymnax's environments: the same dynamics written anew in JAX, in float32 and"
        " compiled together with the training, which is what makes it fast; no environment of"
        " Gymnasium can be used that way.",
        "rejax's compilation lies before its first sample, as TianJi's does.",
        "rejax is counted by a wrapper of its own inside the compiled loop; its episodes have the"
        " time at which a call of that loop ended, at least 512 env steps after the one before.",
    )

    def refusal(self, task: Task) -> str | None:
        if isinstance(task.algorithm, BenchTd3):
            return "rejax's TD3 is not set up here"
        if (reason := super().refusal(task)) is not None:
            return reason
        if task.env.id not in ENVIRONMENTS:
            known = ", ".join(ENVIRONMENTS)
            return f"rejax needs an environment in JAX; set up here are {known}, no {task.env.id}"
        if task.network.name != "mlp":
            return "rejax has fully connected networks only"
        if task.env.clip_reward:
            return "rejax's rewards are not clipped here"
        algorithm = task.algorithm
        if isinstance(algorithm, BenchDqn | BenchSac):
            num_envs = task.workers * task.envs_per_worker
            if algorithm.replay_ratio * num_envs % algorithm.batch_size:
                return (
                    "rejax makes a whole number of optimiser steps after each step of all"
                    f" {plural(num_envs, 'environment')}, which replay_ratio does not give"
                )
        if isinstance(algorithm, BenchDqn) and task.network.hidden_sizes != DQN_SIZES:
            return "rejax's DQN has networks of 64 x 64 only"
        return None

    def deviations(self, task: Task) -> Deviations:
        total = task.workers * task.envs_per_worker
        rows: Deviations = {
            "environment": ("different", "gymnax's, the same dynamics in JAX"),
            "workers": (
                "different",
                f"one compiled loop steps {plural(total, 'environment')} and learns",
            ),
            **initial_weights(task, "flax", "Flax's own"),
            "bootstrap at truncation": ("not settable", "a truncation counts as the end"),
        }
        if isinstance(task.algorithm, BenchPpo):
            return {
                **rows,
                LAG_BOUND: ("different", "0: it collects and learns by turns"),
                "max_gradient_norm": ("different", "clips each element at it, not the norm"),
                "value_coefficient": ("equal", "given doubled: rejax halves the loss"),
                "value loss clipping": ("not settable", "on, by clip_range"),
            }
        rows = {**rows, "rollout_steps": ("different", "learns after every step of all")}
        if isinstance(task.algorithm, BenchDqn):
            return {
                **rows,
                "max_gradient_norm": ("different", "clips each element at it, not the norm"),
                "target_update_period": ("equal", "given in env steps"),
                "epsilon_decay_env_steps": ("different", "counted from the first step"),
                "loss": ("not settable", "half the squared error, mean over samples"),
            }
        return {
            **rows,
            "loss": ("different", "half the squared error, mean over samples"),
            "actions": ("different", "scaled; its own policy's from the first step"),
            "target_update_rate": ("equal", "from the first env step"),
        }

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        command = super().command(job, paths, installed)
        return Command(command.argv, {**command.env, **ONE_THREAD}, command.unset)
