"""Stable-Baselines3's PPO, DQN, SAC or TD3 on one task. Runs in its interpreter.

    python sb3_driver.py job.json

It runs until it is asked to stop (SIGINT or SIGTERM).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counted_env import make_counted
from recorder import Recorder, recorder_of_process
from sb3_settings import SETTINGS
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from torch_nets import ACTIVATIONS, trunk

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN, "sac": SAC, "td3": TD3}
FOREVER = 10**12
"""Env steps; the harness stops it long before."""
REPORT_S = 0.1


class Trunk(BaseFeaturesExtractor):  # type: ignore[misc]
    """The task's convolutions; SB3's own differ from some of them."""

    def __init__(self, space: Any, network: dict[str, Any]) -> None:  # noqa: ANN401
        inner, num_features = trunk(network, space.shape)
        super().__init__(space, num_features)
        self.inner = inner

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.inner(observations)
        return features


def policy_settings(network: dict[str, Any], algorithm: str) -> dict[str, Any]:
    """Its own layers where it has the same ones, else the task's as its extractor of features."""
    if network["name"] == "mlp":
        activation: type[nn.Module] = ACTIVATIONS[network["activation"]]
        settings: dict[str, Any] = {
            "net_arch": list(network["hidden_sizes"]),
            "activation_fn": activation,
        }
        is_orthogonal = network["initialization"] == "orthogonal"
        return {**settings, "ortho_init": is_orthogonal} if algorithm == "ppo" else settings
    return {
        "net_arch": [],
        "features_extractor_class": Trunk,
        "features_extractor_kwargs": {"network": network},
    }


def epsilon_after_warm_up(hp: dict[str, Any]) -> Callable[[float], float]:
    """DQN's schedule, as a function of the share of `FOREVER` that is still to come."""

    def epsilon(progress_remaining: float) -> float:
        since = round((1 - progress_remaining) * FOREVER) - hp["min_replay_size"]
        share = min(1.0, max(0.0, since / hp["epsilon_decay_env_steps"]))
        first, last = hp["epsilon_initial"], hp["epsilon_final"]
        return float(first + share * (last - first))

    return epsilon


def make_algorithm(task: dict[str, Any], seed: int) -> BaseAlgorithm:
    """SB3's algorithm with its environments; what is not named here is SB3's default."""
    hp, num_envs = task["algorithm"], task["workers"] * task["envs_per_worker"]
    envs = DummyVecEnv([lambda: make_counted(task["env"])] * num_envs)
    settings = SETTINGS[hp["name"]](task, num_envs)
    if hp["name"] == "td3":
        shape = envs.action_space.shape
        assert shape is not None
        noise = np.full(shape, hp["exploration_noise"])
        settings["action_noise"] = NormalActionNoise(np.zeros(shape), noise)
    algorithm = ALGORITHMS[hp["name"]](
        "MlpPolicy",
        envs,
        learning_rate=hp["learning_rate"],
        gamma=hp["discount"],
        policy_kwargs=policy_settings(task["network"], hp["name"]),
        seed=seed,
        device="cpu",
        **settings,
    )
    if isinstance(algorithm, DQN):
        algorithm.exploration_schedule = epsilon_after_warm_up(hp)
    return algorithm


class Claims(BaseCallback):  # type: ignore[misc]
    """Records SB3's own counts, and ends the training when a signal has come."""

    def __init__(self, hp: dict[str, Any], recorder: Recorder, stopping: list[int]) -> None:
        super().__init__()
        self._hp = hp
        self._recorder = recorder
        self._stopping = stopping
        self._num_updates = 0
        self._reported_s = 0.0

    def _on_rollout_start(self) -> None:
        """It begins to collect: what it has collected before is trained."""
        now_s = time.monotonic()
        if not self.num_timesteps or now_s - self._reported_s < REPORT_S:
            return
        self._reported_s = now_s
        self._recorder.claimed(self.num_timesteps)
        updates = getattr(self.model, "_n_updates", 0)  # PPO: epochs; others: optimiser steps
        if updates == self._num_updates:
            return
        self._num_updates = updates
        if "num_epochs" in self._hp:
            samples = self.num_timesteps * self._hp["num_epochs"]
            self._recorder.trained(
                self.num_timesteps, samples, samples // self._hp["minibatch_steps"]
            )
        else:
            samples = updates * self._hp["batch_size"]
            self._recorder.trained(round(samples / self._hp["replay_ratio"]), samples, updates)

    def _on_step(self) -> bool:
        return not self._stopping


def main() -> None:
    """Trains until a signal comes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    recorder = recorder_of_process()
    torch.set_num_threads(job["task"]["threads"])
    recorder.phase("imported")
    algorithm = make_algorithm(job["task"], job["seed"])
    recorder.phase("built")
    algorithm.learn(FOREVER, callback=Claims(job["task"]["algorithm"], recorder, stopping))
    recorder.phase("stopped")
    recorder.close()


if __name__ == "__main__":
    main()
