"""The memory of an actor: over resets, rollouts, splits, remote environments and devices."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from gymnasium import spaces

from engine.algorithms.networks import PolicyValueNetwork, after_resets
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.compilation.policy_inference import as_tensors
from engine.devices.tensors import DeviceRollout, DeviceWeights
from engine.executors.actor import ActorExecutor
from engine.executors.evaluator import EvaluatorExecutor
from engine.executors.remote_env import EnvironmentExecutor
from engine.executors.tensor_envs.actor import TensorActorExecutor
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.layers.inputs import STATE, mask_of, observation_of
from engine.messages import StepTaken
from engine.roles.commands import CollectRollout, Evaluate, LoadWeights, StepEnvironment, TakeStep
from engine.roles.events import EnvironmentStepped, Evaluated, RolloutCollected, StepWanted
from engine.rollout import Rollout, Weights
from engine.spec import CoreSpec, EnvSpec, EvaluationSpec, NetworkSpec
from engine.testing import SCRIPTED_ENV, make_experiment
from tests.helpers.engine.tensor_actor import on_device

LEAVES = "TianjiLeaves-v0"
NUM_STEPS = 10


class Leaves(gymnasium.Env[Any, Any]):
    """Episodes of 4 to 7 steps; observations of two leaves, with a mask in its info."""

    observation_space = spaces.Dict({"x": spaces.Box(-9, 9, (2,)), "n": spaces.Discrete(9)})
    action_space = spaces.MultiDiscrete([2, 2])

    def _told(self) -> tuple[dict[str, Any], dict[str, Any]]:
        x = self.np_random.normal(size=2).clip(-9, 9).astype(np.float32)
        mask = np.array([1, self._age % 2, 1, 1], np.int8)
        return {"x": x, "n": self._age}, {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self._age, self._length = 0, int(self.np_random.integers(4, 8))
        return self._told()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:  # noqa: ANN401
        assert self._age % 2 or action[0] == 0, "a masked-out choice"
        self._age += 1
        seen, info = self._told()
        return seen, 1.0, self._age >= self._length, False, info


@pytest.fixture(autouse=True)
def _environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymnasium.envs.registration.registry", dict(gymnasium.registry))
    gymnasium.register(LEAVES, entry_point=Leaves)


def blueprint_of(env_id: str, core: str, policy: str = "local", num_splits: int = 1) -> Blueprint:
    env = EnvSpec(id=env_id, num_envs=4, num_splits=num_splits)
    experiment = make_experiment(env=env, actors=1, policy=policy)
    network = NetworkSpec(hidden_sizes=(8,), core=CoreSpec(name=core, size=6))  # type: ignore[arg-type]
    experiment = msgspec.structs.replace(experiment, network=network)
    cut = build_graph(read_policy(policy), experiment).cut
    return make_blueprint(experiment, cut, rehearses=True)


def weights_of(blueprint: Blueprint) -> torch.Tensor:
    vector = blueprint.algorithm.init(7).weights.vector.detach()
    return vector + 0.3 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(1))


def check(blueprint: Blueprint, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the learner computes from the rollout alone is what the actor computed; the states after
    its last step."""
    network = blueprint.algorithm.network()
    assert isinstance(network, PolicyValueNetwork)
    torch.nn.utils.vector_to_parameters(weights_of(blueprint), network.parameters())
    with torch.no_grad():
        policy, _ = network.unroll(
            observation_of(tensors),
            tensors[STATE][0],
            after_resets(tensors["valid"]),
            mask_of(tensors),
        )
    last = tensors["action"][:1]
    actions = torch.cat((tensors["action"], torch.zeros_like(last))).flatten(0, 1)
    log_prob = policy.log_prob(actions).view(NUM_STEPS + 1, -1)[:-1]
    valid = tensors["valid"]
    torch.testing.assert_close(log_prob[valid], tensors["log_prob"][valid], rtol=0, atol=1e-5)
    return tensors[STATE][0]


def collect(executor: ActorExecutor | TensorActorExecutor) -> Rollout:
    executor.perform(CollectRollout(0))
    (event,) = executor.advance(float("inf"))
    assert isinstance(event, RolloutCollected)
    return event.rollout


