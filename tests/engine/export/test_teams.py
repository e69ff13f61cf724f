"""A team's policy outside TianJi: every algorithm, who comes and goes, how its world is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from team_envs import NUM_CHOICES, NUM_STEPS

from engine.errors import ConfigError
from engine.export.ports import ports_of
from engine.export.precision import in_single_precision
from engine.export.recording import record
from engine.export.team_recipe import team_action, team_observed, team_recipe_of
from engine.spec import EnvSpec
from tests.helpers.engine.exports import exported, lively
from tests.helpers.engine.trained_runs import experiment_of
from tests.helpers.engine.trained_teams import TEAM_ALGORITHMS, convoy_experiment

QUICK = ("maddpg", "qmix")
AGENTS = ("ann", "ben", "cat")


@pytest.mark.parametrize("name", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "algorithm",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in TEAM_ALGORITHMS
    ],
)
def test_every_algorithm(algorithm: str, name: str, tmp_path: Path) -> None:
    trained = lively(tmp_path, convoy_experiment(algorithm))
    done = exported(tmp_path, trained, name, record(in_single_precision(trained)))
    assert done.agreement.observations == 256
    inputs = [port.name for port in done.ports.inputs]
    assert inputs == [
        *("observation.agents.ann.observation", "observation.agents.ben.observation"),
        *("observation.agents.cat.camera", "observation.agents.cat.gear", "action_mask"),
    ]
    recorded, first = np.load(tmp_path / name / "recorded.npz"), 0
    assert recorded["starts"][:: NUM_STEPS + 1].all()
    for agent in AGENTS:
        chosen = recorded[f"action.{agent}"][..., None]
        mask = recorded["action_mask"][..., first : first + NUM_CHOICES[agent]]
        assert np.take_along_axis(mask, chosen, -1).all()
        first += NUM_CHOICES[agent]
    assert len(np.unique(recorded["action.ann"])) > 1


@pytest.mark.parametrize("algorithm", ["ippo", pytest.param("qmix", marks=pytest.mark.slow)])
def test_memory(algorithm: str, tmp_path: Path) -> None:
    trained = lively(tmp_path, convoy_experiment(algorithm, core="gru"))
    done = exported(tmp_path, trained, "torchscript", record(in_single_precision(trained)))
    assert done.ports.state is not None
    assert "observation.team.present" in team_observed(trained, done.ports)
    assert done.agreement.largest_difference <= 1e-3


def test_the_layers_of_a_team_are_refused_in_plain_pytorch(tmp_path: Path) -> None:
    trained = lively(tmp_path, convoy_experiment("maddpg"))
    with pytest.raises(ConfigError, match=r"which model\.py cannot have") as error:
        exported(tmp_path, trained, "safetensors")
    assert error.value.fix is not None
    assert "onnx or torchscript" in error.value.fix


def test_a_user_s_own_environment_is_made_by_its_function(tmp_path: Path) -> None:
    trained = lively(tmp_path, convoy_experiment("maddpg"))
    recipe, ports = team_recipe_of(trained.experiment), ports_of(trained)
    assert (recipe.imports, recipe.makes) == (
        ("import team_envs",),
        ("env = team_envs.convoy()",),
    )
    assert recipe.is_team
    world: dict[str, object] = {"np": np}
    exec("\n".join((*recipe.imports, *recipe.makes)), world)
    exec("observation, info = env.reset(seed=0)", world)
    given = {name: eval(text, world) for name, text in team_observed(trained, ports).items()}
    shapes = {port.name: ((1, *port.shape), port.dtype) for port in ports.inputs}
    assert {name: (value.shape, str(value.dtype)) for name, value in given.items()} == shapes
    assert team_action(trained, ports).startswith('{"ann": outputs["action.ann"][0], ')


@pytest.mark.parametrize(
    ("env_id", "kwargs", "lines"),
    [
        (
            "pettingzoo:mpe2.simple_spread_v3",
            {"N": 2},
            ("import mpe2.simple_spread_v3", "env = mpe2.simple_spread_v3.parallel_env(N=2)"),
        ),
        (
            "pettingzoo:classic.tictactoe_v3",
            {},
            (
                "import pettingzoo.classic.tictactoe_v3",
                "from pettingzoo.utils.conversions import turn_based_aec_to_parallel",
                "env = turn_based_aec_to_parallel(pettingzoo.classic.tictactoe_v3.env())",
            ),
        ),
        ("TwoStep-v0", {}, ("env = ...  # TwoStep-v0",)),
        (
            "lbforaging:Foraging-5x5-2p-1f-v3",
            {},
            (
                "import gymnasium",
                'env = gymnasium.make("lbforaging:Foraging-5x5-2p-1f-v3")',
            ),
        ),
    ],
    ids=["parallel", "in turn", "built in", "tuples"],
)
def test_how_environments_are_made(
    env_id: str, kwargs: dict[str, int], lines: tuple[str, ...]
) -> None:
    for package in ("pettingzoo.classic.tictactoe_v3", "mpe2", "lbforaging"):
        pytest.importorskip(package)
    env = EnvSpec(id=env_id, kwargs=kwargs)
    experiment = replace(experiment_of("id: x"), env=env, modules=())
    recipe = team_recipe_of(experiment)
    assert (*recipe.imports, *recipe.makes) == lines
    assert recipe.is_team == (not env_id.startswith("lbforaging"))
