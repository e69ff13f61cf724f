"""Whole runs of teams: agents that come and go, scaled rewards, equal seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from engine.blueprint import make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError
from engine.executors.actor import ActorExecutor
from engine.roles.commands import CollectRollout, LoadWeights
from engine.roles.events import RolloutCollected
from engine.rollout import Weights
from engine.spec import EnvSpec, Experiment, StopSpec
from tests.helpers.engine.inline_runs import run
from tests.helpers.engine.scripted_team import Scene, ScriptedTeam

SCENES = [
    Scene(["a", "b"]),
    Scene(["a", "b", "c"], {"a": 1.0, "b": 2.0}),
    Scene(["b", "c"], {"a": 5.0}, terminated=["a"]),
    Scene([], {"b": 1.0, "c": 4.0}, truncated=["b", "c"]),
]
EARNED = [[0, 0, 0], [1, 2, 0], [5, 0, 0], [0, 1, 4]]
"""By each agent, in each moment of an episode."""


@pytest.fixture
def script(monkeypatch) -> None:
    module = ModuleType("scripted_teams")
    module.relay = lambda: ScriptedTeam("abc", SCENES)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scripted_teams", module)


def experiment(env_id: str, **env: object) -> Experiment:
    algorithm = {"name": "ippo", "rollout_steps": 8, "batch_steps": 32, "minibatch_steps": 16}
    return Experiment(
        name="team",
        env=EnvSpec(id=env_id, num_envs=2, **env),  # type: ignore[arg-type]
        algorithm=algorithm,
        policy="local",
        actors=1,
        stop=StopSpec(env_steps=64),
    )


@pytest.mark.usefixtures("script")
def test_a_rollout_holds_who_was_there_and_what_they_earned_scaled():
    scaled = experiment("scripted_teams:relay", reward_scale=0.5)
    blueprint = make_blueprint(scaled)
    actor = ActorExecutor(blueprint, 0, 0, ManualClock(0.0))
    actor.perform(LoadWeights(Weights(0, np.zeros(blueprint.weights.num_bytes, np.uint8))))
    actor.perform(CollectRollout(0))
    (collected,) = actor.advance(float("inf"))
    actor.close()
    assert isinstance(collected, RolloutCollected)
    views = blueprint.layout.views(collected.rollout.buffer)
    moments = [EARNED[moment % 4] for moment in range(9)]
    assert views["observation.team.reward"][:, 0].tolist() == (np.array(moments) / 2).tolist()
    assert views["reward"][:, 1].tolist() == [sum(moment) / 2 for moment in moments[1:]]
    present = views["observation.team.present"][:5, 0].tolist()
    assert present == [[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 1, 1], [1, 1, 0]]
    assert views["valid"][:, 0].tolist() == [True, True, True, False] * 2
    assert views["truncated"][:, 0].tolist() == [False, False, True, False] * 2
    assert not views["terminated"].any()
    assert [episode.episode_return for episode in collected.episodes] == [13.0] * 4  # as earned


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("env_id", ["scripted_teams:relay", "pettingzoo:mpe2.simple_v3"])
def test_equal_seeds_give_equal_traces(env_id, tmp_path: Path):
    if env_id.startswith("pettingzoo"):
        pytest.importorskip("mpe2")
    first, second = (run(tmp_path / name, experiment(env_id)) for name in ("one", "two"))
    assert first.rows_without_times() == second.rows_without_times()
    assert first.summary.env_steps_consumed >= 64


def test_masks_in_infos_are_found_by_the_rehearsal(tmp_path: Path, monkeypatch):
    masks = {name: {"action_mask": [0, 1, 0]} for name in "ab"}
    scenes = [Scene("ab", infos=masks), Scene("ab", {"a": 1.0}, infos=masks), Scene("")]
    copies: list[ScriptedTeam] = []

    def make() -> ScriptedTeam:
        copies.append(ScriptedTeam("ab", scenes))
        return copies[-1]

    module = ModuleType("masked_teams")
    module.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "masked_teams", module)
    masked = experiment("masked_teams:make", num_splits=2)
    blueprint = make_blueprint(masked, rehearses=True)
    assert blueprint.spaces.has_action_mask
    blueprint = make_blueprint(masked, has_action_mask=True)
    actor = ActorExecutor(blueprint, 0, 0, ManualClock(0.0))
    actor.perform(LoadWeights(Weights(0, np.zeros(blueprint.weights.num_bytes, np.uint8))))
    actor.perform(CollectRollout(0))
    actor.advance(float("inf"))
    actor.close()
    chosen = [action for copy in copies for step in copy.chosen for action in step.values()]
    assert len(chosen) > 20
    assert {int(action) for action in chosen} == {1}


def test_who_is_for_one_agent_refuses_a_team_and_the_other_way_round():
    team = experiment("TwoStep-v0")
    alone = {**team.algorithm, "name": "ppo"}
    with pytest.raises(ConfigError, match="ppo is for one agent; the environment has 2") as raised:
        make_blueprint(msgspec.structs.replace(team, algorithm=alone))
    assert "ippo, mappo" in raised.value.fix
    with pytest.raises(ConfigError, match="ippo is for several agents; the environment has one"):
        make_blueprint(experiment("CartPole-v1"))
