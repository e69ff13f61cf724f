"""Every format with every kind of space, network and memory: what is written acts as the engine
does, which the export itself finds out; and what does not is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from space_envs import ACTIONS, OBSERVATIONS

from engine.algorithms.registry import ALGORITHMS
from engine.export.formats import FORMATS, NUM_KEPT
from engine.export.precision import in_single_precision
from engine.export.recording import record
from engine.layers.cores import CORES
from engine.layers.trunks import TRUNKS
from engine.spec import Experiment
from tests.helpers.engine.exports import exported, lively
from tests.helpers.engine.trained_runs import experiment_of, spaces_experiment
from tests.helpers.engine.trained_teams import TEAM_ALGORITHMS

QUICK = ("torchscript", "safetensors")
SHIPPED = ("mlp", "nature_cnn", "impala_cnn", "minatar_cnn")


def slow(*values: str) -> list[object]:
    """Parameters that are not part of the ordinary suite."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


SQUASHED = ("box", "box of float64", "dict (hybrid)", "nested (hybrid)")
CARTPOLE, PENDULUM = "id: CartPole-v1", "id: Pendulum-v1"


def check(
    root: Path,
    experiment: Experiment,
    names: Sequence[str] = QUICK,
    *,
    varies: bool = True,
    most_sensitive: int = 2,
) -> np.lib.npyio.NpzFile:
    """Exports; a policy that does the same everywhere would show little."""
    trained = lively(root, experiment)
    recording = record(in_single_precision(trained))
    for name in names:
        done = exported(root, trained, name, recording)
        assert done.agreement.observations == 256
        assert done.agreement.sensitive <= most_sensitive
        assert done.agreement.largest_difference <= 1e-3
        recorded = np.load(root / name / "recorded.npz")
        assert recorded["starts"].shape == (NUM_KEPT, 4)
        actions = [recorded[port.name] for port in done.ports.actions]
        assert not varies or any(len(np.unique(values)) > 1 for values in actions)
    return recorded


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_every_observation(observation: str, tmp_path: Path) -> None:
    check(tmp_path, spaces_experiment(observation))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action(action: str, tmp_path: Path) -> None:
    check(tmp_path, spaces_experiment(action=action))


@pytest.mark.parametrize("action", SQUASHED)
def test_squashed_actions(action: str, tmp_path: Path) -> None:
    experiment = spaces_experiment(action=action, env="squash_actions: true")
    check(tmp_path, experiment)


@pytest.mark.parametrize("action", SQUASHED)
def test_actions_in_own_units(action: str, tmp_path: Path) -> None:
    check(tmp_path, spaces_experiment(action=action, env="scale_actions: false"))


@pytest.mark.parametrize("core", ["", *CORES])
@pytest.mark.parametrize("mask", ["info", "observation"])
@pytest.mark.parametrize("algorithm", ["ppo", "dqn", *slow("impala", "apex")])
def test_masks_and_memory(algorithm: str, mask: str, core: str, tmp_path: Path) -> None:
    recorded = check(tmp_path, spaces_experiment(mask=mask, core=core, algorithm=algorithm))
    assert recorded["action_mask"].dtype == np.bool_
    chosen = np.take_along_axis(recorded["action_mask"], recorded["action"][..., None], -1)
    assert chosen.all()
    if core:
        assert (recorded["state"][0] == 0).all()
        goes_on = ~recorded["starts"][1:]
        np.testing.assert_allclose(
            recorded["state"][1:][goes_on], recorded["next_state"][:-1][goes_on], 1e-4, 1e-4
        )
        assert (recorded["state"][1:][~goes_on] == 0).all()


