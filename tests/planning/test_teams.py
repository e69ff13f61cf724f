"""How many learners a team gets: as many as it has policies that can be trained apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.spec import Experiment
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.planning.plan import make_plan
from tianji_cli.planning.teams import num_apart

CLIMBING = """
version: 1
name: climbing
env: {id: Climbing-v0, num_envs: 4}
agents: separate
algorithm: {name: ippo, rollout_steps: 5, batch_steps: 40, minibatch_steps: 20}
policy: environments
stop: {env_steps: 1000}
"""


def experiment(tmp_path: Path, *settings: str) -> Experiment:
    file = tmp_path / "climbing.yaml"
    file.write_text(CLIMBING)
    return load_experiment(file, settings)[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), 2),
        (("groups=2",), 2),
        (("algorithm.name=mappo",), 2),
        (('agents={"row": ["agent_0"], "column": ["agent_1"]}',), 2),
        (('agents={"both": ["agent_*"]}',), 1),
        (("agents=shared",), 1),
        (("agents=null",), 1),
        (("policy=tianji",), 1),
    ],
)
def test_each_policy_that_can_be_trained_apart_has_a_learner(
    tmp_path: Path, settings: tuple[str, ...], expected: int
) -> None:
    assert num_apart(experiment(tmp_path, *settings)) == expected


def test_who_learns_together_has_one_learner(tmp_path: Path) -> None:
    file = tmp_path / "together.yaml"
    hyperparameters = "ippo, rollout_steps: 5, batch_steps: 40, minibatch_steps: 20"
    text = CLIMBING.replace(hyperparameters, "maddpg")
    file.write_text(text + "staleness: {mode: unbounded}\n")
    assert num_apart(load_experiment(file, [])[0]) == 1


def test_an_environment_that_only_hosts_can_make_is_no_hindrance_if_the_groups_are_given(
    tmp_path: Path,
) -> None:
    elsewhere = ("env.id=pettingzoo:nowhere.found_v0",)
    assert num_apart(experiment(tmp_path, *elsewhere, "groups=3")) == 3
    with pytest.raises(ConfigError, match="nowhere") as info:
        num_apart(experiment(tmp_path, *elsewhere))
    assert "groups=N" in info.value.fix


def test_a_plan_has_a_process_for_each_policy_and_the_actors_of_each(tmp_path: Path) -> None:
    box = Host(name="box", connection="local", address="127.0.0.1", ports=None)
    inventory = Inventory(source="hosts.yaml", hosts=(box,))
    wanted = experiment(tmp_path, "actors=3")
    plan = make_plan(wanted, inventory, has_actors_stated=False, num_apart=2)
    roles = {item.process: item.roles for item in plan.placements}
    assert roles["agent-1"] == ("actor-1", "actor-3", "actor-5", "buffer-1", "learner-1")
    assert roles["environment-0"] == ("environment-0", "environment-1", "environment-2")
    assert plan.info("run").num_groups == 2
    assert plan.experiment.actors == 3, "so a resumed run plans the same"
