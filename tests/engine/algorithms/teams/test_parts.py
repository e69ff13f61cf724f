"""Learners that train a policy of a team each learn what one learner of all policies learns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError
from engine.executors.actor import ActorExecutor
from engine.executors.learner import LearnerExecutor
from engine.executors.reducer import ReducerExecutor
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.progress import Resumed, RunCounters
from engine.roles.commands import (
    BlendModel,
    CollectRollout,
    ExportModel,
    ExportWeights,
    LoadWeights,
    MergeModel,
    SaveCheckpoint,
    Update,
)
from engine.roles.events import CheckpointWritten, ModelExported, RolloutCollected, Updated
from engine.rollout import Rollout
from engine.spec import Experiment

CLIMBING = {
    "name": "climbing",
    "env": {"id": "Climbing-v0", "num_envs": 4},
    "agents": "separate",
    "algorithm": {
        **{"name": "ippo", "rollout_steps": 6, "batch_steps": 24, "minibatch_steps": 12},
        **{"num_epochs": 2, "max_gradient_norm": 0.05, "normalize_reward": True},
    },
    "network": {"hidden_sizes": [8], "normalize_observation": True},
    "learner": {"compile": "off"},
    "stop": {"env_steps": 1000},
}


def experiment(**changes: object) -> Experiment:
    return msgspec.convert({**CLIMBING, **changes}, Experiment)


def apart() -> Blueprint:
    wanted = experiment(policy="environments", actors=1)
    cut = build_graph(read_policy("environments"), wanted, num_apart=2).cut
    return make_blueprint(wanted, cut)


class Run:
    """One learner of all, and one of each policy with their reducer; all get the same rollouts."""

    def __init__(self, tmp_path: Path, resumed: Path | None = None) -> None:
        clock = ManualClock(1.0)
        self.joint = make_blueprint(experiment(policy="local", actors=1))
        self.apart = apart()
        found = None
        if resumed is not None:
            counters = RunCounters(elapsed_s=1.0)
            origin = Resumed(
                run_id="run",
                checkpoint=resumed.name,
                version=1,
                updates=0,
                counters=counters,
                resumes=1,
            )
            found = origin, resumed
        self.whole = LearnerExecutor(self.joint, tmp_path / "whole", clock, resumed=found)
        self.parts = [
            LearnerExecutor(self.apart.of_group(group), tmp_path / f"{group}", clock, resumed=found)
            for group in range(2)
        ]
        self.learners = [self.whole, *self.parts]
        self.reducer = ReducerExecutor(self.apart, resumed)
        self.actor = ActorExecutor(self.joint, 0, 0, clock)
        (first, *_) = self.whole.perform(ExportWeights(0))
        self.actor.perform(LoadWeights(first.weights))  # type: ignore[union-attr]

    def rollout(self) -> Rollout:
        self.actor.perform(CollectRollout(0))
        while True:
            for event in self.actor.advance(float("inf")):
                assert isinstance(event, RolloutCollected)
                return event.rollout

    def train(self, count: int) -> None:
        for _ in range(count):
            rollout = self.rollout()
            for learner in self.learners:
                (event,) = learner.perform(Update((rollout,)))
                assert isinstance(event, Updated)

    def exchange(self) -> None:
        for group in (0, 1, 0):  # the first also gets what the second has learnt
            (offered,) = self.parts[group].perform(ExportModel())
            assert isinstance(offered, ModelExported)
            order = MergeModel(group, offered.weights, {}, has_answer=True)
            (merged,) = self.reducer.perform(order)
            self.parts[group].perform(BlendModel(merged.weights))  # type: ignore[union-attr]

    def saved(self) -> list[dict[str, Tensor]]:
        """The tensors of a checkpoint of each learner."""
        found = []
        for learner in self.learners:
            command = SaveCheckpoint(1, RunCounters(elapsed_s=1.0))
            (written,) = learner.perform(command)
            assert isinstance(written, CheckpointWritten)
            assert not written.error
            directory = learner._checkpoints
            assert directory is not None
            found.append(load_file(next(directory.glob("*.safetensors"))))
        return found


def check_equal(saved: list[dict[str, Tensor]]) -> None:
    whole, *parts = saved
    for part in parts:
        assert part.keys() == whole.keys()
        for name, tensor in whole.items():
            torch.testing.assert_close(part[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_they_learn_what_one_learner_of_all_policies_learns(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(3):
        run.train(2)
        run.exchange()
    saved = run.saved()
    check_equal(saved)
    assert all(
        float(saved[0][f"optimizer.{name}"].abs().max()) > 0 for name in ("mean", "variance")
    )
    assert float(saved[0]["network.policies.agent_1.returns.count"]) > 0


def test_between_exchanges_nothing_of_another_part_moves(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(2)
    run.exchange()
    before = [part._vector.clone() for part in run.parts]
    run.train(3)
    for group, (part, old) in enumerate(zip(run.parts, before, strict=True)):
        moved = (part._vector != old).nonzero().flatten()
        assert len(moved) > 50
        names = [
            name for name, p in part._state.network.named_parameters() for _ in range(p.numel())
        ]
        assert all(names[index].startswith(f"policies.agent_{group}.") for index in moved.tolist())


@pytest.mark.parametrize("writer", ["whole", "0", "1"])
def test_any_of_their_checkpoints_is_resumed_by_one_learner_or_by_each(
    tmp_path: Path, writer: str
) -> None:
    run = Run(tmp_path)
    run.train(3)
    run.exchange()
    run.saved()
    again = Run(tmp_path / "again", resumed=tmp_path / writer / "v0000000001.json")
    again.train(3)
    again.exchange()
    check_equal(again.saved())


def test_policies_that_are_trained_together_are_not_taken_apart() -> None:
    wanted = experiment(
        algorithm={"name": "maddpg"}, policy="environments", staleness={"mode": "unbounded"}
    )
    cut = build_graph(read_policy("environments"), wanted, num_apart=2).cut
    with pytest.raises(ConfigError, match="maddpg trains the policies of a team together"):
        make_blueprint(wanted, cut)
    cut = build_graph(read_policy("environments"), experiment(), num_apart=3).cut
    with pytest.raises(ConfigError, match="3 learners for a team with 2"):
        make_blueprint(experiment(), cut)
