"""Collecting as one scan is collecting step by step, with or without a library that fits."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock, RunClock
from engine.compilation.collecting import collect_named, put_back, trace_collect
from engine.compilation.compiler import write_library
from engine.compilation.library import Library, describe
from engine.devices.tensors import DeviceRollout, DeviceWeights
from engine.envs.held_tensors import HeldTensors
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, make_torch_env
from engine.executors.tensor_envs.actor import TensorActorExecutor
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.roles.commands import CollectRollout, LoadWeights
from engine.roles.events import RolloutCollected
from engine.spec import EnvSpec
from engine.testing import make_experiment
from tests.helpers.engine.tensor_actor import on_device
from tests.helpers.engine.traced_library import TracedLibrary

CPU = torch.device("cpu")


def blueprint_of(env: EnvSpec, core: dict[str, object] | None = None) -> Blueprint:
    experiment = make_experiment(actors=1, env=env)
    algorithm = {
        **{"name": "ppo", "rollout_steps": 40, "batch_steps": 160, "minibatch_steps": 40},
    }
    network = msgspec.structs.replace(experiment.network, hidden_sizes=(8,))
    if core is not None:
        network = msgspec.convert({**msgspec.to_builtins(network), "core": core}, type(network))
    changed = msgspec.structs.replace(experiment, algorithm=algorithm, network=network)
    return make_blueprint(changed, build_graph(read_policy("gpu-only"), changed).cut)


def executor_of(blueprint: Blueprint) -> TensorActorExecutor:
    executor = on_device(blueprint, RunClock.start_now())
    executor.perform(LoadWeights(DeviceWeights(0, weights_of(blueprint))))
    return executor


def weights_of(blueprint: Blueprint) -> Tensor:
    return blueprint.algorithm.init(0).weights.vector.detach()


def collect(executor: TensorActorExecutor, ticket: int) -> RolloutCollected:
    executor.perform(CollectRollout(ticket))
    while executor.is_busy:
        for event in executor.advance(0.0):
            assert isinstance(event, RolloutCollected)
            return event
    raise AssertionError("nothing was collected")


def check_that_rollouts_are_equal(
    one: RolloutCollected, other: RolloutCollected, tolerance: float
) -> None:
    assert isinstance(one.rollout, DeviceRollout)
    assert isinstance(other.rollout, DeviceRollout)
    for name, values in one.rollout.tensors.items():
        theirs = other.rollout.tensors[name]
        torch.testing.assert_close(values, theirs, rtol=tolerance, atol=tolerance)
    lengths = [[each.length_env_steps for each in event.episodes] for event in (one, other)]
    assert lengths[0] == lengths[1]
    returns = [[each.episode_return for each in event.episodes] for event in (one, other)]
    assert returns[0] == pytest.approx(returns[1], rel=1e-4)


def test_what_is_held_may_change_places():
    def step(current: Tensor, previous: Tensor, square: Tensor) -> tuple[()]:
        put_back((current, previous, square), (current + 1, current, square.t()))
        return ()

    held = [torch.zeros(3), torch.ones(3), torch.arange(4.0).view(2, 2)]
    graph = make_fx(step, tracing_mode="fake")(*held)
    for _ in range(2):
        graph(*held)
    assert [each.tolist() for each in held] == [[2.0] * 3, [1.0] * 3, [[0.0, 1.0], [2.0, 3.0]]]
    step(*held)
    assert held[2].tolist() == [[0.0, 2.0], [1.0, 3.0]]


CASES = pytest.mark.parametrize(
    ("env", "core"),
    [
        (EnvSpec(id="CartPole-v1", num_envs=4), None),
        (EnvSpec(id="CartPole-v1", num_envs=4), {"name": "gru", "size": 4}),
        (EnvSpec(id="Acrobot-v1", num_envs=4), None),
        (EnvSpec(id="Pendulum-v1", num_envs=4, squash_actions=True), None),
        (EnvSpec(id="MinAtar/Breakout-v1", num_envs=4), None),
    ],
    ids=["cartpole", "cartpole with a memory", "acrobot", "pendulum", "breakout"],
)


@CASES
def test_a_scan_collects_what_is_collected_step_by_step(env: EnvSpec, core):
    blueprint = blueprint_of(env, core)
    ours, theirs = executor_of(blueprint), executor_of(blueprint)
    library = TracedLibrary(trace_collect(blueprint))
    num_episodes = 0
    for ticket in range(5):
        ours._use(library)
        if ticket % 3 == 0:  # also from one way to the other
            ours._library = None
        one, other = collect(ours, ticket), collect(theirs, ticket)
        check_that_rollouts_are_equal(one, other, 0.0)
        num_episodes += len(one.episodes)
    assert library.num_calls > 4, "in parts that a loop can be stopped between"
    if env.id == "CartPole-v1":
        assert num_episodes > 8


def test_a_scan_spreads_its_moments_evenly(monkeypatch: pytest.MonkeyPatch):
    blueprint = blueprint_of(EnvSpec(id="CartPole-v1", num_envs=4))
    clock = ManualClock(10.0)
    executor = on_device(blueprint, clock)
    executor.perform(LoadWeights(DeviceWeights(0, weights_of(blueprint))))
    executor._use(TracedLibrary(trace_collect(blueprint)))
    executor._steps_per_call = 4
    executor.perform(CollectRollout(0))
    clock.advance(2.0)
    assert executor.advance(0.0) == []
    assert executor._moments_s == [10.5, 11.0, 11.5, 12.0]


class Hiding:
    """An environment with two names for one tensor."""

    def __init__(self) -> None:
        self.one = torch.zeros(3)
        self.deep = [{"other": self.one[:2]}]


def test_tensors_are_found_wherever_an_object_holds_them():
    env = make_torch_env(EnvSpec(id="Pendulum-v1", num_envs=2), CPU)
    env.reset(0)
    held = HeldTensors(env)
    before = held.tensors()
    assert held.are_apart()
    assert any(tensor is env.inner.state for tensor in before)
    others = [torch.full_like(tensor, True) for tensor in before]
    with held.replaced(others):
        assert all(one is other for one, other in zip(held.tensors(), others, strict=True))
    assert all(one is other for one, other in zip(held.tensors(), before, strict=True))
    assert not HeldTensors(Hiding()).are_apart()


def test_an_environment_that_draws_in_its_steps_is_not_compiled(monkeypatch: pytest.MonkeyPatch):
    blueprint = blueprint_of(EnvSpec(id="CartPole-v1", num_envs=4))

    class Undrawn:
        def __init__(self, num_envs: int, device: torch.device) -> None:
            self._env = TORCH_ENVIRONMENTS_BEFORE["CartPole-v1"](num_envs, device)
            self.single_observation_space = self._env.single_observation_space
            self.single_action_space = self._env.single_action_space
            self.reset, self.step = self._env.reset, self._env.step

    TORCH_ENVIRONMENTS_BEFORE = dict(TORCH_ENVIRONMENTS)
    monkeypatch.setitem(TORCH_ENVIRONMENTS, "CartPole-v1", Undrawn)
    with pytest.raises(RuntimeError, match="does not draw its randomness before its steps"):
        trace_collect(blueprint)
    executor = executor_of(blueprint)
    assert executor._collecting is None
    collect(executor, 0)


def test_what_does_not_fit_is_collected_step_by_step():
    blueprint = blueprint_of(EnvSpec(id="CartPole-v1", num_envs=4))
    other = blueprint_of(EnvSpec(id="CartPole-v1", num_envs=2))
    executor = executor_of(blueprint)
    executor._use(TracedLibrary(trace_collect(other)))
    assert collect(executor, 0).rollout.info.num_env_steps > 100
    assert executor._library.num_calls == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which is PyTorch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@CASES
def test_a_library_collects_what_is_collected_in_eager_mode(env: EnvSpec, core, tmp_path: Path):
    blueprint = blueprint_of(env, core)
    write_library(blueprint, "collect", tmp_path / "library.so", tmp_path)
    library = Library(tmp_path / "library.so")
    ours, theirs = executor_of(blueprint), executor_of(blueprint)
    for ticket in range(3):
        if ticket:
            ours._use(library)
        check_that_rollouts_are_equal(collect(ours, ticket), collect(theirs, ticket), 1e-5)
    arguments = ours._collecting
    assert arguments is not None
    states = {} if ours._states is None else {"state": ours._states}
    rows = arguments.rows({**ours._tensors, **states})
    named = collect_named(arguments.fixed(ours._continues), rows)
    assert library.signature == describe(named)
