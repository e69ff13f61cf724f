"""RLlib's PPO, IMPALA or DQN (new API stack) on one task. Runs in RLlib's interpreter.

    python rllib_driver.py job.json

It runs until it is asked to stop (SIGINT or SIGTERM).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recorder import Recorder, recorder_of_process

ENV = "tianji-bench"
IMPALA_REPORT_S = 1
"""How often it reports, and sees that it is to stop; 10 s by default."""
SAMPLED, TRAINED = "num_env_steps_sampled_lifetime", "num_module_steps_trained_lifetime"
OF_AGENTS = "num_agent_steps_sampled_lifetime"
"""By agent; a step of an agent is a sample."""


def ppo_settings(hp: dict[str, Any], _num_workers: int) -> dict[str, Any]:
    """PPO's hyperparameters in RLlib's names."""
    return {
        "lambda_": hp["gae_lambda"],
        "clip_param": hp["clip_range"],
        "entropy_coeff": hp["entropy_coefficient"],
        "vf_loss_coeff": hp["value_coefficient"],
        "vf_clip_param": float("inf"),  # on by default; no other system has it
        "use_kl_loss": False,  # likewise
        "kl_coeff": 0.0,
        "train_batch_size_per_learner": hp["batch_steps"],
        "minibatch_size": hp["minibatch_steps"],
        "num_epochs": hp["num_epochs"],
    }


def impala_settings(hp: dict[str, Any], _num_workers: int) -> dict[str, Any]:
    """IMPALA's hyperparameters in RLlib's names; its value loss is half a square."""
    return {
        "entropy_coeff": hp["entropy_coefficient"],
        "vf_loss_coeff": 2 * hp["value_coefficient"],
        "train_batch_size_per_learner": hp["batch_steps"],
    }


def dqn_settings(hp: dict[str, Any], num_workers: int) -> dict[str, Any]:
    """DQN's hyperparameters in RLlib's names.

    RLlib's `training_intensity` counts one worker more than collect, so it is lowered by as much.
    """
    until = hp["min_replay_size"], hp["min_replay_size"] + hp["epsilon_decay_env_steps"]
    first, last = hp["epsilon_initial"], hp["epsilon_final"]
    return {
        "train_batch_size_per_learner": hp["batch_size"],
        "training_intensity": hp["replay_ratio"] * num_workers / (num_workers + 1),
        "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": hp["replay_capacity"]},
        "num_steps_sampled_before_learning_starts": hp["min_replay_size"],
        "target_network_update_freq": round(
            hp["target_update_period"] * hp["batch_size"] / hp["replay_ratio"]
        ),  # in env steps
        "tau": 1.0,
        "epsilon": [(0, first), (until[0], first), (until[1], last)],
        "double_q": True,
        "dueling": False,
        "n_step": 1,
        "num_atoms": 1,
        "noisy": False,
        "td_error_loss_fn": "huber",
    }


def settings_of(task: dict[str, Any]) -> dict[str, Any]:
    """All hyperparameters in RLlib's names."""
    hp = task["algorithm"]
    own = {"ppo": ppo_settings, "impala": impala_settings, "dqn": dqn_settings}[hp["name"]]
    return {
        "lr": hp["learning_rate"],
        "gamma": hp["discount"],
        "grad_clip": hp["max_gradient_norm"],
        "grad_clip_by": "global_norm",
        **own(hp, task["workers"]),
    }


def network_of(network: dict[str, Any]) -> dict[str, Any]:
    """RLlib's own layers where it has the same ones, else a module with the task's."""
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    if network["name"] != "mlp":
        from rllib_modules import SharedTrunk

        return {"rl_module_spec": RLModuleSpec(module_class=SharedTrunk, model_config=network)}
    model_config = DefaultModelConfig(
        fcnet_hiddens=list(network["hidden_sizes"]),
        fcnet_activation=network["activation"],
        vf_share_layers=False,
    )
    return {"model_config": model_config}


def config_of(task: dict[str, Any], seed: int) -> Any:  # noqa: ANN401 - Ray has no types here
    """RLlib's own configuration object; what is not named here is RLlib's default."""
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.impala import IMPALAConfig
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    def make(_config: Any) -> Any:  # noqa: ANN401
        from counted_env import make_counted

        return make_counted(task["env"])

    register_env(ENV, make)
    name = task["algorithm"]["name"]
    reports = {"min_time_s_per_iteration": IMPALA_REPORT_S} if name == "impala" else {}
    return (
        {"ppo": PPOConfig, "impala": IMPALAConfig, "dqn": DQNConfig}[name]()
        .environment(ENV)
        .env_runners(
            num_env_runners=task["workers"],
            num_envs_per_env_runner=task["envs_per_worker"],
            rollout_fragment_length=task["rollout_steps"],
            batch_mode="truncate_episodes",
        )
        .learners(num_learners=0)
        .training(**settings_of(task))
        .rl_module(**network_of(task["network"]))
        .reporting(**reports)
        .debugging(seed=seed, log_level="ERROR")
    )


def report(result: dict[str, Any], recorder: Recorder, raw: Any) -> None:  # noqa: ANN401
    """Keeps RLlib's own words about an iteration, and its own counts."""
    learner = result.get("learners", {}).get("__all_modules__", {})
    runners = result.get("env_runners", {})
    counts = {
        "training_iteration": result.get("training_iteration"),
        "num_env_steps_sampled_lifetime": runners.get(SAMPLED),
        "num_module_steps_trained_lifetime": learner.get(TRAINED),
        "num_training_step_calls_per_iteration": result.get(
            "num_training_step_calls_per_iteration"
        ),
        "episode_return_mean": runners.get("episode_return_mean"),
        "time_total_s": result.get("time_total_s"),
    }
    raw.write(json.dumps({name: _plain(value) for name, value in counts.items()}) + "\n")
    raw.flush()
    sampled = int(_plain(runners.get(SAMPLED)) or 0)
    recorder.claimed(sampled)
    num_agents = sum(map(float, runners.get(OF_AGENTS, {}).values())) / max(sampled, 1) or 1.0
    recorder.trained(sampled, round((_plain(learner.get(TRAINED)) or 0) / num_agents), 0)


def _plain(value: Any) -> float | None:  # noqa: ANN401
    return None if value is None else float(value)


def main(config_of: Callable[[dict[str, Any], int], Any] = config_of) -> None:
    """Trains until a signal comes; a second one ends at once.

    Args:
        config_of: RLlib's configuration of a task with a seed.
    """
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    task = job["task"]
    import ray

    stopping: list[int] = []
    recorder = recorder_of_process("learner")
    recorder.phase("imported")
    ray.init(
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        num_cpus=max(os.cpu_count() or 1, task["workers"] + 1),
        num_gpus=0,
        _temp_dir=job["scratch"],
        log_to_driver=False,
        logging_level="ERROR",
    )
    recorder.phase("ray started")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    algorithm = config_of(task, job["seed"]).build_algo()
    recorder.phase("built")
    with Path(os.environ["TIANJI_BENCH_RAW"], "rllib-results.txt").open("a") as raw:
        while not stopping:
            report(algorithm.train(), recorder, raw)
    algorithm.stop()
    ray.shutdown()
    recorder.phase("stopped")


if __name__ == "__main__":
    main()
