"""XingTian's own configuration of a task (pure functions)."""

from __future__ import annotations

from pathlib import Path

from tianji_cli.bench.tasks.suite import Task
from tianji_cli.bench.tasks.work import ATARI, BenchDqn, BenchPpo

SHAPES = {
    "CartPole-v1": ((4,), 2),
    "Acrobot-v1": ((6,), 3),
    "MountainCar-v0": ((2,), 3),
    "ALE/Pong-v5": ((84, 84, 4), 6),
    "ALE/Boxing-v5": ((84, 84, 4), 18),
    "ALE/Assault-v5": ((84, 84, 4), 7),
}
"""Shape of an observation and number of actions, which the configuration must state."""


def configuration(task: Task, archive: Path) -> dict[str, object]:
    """The file that `xt.main` reads; what is not named here is its default.

    Args:
        task: One of whose environment the `SHAPES` are known.
        archive: Where it may write its own records.
    """
    is_atari = task.env.namespace == ATARI
    name = _gym_name(task.env.id)
    agents = {"ppo": ("AtariPpo" if is_atari else "PPO"), "dqn": "CartpoleDqn"}
    return {
        "alg_para": {"alg_name": task.algorithm_name.upper(), "alg_config": _algorithm(task)},
        "env_para": {
            "env_name": "AtariEnv" if is_atari else "GymEnv",
            "env_info": {"name": name, "vision": False},
        },
        "agent_para": {
            "agent_name": agents[task.algorithm_name],
            "agent_num": 1,
            "agent_config": _agent(task),
        },
        "model_para": {"actor": _actor(task)},
        "env_num": task.workers,
        "speedup": False,
        "benchmark": {"log_interval_to_train": 1, "archive_root": str(archive)},
    }


def _gym_name(env_id: str) -> str:
    """`ALE/Pong-v5` is `PongNoFrameskip-v4` there; others have the same name."""
    game, _, _ = env_id.removeprefix(f"{ATARI}/").rpartition("-v")
    return f"{game}NoFrameskip-v4" if env_id.startswith(f"{ATARI}/") else env_id


def _algorithm(task: Task) -> dict[str, object]:
    hp = task.algorithm
    common = {"process_num": 1, "save_model": False}
    if isinstance(hp, BenchPpo):
        return {**common, "prepare_times_per_train": task.workers}
    assert isinstance(hp, BenchDqn), f"XingTian is given no {task.algorithm_name}"
    return {
        **common,
        # one transition is one message, so many of them make a batch due
        "prepare_times_per_train": round(hp.batch_size / hp.replay_ratio),
        "learning_starts": hp.min_replay_size,
        "double_dqn": True,
        "BATCH_SIZE": hp.batch_size,
        "BUFFER_SIZE": hp.replay_capacity,
        "GAMMA": hp.discount,
        "TARGET_UPDATE_FREQ": hp.target_update_period,
    }


def _agent(task: Task) -> dict[str, object]:
    hp = task.algorithm
    agent: dict[str, object] = {"max_steps": task.rollout_steps, "complete_step": 10**12}
    if isinstance(hp, BenchDqn):  # each explorer lowers its epsilon by its own steps
        agent["episode_count"] = hp.epsilon_decay_env_steps // task.workers
    return agent


def _actor(task: Task) -> dict[str, object]:
    """Network and optimiser."""
    shape, num_actions = SHAPES[task.env.id]
    hp, network = task.algorithm, task.network
    is_image = len(shape) == 3
    common = {"state_dim": list(shape), "action_dim": num_actions}
    if isinstance(hp, BenchDqn):
        sizes = network.hidden_sizes
        model = {"HIDDEN_SIZE": sizes[0], "NUM_LAYERS": len(sizes), "LR": hp.learning_rate}
        return {"model_name": "DqnMlp", **common, "model_config": model}
    assert isinstance(hp, BenchPpo), f"XingTian is given no {task.algorithm_name}"
    model_config = {
        "BATCH_SIZE": hp.minibatch_steps,
        "CRITIC_LOSS_COEF": 2 * hp.value_coefficient,  # its loss is half the squared error
        "ENTROPY_LOSS": hp.entropy_coefficient,
        "LR": hp.learning_rate,
        "LOSS_CLIPPING": hp.clip_range,
        "MAX_GRAD_NORM": hp.max_gradient_norm,
        "NUM_SGD_ITER": hp.num_epochs,
        "VF_CLIP": 1e9,
        "SUMMARY": False,
        "VF_SHARE_LAYERS": is_image,
        "activation": "relu" if is_image else network.activation,
        "hidden_sizes": [512] if is_image else list(network.hidden_sizes),
    }
    return {
        "model_name": "PpoCnn" if is_image else "PpoMlp",
        **common,
        "input_dtype": "uint8" if is_image else "float32",
        "model_config": model_config,
    }
