"""Small experiments, and batches for their learners."""

from __future__ import annotations

import msgspec
import numpy as np
import torch

from engine.blueprint import Blueprint
from engine.rollout import Layout
from engine.spec import CheckpointSpec, EnvSpec, Experiment, NetworkSpec, StalenessSpec
from engine.testing import make_experiment

ALGORITHMS = {
    "ppo": {"normalize_reward": True},
    "impala": {},
    "dqn": {"rollout_steps": 8, "min_replay_size": 64, "target_update_period": 3},
    "sac": {"batch_size": 8, "updates_per_batch": 2, "min_replay_size": 64, "replay_ratio": 1},
    "td3": {"batch_size": 8, "updates_per_batch": 2, "min_replay_size": 64, "replay_ratio": 1},
}
REPLAYED = ("dqn", "sac", "td3")


def experiment(name: str = "ppo", keep: int = 3) -> Experiment:
    env = EnvSpec(id="CartPole-v1", num_envs=4)
    if name in ("sac", "td3"):
        env = EnvSpec(id="Pendulum-v1", num_envs=4, kwargs={"max_episode_steps": 50})
    base = make_experiment(
        env=env,
        checkpoint=CheckpointSpec(keep=keep),
        staleness=StalenessSpec(mode="unbounded" if name in REPLAYED else "block"),
    )
    own = base.algorithm if name == "ppo" else {}
    algorithm = {**own, "name": name, **ALGORITHMS[name]}
    if name == "impala":
        algorithm |= {"rollout_steps": 10, "batch_steps": 80}
    network = NetworkSpec(hidden_sizes=(8,), normalize_observation=True)
    return msgspec.structs.replace(base, algorithm=algorithm, network=network)


def batch_of(blueprint: Blueprint, number: int) -> dict[str, torch.Tensor]:
    """Something to learn from; equal numbers give equal batches."""
    layout = blueprint.samples
    if blueprint.replay is None:
        rollout = blueprint.layout
        width = rollout.num_envs * blueprint.rollouts_per_batch
        layout = Layout(rollout.fields, rollout.num_steps, width)
    random = np.random.default_rng(number)
    batch = {}
    for name, array in layout.views(layout.allocate()).items():
        array[...] = random.integers(0, 2, array.shape)
        batch[name] = torch.from_numpy(array)
    return batch
