"""Hyperparameters of a task in rejax's names. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FOREVER = 2**30
"""Env steps, which rejax wants to know for its schedule of epsilon alone."""


def ppo_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """PPO's hyperparameters in rejax's names; its value loss is half a square."""
    hp, network = task["algorithm"], task["network"]
    return {
        "num_steps": hp["batch_steps"] // num_envs,
        "num_minibatches": hp["batch_steps"] // hp["minibatch_steps"],
        "num_epochs": hp["num_epochs"],
        "gae_lambda": hp["gae_lambda"],
        "clip_eps": hp["clip_range"],
        "ent_coef": hp["entropy_coefficient"],
        "vf_coef": 2 * hp["value_coefficient"],
        "max_grad_norm": hp["max_gradient_norm"],
        "agent_kwargs": {
            "activation": network["activation"],
            "hidden_layer_sizes": network["hidden_sizes"],
        },
    }


def replay_settings(hp: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """Hyperparameters of every algorithm with a replay store."""
    return {
        "buffer_size": hp["replay_capacity"],
        "fill_buffer": hp["min_replay_size"],
        "batch_size": hp["batch_size"],
        "num_epochs": round(hp["replay_ratio"] * num_envs / hp["batch_size"]),
    }


def dqn_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """DQN's hyperparameters in rejax's names; the target's period is in env steps there."""
    hp = task["algorithm"]
    return {
        **replay_settings(hp, num_envs),
        "target_update_freq": round(
            hp["target_update_period"] * hp["batch_size"] / hp["replay_ratio"]
        ),
        "polyak": 0.0,
        "ddqn": True,
        "eps_start": hp["epsilon_initial"],
        "eps_end": hp["epsilon_final"],
        "exploration_fraction": hp["epsilon_decay_env_steps"] / FOREVER,
        "max_grad_norm": hp["max_gradient_norm"],
        "agent_kwargs": {"activation": task["network"]["activation"]},
    }


def sac_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """SAC's hyperparameters in rejax's names."""
    hp, network = task["algorithm"], task["network"]
    return {
        **replay_settings(hp, num_envs),
        "target_update_freq": 1,
        "polyak": 1 - hp["target_update_rate"],
        "hidden_layer_sizes": network["hidden_sizes"],
        "agent_kwargs": {"activation": network["activation"]},
    }


SETTINGS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "ppo": ppo_settings,
    "dqn": dqn_settings,
    "sac": sac_settings,
}
