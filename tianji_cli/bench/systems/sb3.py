"""Stable-Baselines3, in a virtual environment of its own."""

from __future__ import annotations

from typing import ClassVar

from engine.wording import plural
from tianji_cli.bench.systems.base import Deviations, initial_weights
from tianji_cli.bench.systems.probe import GAMES, TORCH, VenvBaseline
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task
from tianji_cli.bench.tasks.work import BenchDqn, BenchPpo


class Sb3(VenvBaseline):
    """`PPO`, `DQN`, `SAC` and `TD3` of `stable_baselines3`, with its default `DummyVecEnv`."""

    name = "sb3"
    title = "SB3"
    drivers: ClassVar = dict.fromkeys(("ppo", "dqn", "sac", "td3"), "sb3_driver.py")
    packages = (
        TORCH,
        "stable-baselines3==2.9.2",
        "gymnasium==1.4.0",
        "mujoco==4.0.0",
        "imageio==2.38.1",  # Gymnasium's MuJoCo environments import it
        "ale-py==0.12.1",
        *GAMES,
    )
    modules = (
        *("stable_baselines3=sb3", "torch", "gymnasium", "mujoco", "imageio", "ale_py"),
        "minatar",
    )
    caveats = (
        "SB3 steps all environments in its one process, one after the other, as its documentation"
        " recommends for cheap ones (DummyVecEnv).",
    )

    def deviations(self, task: Task) -> Deviations:
        total = task.workers * task.envs_per_worker
        rows: Deviations = {
            "workers": ("different", f"one process steps {plural(total, 'environment')} and learns")
        }
        if isinstance(task.algorithm, BenchPpo):
            return {**rows, LAG_BOUND: ("different", "0: it collects and learns by turns")}
        rows = {
            **rows,
            **initial_weights(task, "uniform", "PyTorch's own"),
            "rollout_steps": ("different", "learns after every step of all"),
        }
        if isinstance(task.algorithm, BenchDqn):
            return {
                **rows,
                "target_update_period": ("equal", "given in env steps"),
                "double": ("not settable", "off: the next action is the target network's best"),
            }
        return rows
