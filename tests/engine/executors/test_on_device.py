"""A loop that is fused on a device: the same rollouts and books, nothing copied, whole runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.devices.tensors import DeviceRollout, DeviceStaging, DeviceWeights
from engine.envs.torch_envs import TORCH_ENVIRONMENTS
from engine.errors import RunFailedError
from engine.executors.actor import ActorExecutor
from engine.graph.dataflow import DataflowGraph, build_graph
from engine.graph.policy import read_policy
from engine.roles.commands import AbandonRollout, CollectRollout, LoadWeights
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import RolloutCollected
from engine.runtime.inline import InlineRun
from engine.spec import EnvSpec, Experiment, StopSpec
from engine.testing import SCRIPTED_ENV, ScriptedVectorEnv, make_experiment
from engine.trace.reader import read_table
from engine.trace.records import Episode, Ledger
from engine.trace.summary import Summary
from tests.helpers.engine.tensor_actor import on_device

CARTPOLE = EnvSpec(id="CartPole-v1", num_envs=4)


class TorchScripted:
    """The scripted environments, asked by tensors."""

    def __init__(self, num_envs: int, device: torch.device, **kwargs: object) -> None:
        self._env = ScriptedVectorEnv(num_envs)
        self.single_observation_space = self._env.single_observation_space
        self.single_action_space = self._env.single_action_space

    def reset(self, seed: int) -> torch.Tensor:
        return torch.from_numpy(self._env.reset(seed=seed)[0])

    def step(self, action: torch.Tensor):
        return tuple(torch.from_numpy(part) for part in self._env.step(action.numpy())[:4])


def graph_of(experiment: Experiment) -> DataflowGraph:
    return build_graph(read_policy("gpu-only"), experiment)


def blueprint_of(experiment: Experiment) -> Blueprint:
    return make_blueprint(experiment, graph_of(experiment).cut)


def weights_of(blueprint: Blueprint) -> DeviceWeights:
    return DeviceWeights(0, blueprint.algorithm.init(0).weights.vector.detach())


def collect(executor, weights, num_rollouts: int) -> list[RolloutCollected]:
    executor.perform(LoadWeights(weights))
    found = []
    for ticket in range(num_rollouts):
        executor.perform(CollectRollout(ticket))
        while executor.is_busy:
            found += executor.advance(0.0)
    return found


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setitem(TORCH_ENVIRONMENTS, SCRIPTED_ENV, TorchScripted)
    env = EnvSpec(id=SCRIPTED_ENV, num_envs=4, reward_scale=0.5)
    return make_experiment(actors=1, env=env)


def test_rollouts_and_episodes_are_those_of_an_actor_with_arrays(scripted: Experiment):
    blueprint, clock = blueprint_of(scripted), ManualClock()
    weights = weights_of(blueprint)
    ours = collect(on_device(blueprint, clock), weights, 3)
    theirs = collect(ActorExecutor(blueprint, 0, 0, clock), weights, 3)
    assert sum(len(event.episodes) for event in ours) > 5
    for one, other in zip(ours, theirs, strict=True):
        assert one.rollout.info == other.rollout.info
        assert one.episodes == other.episodes
        assert isinstance(one.rollout, DeviceRollout)
        views = blueprint.layout.views(other.rollout.buffer)
        assert set(views) == set(one.rollout.tensors)
        for name in ("observation", "reward", "terminated", "truncated", "valid"):
            np.testing.assert_array_equal(one.rollout.tensors[name].numpy(), views[name])
            assert one.rollout.tensors[name].numpy().dtype == views[name].dtype
        log_prob = one.rollout.tensors["log_prob"]
        assert log_prob.shape == views["log_prob"].shape
        assert (log_prob < 0).all()


@pytest.mark.parametrize("part", [0, 1], ids=["observation", "reward"])
def test_what_is_no_number_is_refused_on_a_device_too(scripted: Experiment, part: int):
    blueprint = blueprint_of(scripted)
    executor = on_device(blueprint, ManualClock())
    sound_step = executor._env.step

    def step(action: torch.Tensor):
        result = sound_step(action)
        values = result[part].clone()
        values[2] = float("nan")
        return (*result[:part], values, *result[part + 1 :])

    executor._env.step = step
    name = ["observation", "reward"][part]
    with pytest.raises(RunFailedError, match=f"{name} of environment 2 is not finite"):
        collect(executor, weights_of(blueprint), 1)


def test_a_first_rollout_can_be_abandoned_before_its_first_step(scripted: Experiment):
    blueprint = blueprint_of(scripted)
    executor = on_device(blueprint, ManualClock())
    executor.perform(LoadWeights(weights_of(blueprint)))
    executor.perform(CollectRollout(0))
    (nothing,) = executor.perform(AbandonRollout())
    assert (nothing.num_env_steps, nothing.episodes) == (0, ())
    assert not executor.is_busy


def test_an_abandoned_rollout_is_counted_as_far_as_it_went(scripted: Experiment):
    blueprint = blueprint_of(scripted)
    executor = on_device(blueprint, ManualClock())
    executor.perform(LoadWeights(weights_of(blueprint)))
    executor.perform(CollectRollout(0))
    for _ in range(4):
        executor.advance(0.0)
    (abandoned,) = executor.perform(AbandonRollout())
    # Environment 0 ended after 3 steps and then only reset, environment 1 after 4.
    assert abandoned.num_env_steps == 3 + 3 * 4
    assert [(e.episode_return, e.length_env_steps) for e in abandoned.episodes] == [
        (6.0, 3),
        (10.0, 4),
    ]
    (nothing,) = executor.perform(AbandonRollout())
    assert (nothing.num_env_steps, nothing.episodes) == (0, ())


def test_a_learner_can_differentiate_through_what_was_collected(scripted: Experiment):
    blueprint = blueprint_of(scripted)
    executor = on_device(blueprint, ManualClock())
    rollouts = [event.rollout for event in collect(executor, weights_of(blueprint), 2)]
    batch = DeviceStaging().fill(rollouts)
    assert batch["reward"].shape[1] == 2 * blueprint.layout.num_envs
    assert torch.equal(batch["observation"][:, 4:], rollouts[1].tensors["observation"])
    state = blueprint.algorithm.init(0)
    before = state.weights.vector.detach().clone()
    blueprint.algorithm.update(state, batch)
    assert not torch.equal(state.weights.vector, before)


def test_a_single_rollout_is_not_copied(scripted: Experiment):
    blueprint = blueprint_of(scripted)
    executor = on_device(blueprint, ManualClock())
    (event,) = collect(executor, weights_of(blueprint), 1)
    batch = DeviceStaging().fill([event.rollout])
    assert batch["reward"].data_ptr() == event.rollout.tensors["reward"].data_ptr()


@pytest.mark.parametrize("algorithm", [{"name": "ppo"}, {"name": "impala"}])
def test_a_whole_run_balances_its_books(tmp_path: Path, algorithm: dict[str, object]):
    sizes = {"rollout_steps": 10, "batch_steps": 80}
    if algorithm["name"] == "ppo":
        sizes["minibatch_steps"] = 40
    experiment = make_experiment(actors=1, env=CARTPOLE, stop=StopSpec(env_steps=1500))
    experiment = msgspec.structs.replace(experiment, algorithm={**algorithm, **sizes})
    graph = graph_of(experiment)
    assert not graph.is_inline, "its device may be another host's"
    experiment = msgspec.structs.replace(experiment, staleness=graph.cut.staleness)
    for name in ("trace", "checkpoints"):
        (tmp_path / name).mkdir()
    info = RunInfo(run_id="run", num_hosts=1, num_actors=1, num_groups=1)
    addresses = graph.processes[0].roles
    blueprint = make_blueprint(experiment, graph.cut)
    InlineRun(blueprint, info, addresses, tmp_path, lambda progress: None).run()
    summary = msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary)
    assert (summary.status, summary.lag.max) == ("ok", 0)
    kept = summary.env_steps_consumed + summary.env_steps_dropped
    assert summary.env_steps_collected == kept + summary.env_steps_in_flight
    ledger = read_table(tmp_path / "trace", Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in ledger)
    episodes = read_table(tmp_path / "trace", Episode)
    assert len(episodes) > 20
    assert all(row.episode_return == row.length_env_steps for row in episodes)


def test_finite_values_of_any_size_are_no_reason_to_end(scripted: Experiment):
    executor = on_device(blueprint_of(scripted), ManualClock())
    large = torch.full((2, 4), 3e38)
    assert torch.isinf(large.sum())
    executor._check({"observation": large})