NETWORKS = {
    "normalised": (PENDULUM, "normalize_observation: true", "ppo", ""),
    "normalised, clipped": (
        PENDULUM,
        "normalize_observation: true, observation_limit: 0.25",
        "ppo",
        "",
    ),
    "normalised, unlimited": (
        PENDULUM,
        "normalize_observation: true, observation_limit: null",
        "ppo",
        "",
    ),
    "normalised leaves": ("", "normalize_observation: true", "ppo", ""),
    "relu, deep": (PENDULUM, "hidden_sizes: [8, 8, 8], activation: relu", "impala", ""),
    "linear": (CARTPOLE, "hidden_sizes: []", "dqn", ""),
    "dueling": (CARTPOLE, "", "dqn", "dueling: true"),
    "normalised reward": (PENDULUM, "", "ppo", "normalize_reward: true"),
    "of SAC": (PENDULUM, "normalize_observation: true, activation: relu", "sac", ""),
    "of TD3": (PENDULUM, "hidden_sizes: [8]", "td3", ""),
}


def experiment_with(network: str) -> Experiment:
    """An experiment with one of the networks above."""
    env, keys, algorithm, options = NETWORKS[network]
    if env:
        return experiment_of(env, "", algorithm, keys, options=options)
    keys += ", encoders: {gear: {name: embedding, size: 3}, camera: {name: impala_cnn}}"
    return spaces_experiment("dict", "box", network=keys)


@pytest.mark.parametrize("network", NETWORKS)
def test_settings_of_networks(network: str, tmp_path: Path) -> None:
    check(tmp_path, experiment_with(network), varies=CARTPOLE not in NETWORKS[network])


@pytest.mark.parametrize("trunk", SHIPPED)
@pytest.mark.parametrize("shape", ["[4, 36, 36]", *slow("[36, 44, 3]")])
def test_every_network_on_images(shape: str, trunk: str, tmp_path: Path) -> None:
    env = f"id: Image-v0, kwargs: {{shape: {shape.replace('[', '').replace(']', '')!r}}}"
    check(tmp_path, experiment_of(env, network=f"name: {trunk}"))


def test_everything_that_is_shipped_is_tested() -> None:
    """Others are registered by modules of tests."""
    own = {name for name, entry in ALGORITHMS.items() if entry.make.__module__[:7] == "engine."}
    assert own - set(TEAM_ALGORITHMS) == {"ppo", "impala", "dqn", "apex", "sac", "td3", "ddpg"}
    built = {name for name, entry in TRUNKS.items() if entry.build.__module__[:7] == "engine."}
    assert built == {*SHIPPED}
    assert set(FORMATS) == {"onnx", *QUICK}


@pytest.mark.slow
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_every_observation_in_onnx(observation: str, tmp_path: Path) -> None:
    check(tmp_path, spaces_experiment(observation), ["onnx"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["", "squash_actions: true", "scale_actions: false"])
@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_in_onnx(action: str, how: str, tmp_path: Path) -> None:
    keys = how if action in SQUASHED else ""
    check(tmp_path, spaces_experiment(action=action, env=keys), ["onnx"])


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_settings_of_networks_in_onnx(network: str, tmp_path: Path) -> None:
    check(tmp_path, experiment_with(network), ["onnx"], varies=CARTPOLE not in NETWORKS[network])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("trunk", SHIPPED)
def test_every_network_on_images_in_onnx(trunk: str, precision: str, tmp_path: Path) -> None:
    env = "id: Image-v0, kwargs: {shape: '4, 84, 84'}"
    keys = f"name: {trunk}, precision: {precision}"
    experiment = experiment_of(env, network=keys)
    check(tmp_path, experiment, tuple(FORMATS), most_sensitive=64)  # its outputs are large


@pytest.mark.slow
@pytest.mark.parametrize("core", ["", *CORES])
@pytest.mark.parametrize("algorithm", ["ppo", "impala", "dqn", "apex"])
def test_masks_and_memory_in_onnx(algorithm: str, core: str, tmp_path: Path) -> None:
    check(tmp_path, spaces_experiment(mask="info", core=core, algorithm=algorithm), ["onnx"])
