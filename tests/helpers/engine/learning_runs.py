"""Runs that learn something."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.blueprint import make_blueprint
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.spec import (
    CheckpointSpec,
    EnvSpec,
    Experiment,
    NetworkSpec,
    Scalar,
    StalenessSpec,
    StopSpec,
)
from engine.trace.summary import Summary

PPO = {"name": "ppo", "learning_rate": 1e-3}


def make_run(
    algorithm: dict[str, Scalar], env_steps: int, actors: int = 2, **others: object
) -> Experiment:
    is_queue = algorithm["name"] in ("ppo", "impala")
    is_dqn = not is_queue
    return Experiment(
        name="learning",
        seed=1,
        env=EnvSpec(id="CartPole-v1", num_envs=8 if is_queue else 4),
        algorithm=algorithm,
        network=NetworkSpec(activation="relu" if is_dqn else "tanh"),
        policy="local",
        actors=actors,
        staleness=StalenessSpec(mode="unbounded" if is_dqn else "block", max_queued_rollouts=4),
        stop=StopSpec(env_steps=env_steps, return_window=20),
        checkpoint=CheckpointSpec(every_s=None),
        **others,  # type: ignore[arg-type]
    )


def run_inline(experiment: Experiment, directory: Path) -> Summary:
    """Runs it to its end; traces are in `directory / "trace"`."""
    for name in ("trace", "checkpoints"):
        (directory / name).mkdir(parents=True)
    info = RunInfo(run_id="test", num_hosts=1, num_actors=experiment.actors, num_groups=1)
    actors = tuple(f"actor-{i}" for i in range(experiment.actors))
    evaluators = ("evaluator-0",) if experiment.evaluation else ()
    addresses = (*actors, "buffer-0", "learner-0", *evaluators)
    InlineRun(make_blueprint(experiment), info, addresses, directory, lambda _: None).run()
    return msgspec.json.decode((directory / "summary.json").read_bytes(), type=Summary)
