"""A trained policy as a function: the actions of the evaluator, as the environment takes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from space_envs import ACTIONS, ENV_ID, OBSERVATIONS

import engine
from engine import load_policy
from engine.envs.make import make_vector_env
from engine.envs.observed import Observed
from engine.envs.torch_envs import TORCH_ENVIRONMENTS
from engine.envs.torch_pendulum import TorchPendulum
from engine.errors import ConfigError
from engine.executors.checkpoint import load_network
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.spec import EnvSpec, Experiment
from engine.trained.load import Trained, load_trained
from engine.trained.policy import Policy
from engine.trained.run import TrainedRun, read_trained
from tests.helpers.engine.trained_runs import spaces_experiment, write_run
from tests.helpers.paths import REPOSITORY


def loaded(root: Path, experiment: Experiment) -> Trained:
    return load_trained(read_trained(write_run(root, experiment)))


def play(env: gymnasium.Env[Any, Any], policy: Policy, num_steps: int, sampled: bool) -> None:
    """The environment itself refuses an action that is not exactly one of its space."""
    observation, info = env.reset(seed=1)
    policy.reset()
    for _ in range(num_steps):
        reads_info = policy._trained.spaces.has_action_mask and "action_mask" in info
        mask = info["action_mask"] if reads_info else None
        action = policy(observation, action_mask=mask, sampled=sampled)
        assert env.action_space.contains(action)
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            observation, info = env.reset()
            policy.reset()


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_every_observation_single_and_batched(observation: str, tmp_path: Path) -> None:
    trained = loaded(tmp_path, spaces_experiment(observation))
    policy = Policy(trained)
    space = trained.observation_space
    space.seed(3)
    singles = [space.sample() for _ in range(5)]
    batch = gymnasium.vector.utils.create_empty_array(space, 5)
    batch = gymnasium.vector.utils.concatenate(space, singles, batch)
    actions = policy(batch)
    policy.reset()
    assert actions.tolist() == [int(policy(single)) for single in singles]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("sampled", [False, True])
def test_every_action_is_one_that_the_environment_takes(
    action: str, sampled: bool, tmp_path: Path
) -> None:
    policy = Policy(loaded(tmp_path, spaces_experiment(action=action)))
    env = gymnasium.make(ENV_ID, observation="box", action=action, mask="none")
    play(env, policy, 20, sampled)


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
@pytest.mark.parametrize("sampled", [False, True])
def test_actions_of_reals_are_those_that_the_environment_takes(
    algorithm: str, sampled: bool, tmp_path: Path
) -> None:
    policy = Policy(loaded(tmp_path, spaces_experiment(action="box", algorithm=algorithm)))
    env = gymnasium.make(ENV_ID, observation="box", action="box", mask="none")
    play(env, policy, 20, sampled)


@pytest.mark.parametrize("mask", ["info", "observation"])
@pytest.mark.parametrize("core", ["", "gru", "lstm"])
@pytest.mark.parametrize("algorithm", ["ppo", "impala", "dqn"])
def test_masks_and_memory(mask: str, core: str, algorithm: str, tmp_path: Path) -> None:
    trained = loaded(tmp_path, spaces_experiment(mask=mask, core=core, algorithm=algorithm))
    policy = Policy(trained)
    assert policy.is_recurrent == bool(core)
    env = gymnasium.make(ENV_ID, observation="box", action="discrete", mask=mask)
    for sampled in (False, True):
        play(env, policy, 30, sampled)


@pytest.mark.parametrize("algorithm", ["ppo", "impala", "dqn"])
def test_memory_is_that_of_the_runner(algorithm: str, tmp_path: Path) -> None:
    """Step by step as an evaluator acts in a vector of environments."""
    experiment = spaces_experiment("nested", core="gru", algorithm=algorithm)
    trained = loaded(tmp_path, experiment)
    with torch.no_grad():  # first weights choose nearly the same everywhere
        for parameter in trained.network.parameters():
            parameter.mul_(4.0)
    policy, runner = Policy(trained), trained.runner(2)
    env = make_vector_env(experiment.env)
    of = Observed(env.single_observation_space, trained.spaces, 2, ENV_ID)
    observation, info = env.reset(seed=5)
    starts = np.ones(2, np.bool_)
    seen = set()
    for _ in range(40):
        expected = runner.act(of.arrays(observation, info), starts)
        policy.reset(starts)
        assert policy(observation).tolist() == expected.tolist()
        seen.update(expected.tolist())
        ended = starts
        observation, _, terminated, truncated, info = env.step(expected)
        starts = ended if (terminated | truncated).all() else terminated | truncated
    assert len(seen) > 1


def test_what_it_remembers_changes_its_actions(tmp_path: Path) -> None:
    trained = loaded(tmp_path, spaces_experiment(action="box", core="gru"))
    policy = Policy(trained)
    observation = trained.observation_space.sample()
    first, second = policy(observation), policy(observation)
    policy.reset()
    again = policy(observation)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match="a batch of 3 after one of 1"):
        policy(np.stack([observation] * 3))


def test_equal_seeds_sample_equal_actions(tmp_path: Path) -> None:
    trained = loaded(tmp_path, spaces_experiment(action="box"))
    observation = trained.observation_space.sample()
    policy = Policy(trained, seed=4)
    drawn = [policy(observation, sampled=True) for _ in range(3)]
    policy.seed(4)
    again = [policy(observation, sampled=True) for _ in range(3)]
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(policy(observation), policy(observation))


def test_squashed_actions_stay_squashed(tmp_path: Path) -> None:
    trained = loaded(tmp_path, spaces_experiment(action="box", env="squash_actions: true"))
    plain = loaded(tmp_path / "plain", spaces_experiment(action="box"))
    with torch.no_grad():
        for network in (trained.network, plain.network):
            for parameter in network.parameters():
                parameter.add_(0.5)
    observation = trained.observation_space.sample()
    squashed, clipped = Policy(trained)(observation), Policy(plain)(observation)
    middle, half = 0.5, 2.5
    units = (np.asarray(clipped, np.float64) - middle) / half
    inside = np.abs(units) < 1
    expected = middle + half * np.tanh(units)
    np.testing.assert_allclose(squashed[inside], expected[inside], rtol=1e-5)
    assert (np.abs(squashed - middle) < half).all()


def test_actions_in_own_units_are_only_clipped(tmp_path: Path) -> None:
    trained = loaded(tmp_path, spaces_experiment(action="box", env="scale_actions: false"))
    scaled = loaded(tmp_path / "scaled", spaces_experiment(action="box"))
    observation = trained.observation_space.sample()
    middle, half = 0.5, 2.5
    units = (np.asarray(Policy(scaled)(observation), np.float64) - middle) / half
    found = Policy(trained)(observation)
    assert (np.abs(units) < 1).all(), "nothing is clipped in either"
    np.testing.assert_allclose(found, units.clip(middle - half, middle + half), atol=1e-5)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.zeros(4, np.float32), "expected"),
        (np.zeros((2, 2), np.float32), "expected"),
        (np.zeros((0, 3), np.float32), "expected"),
        ({"x": 1}, "expected"),
    ],
)
def test_wrong_observations_are_refused(value: object, what: str, tmp_path: Path) -> None:
    policy = Policy(loaded(tmp_path, spaces_experiment()))
    with pytest.raises(ValueError, match=what):
        policy(value)


def test_masks_are_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    needs = Policy(loaded(tmp_path / "a", spaces_experiment(mask="info")))
    observation = needs.observation_space.sample()
    with pytest.raises(ValueError, match="needs an action_mask"):
        needs(observation)
    for choice in range(3):
        assert needs(observation, action_mask=np.eye(3)[choice]) == choice
    plain = Policy(loaded(tmp_path / "b", spaces_experiment()))
    with pytest.raises(ValueError, match="does not take an action_mask"):
        plain(observation, action_mask=[1, 1, 1])


def test_modules_of_a_run_are_not_imported_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", spaces_experiment())
    monkeypatch.delitem(sys.modules, "space_envs")
    with pytest.raises(ConfigError, match="space_envs") as refused:
        load_policy(run)
    assert "trust=True" in refused.value.fix
    assert "space_envs" not in sys.modules
    monkeypatch.setitem(sys.modules, "space_envs", sys)  # imported by the caller
    assert load_policy(run).checkpoint.version == 7


def test_another_network_is_refused(tmp_path: Path) -> None:
    run = read_trained(write_run(tmp_path / "run", spaces_experiment()))
    other = loaded(tmp_path / "other", spaces_experiment("box of rank 2"))
    with pytest.raises(ConfigError, match="not torch"):
        load_network(run.checkpoint.path, other.network)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", spaces_experiment())
    tensors = next((run / "checkpoints").glob("*.safetensors"))
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(ConfigError):
        load_policy(run, trust=True)
    with pytest.raises(ConfigError):
        load_policy(tmp_path / "none")
    (run / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(ConfigError):
        load_policy(run, trust=True)


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, engine; assert 'torch' not in sys.modules; print(engine.load_policy)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
    with pytest.raises(AttributeError):
        engine.nothing_of_the_kind  # noqa: B018


def test_environments_of_tensors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An own environment that exists only for `gpu-only`."""
    monkeypatch.setitem(TORCH_ENVIRONMENTS, "TensorsAlone-v0", TorchPendulum)
    run = write_run(tmp_path / "run", spaces_experiment())
    env = EnvSpec(id="TensorsAlone-v0", num_envs=5)
    experiment = msgspec.structs.replace(spaces_experiment(), env=env, modules=())
    with pytest.raises(ConfigError):  # of another environment
        load_trained(TrainedRun(run, experiment, read_trained(run).checkpoint))
    cut = build_graph(read_policy("gpu-only"), experiment).cut
    run = write_run(tmp_path / "tensors", experiment, cut=cut)
    policy = load_policy(run)
    assert policy.action_space.contains(policy(policy.observation_space.sample()))
