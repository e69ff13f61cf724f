"""Hyperparameters of a task in SB3's names. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any


def ppo_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """PPO's hyperparameters in SB3's names."""
    hp = task["algorithm"]
    return {
        "n_steps": hp["batch_steps"] // num_envs,
        "batch_size": hp["minibatch_steps"],
        "n_epochs": hp["num_epochs"],
        "gae_lambda": hp["gae_lambda"],
        "clip_range": hp["clip_range"],
        "ent_coef": hp["entropy_coefficient"],
        "vf_coef": hp["value_coefficient"],
        "max_grad_norm": hp["max_gradient_norm"],
    }


def replay_settings(hp: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """Hyperparameters of every algorithm with a replay store.

    SB3 states the replay ratio as optimiser steps after so many steps of all environments.
    """
    ratio = Fraction(hp["replay_ratio"]).limit_denominator(1000) / hp["batch_size"]
    rate = ratio * num_envs  # optimiser steps for each step of all environments
    return {
        "buffer_size": hp["replay_capacity"],
        "learning_starts": hp["min_replay_size"],
        "batch_size": hp["batch_size"],
        "train_freq": rate.denominator,
        "gradient_steps": rate.numerator,
    }


def dqn_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """DQN's hyperparameters in SB3's names; the target's period is in env steps there."""
    hp = task["algorithm"]
    return {
        **replay_settings(hp, num_envs),
        "target_update_interval": round(
            hp["target_update_period"] * hp["batch_size"] / hp["replay_ratio"]
        ),
        "max_grad_norm": hp["max_gradient_norm"],
        "exploration_initial_eps": hp["epsilon_initial"],
        "exploration_final_eps": hp["epsilon_final"],
    }


def sac_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """SAC's hyperparameters in SB3's names."""
    hp = task["algorithm"]
    return {
        **replay_settings(hp, num_envs),
        "tau": hp["target_update_rate"],
        "ent_coef": "auto",
        "target_entropy": "auto",
    }


def td3_settings(task: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """TD3's hyperparameters in SB3's names, but for the noise of actions."""
    hp = task["algorithm"]
    return {
        **replay_settings(hp, num_envs),
        "tau": hp["target_update_rate"],
        "policy_delay": hp["policy_delay"],
        "target_policy_noise": hp["policy_noise"],
        "target_noise_clip": hp["policy_noise_limit"],
    }


SETTINGS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "ppo": ppo_settings,
    "dqn": dqn_settings,
    "sac": sac_settings,
    "td3": td3_settings,
}