@pytest.mark.parametrize("core", ["gru", "lstm"])
@pytest.mark.parametrize(("env_id", "num_splits"), [(SCRIPTED_ENV, 1), (LEAVES, 1), (LEAVES, 2)])
def test_the_learner_sees_what_the_actor_remembered(env_id: str, num_splits: int, core: str):
    blueprint = blueprint_of(env_id, core, num_splits=num_splits)
    executor = ActorExecutor(blueprint, 0, 0, ManualClock(1.0))
    weights = weights_of(blueprint).numpy()
    executor.perform(LoadWeights(Weights(0, weights.view(np.uint8))))
    first = []
    for _ in range(5):
        views = blueprint.layout.views(collect(executor).buffer)
        first.append(check(blueprint, as_tensors(views)).clone())
    executor.close()
    assert not first[0].any()
    assert all(state.any() for state in first[1:])  # carried over the border of rollouts


def test_remote_environments_make_the_same_rollouts():
    """An actor whose environments another role steps, with leaves and masks in one message."""
    here, there = blueprint_of(LEAVES, "gru"), blueprint_of(LEAVES, "gru", "single-learner-fine")
    weights = Weights(0, weights_of(here).numpy().view(np.uint8))
    local = ActorExecutor(here, 0, 0, ManualClock(1.0))
    remote = ActorExecutor(there, 0, 0, ManualClock(1.0))
    environment = EnvironmentExecutor(there, 0, 0)
    for executor in (local, remote):
        executor.perform(LoadWeights(weights))
    for _ in range(3):
        wanted = here.layout.views(collect(local).buffer)
        remote.perform(CollectRollout(0))
        while True:
            (event,) = remote.advance(float("inf"))
            if isinstance(event, RolloutCollected):
                break
            assert isinstance(event, StepWanted)
            (stepped,) = environment.perform(StepEnvironment(event.number, (event.action,)))
            assert isinstance(stepped, EnvironmentStepped)
            assert isinstance(stepped.taken, StepTaken)
            remote.perform(TakeStep(stepped.taken))
        found = there.layout.views(event.rollout.buffer)
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    local.close()
    remote.close()
    environment.close()


def test_a_loop_on_a_device_remembers_as_well():
    blueprint = blueprint_of("CartPole-v1", "gru", "gpu-only")
    executor = on_device(blueprint, ManualClock(1.0))
    executor.perform(LoadWeights(DeviceWeights(0, weights_of(blueprint))))
    states = []
    for _ in range(8):
        rollout = collect(executor)
        assert isinstance(rollout, DeviceRollout)
        states.append(check(blueprint, dict(rollout.tensors)).clone())
    assert not states[0].any()
    assert all(state.any() for state in states[1:])


def test_episodes_begin_with_an_empty_memory():
    """Also if the episode before ended with the last step of the rollout before."""
    blueprint = blueprint_of(SCRIPTED_ENV, "gru")
    executor = ActorExecutor(blueprint, 0, 0, ManualClock(1.0))
    weights = weights_of(blueprint).numpy()
    executor.perform(LoadWeights(Weights(0, weights.view(np.uint8))))
    ages = []
    for _ in range(12):
        views = blueprint.layout.views(collect(executor).buffer)
        age, state = views["observation"][0, :, 2], views[STATE][0]
        ages += age.tolist()
        for env in range(4):
            assert (age[env] == 0) == (not np.any(state[env]))
    executor.close()
    assert 0 in ages[4:]


def test_an_evaluator_remembers_from_step_to_step(monkeypatch: pytest.MonkeyPatch):
    """The environment raises if a masked-out choice is made."""
    blueprint = blueprint_of(LEAVES, "lstm")
    act, states = blueprint.algorithm.act_greedily, []

    def watched(network: Any, inputs: Any) -> Any:  # noqa: ANN401
        chosen = act(network, inputs)
        states.append((inputs[STATE].clone(), chosen[STATE].clone()))  # type: ignore[index]
        return chosen

    monkeypatch.setattr(blueprint.algorithm, "act_greedily", watched)
    executor = EvaluatorExecutor(blueprint, EvaluationSpec(episodes=3, seed=5))
    executor.perform(LoadWeights(Weights(0, weights_of(blueprint).numpy().view(np.uint8))))
    for _ in range(2):
        states.clear()
        executor.perform(Evaluate())
        (event,) = executor.advance(float("inf"))
        assert isinstance(event, Evaluated)
        assert all(4 <= length <= 7 for length in event.lengths_env_steps)
        assert not states[0][0].any()
        for (_, after), (before, _) in itertools.pairwise(states):
            assert torch.equal(after, before)
            assert after.any()
    executor.close()
