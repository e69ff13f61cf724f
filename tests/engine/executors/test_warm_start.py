"""A run that starts with the weights of a former one has these, and nothing else of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch

from engine.algorithms.base import LearnerState
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.devices.cpu import CpuDevice
from engine.devices.tensors import DeviceWeights
from engine.errors import ConfigError
from engine.executors.learner import HostMemory, LearnerExecutor
from engine.executors.on_device.memory import FusedMemory, StagedMemory
from engine.executors.reducer import ReducerExecutor
from engine.executors.warm_start import start_with, wanted_tensors
from engine.roles.commands import ExportWeights, MergeModel
from engine.roles.events import ModelsMerged, WeightsExported
from engine.spec import NetworkSpec
from engine.trace.warm_start import SavedTensor, WarmStart, match
from tests.helpers.engine.small_learners import ALGORITHMS, batch_of, experiment


@pytest.fixture(scope="module", params=sorted(ALGORITHMS))
def blueprint(request: pytest.FixtureRequest) -> Blueprint:
    return make_blueprint(experiment(request.param))


def trained(blueprint: Blueprint) -> LearnerState:
    state = blueprint.algorithm.init(1)
    for number in range(3):
        blueprint.algorithm.update(state, batch_of(blueprint, number))
    return state


def prepared(path: Path, former: LearnerState, blueprint: Blueprint) -> WarmStart:
    """Writes what fits of a former learner, as the command does."""
    there = {name: p.detach().clone() for name, p in former.network.named_parameters()}
    saved = {name: SavedTensor("F32", tuple(tensor.shape)) for name, tensor in there.items()}
    weights = match(saved, wanted_tensors(blueprint.algorithm))
    data = safetensors.torch.save({name: there[name].contiguous() for name in weights.taken})
    path.write_bytes(data)
    return WarmStart(
        run_id="former",
        checkpoint="v0000000003.json",
        version=3,
        weights=weights,
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def named(state: LearnerState) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in state.network.named_parameters()}


def test_network_and_target_have_the_former_weights_and_all_else_is_new(
    tmp_path: Path, blueprint: Blueprint
):
    former, file = trained(blueprint), tmp_path / "weights"
    warm_start = prepared(file, former, blueprint)
    state, fresh = (blueprint.algorithm.init(5) for _ in range(2))
    start_with(file, warm_start, state)
    kept = set(warm_start.weights.kept)
    assert kept == set(blueprint.algorithm.samples().scheduled_parameters)
    wanted = {**named(former), **{name: named(fresh)[name] for name in kept}}
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in named(state).items())
    assert any("count" in name and float(wanted[name]) > 0 for name in wanted), "statistics too"
    flat = torch.cat([p.detach().reshape(-1) for p in state.network.parameters()])
    assert torch.equal(flat, state.weights.vector.detach()), "it is still a view"
    if state.target is not None:
        targets = dict(state.target.network.named_parameters())
        assert targets.keys() <= set(warm_start.weights.taken) | kept
        assert all(torch.equal(targets[name], wanted[name]) for name in targets if name not in kept)
    assert state.num_updates == 0
    assert torch.equal(state.generator.get_state(), fresh.generator.get_state())
    pairs = zip(
        state.optimizer.named_tensors().items(),
        fresh.optimizer.named_tensors().items(),
        strict=True,
    )
    assert all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def test_a_network_of_another_size_takes_what_fits(tmp_path: Path):
    former = trained(make_blueprint(experiment("ppo")))
    larger = msgspec.structs.replace(
        experiment("ppo"), network=NetworkSpec(hidden_sizes=(8, 6), normalize_observation=True)
    )
    blueprint, file = make_blueprint(larger), tmp_path / "weights"
    warm_start = prepared(file, former, blueprint)
    state, fresh = (blueprint.algorithm.init(5) for _ in range(2))
    start_with(file, warm_start, state)
    there, initial = named(former), named(fresh)
    assert warm_start.weights.kept, "the second layer and the heads are new"
    for name, tensor in named(state).items():
        source = there if name in warm_start.weights.taken else initial
        assert torch.equal(tensor, source[name]), name


def exported(executor: LearnerExecutor) -> np.ndarray:
    (event,) = executor.perform(ExportWeights(0))
    assert isinstance(event, WeightsExported)
    weights = event.weights
    if isinstance(weights, DeviceWeights):
        return weights.vector.numpy()
    return weights.buffer.view(np.float32).copy()


@pytest.mark.parametrize(
    "memory_of",
    [HostMemory, lambda _: FusedMemory(CpuDevice()), lambda run: StagedMemory(run, CpuDevice())],
    ids=["sent", "fused", "staged"],
)
def test_a_learner_sends_the_former_weights_first(tmp_path: Path, blueprint: Blueprint, memory_of):
    former, file = trained(blueprint), tmp_path / "weights"
    warm_start = prepared(file, former, blueprint)
    learner = LearnerExecutor(
        blueprint,
        None,
        ManualClock(),
        memory=memory_of(blueprint),
        warm_start=(warm_start, file),
    )
    first = exported(learner)
    wanted = blueprint.algorithm.init(blueprint.experiment.seed)
    start_with(file, warm_start, wanted)
    assert np.array_equal(first, wanted.weights.vector.detach().numpy())


def test_a_parameter_server_adds_progress_to_the_former_weights(tmp_path: Path):
    """Otherwise it would add up what the learners began with, and not only what they learnt."""
    blueprint = make_blueprint(experiment("ppo"))
    cut = msgspec.structs.replace(blueprint.cut, groups=2, merge="accumulate")
    blueprint = make_blueprint(blueprint.experiment, cut)
    former, file = trained(blueprint), tmp_path / "weights"
    warm_start = prepared(file, former, blueprint)
    reducer = ReducerExecutor(blueprint, warm_start=(warm_start, file))
    learner = LearnerExecutor(blueprint, None, ManualClock(), warm_start=(warm_start, file))
    (event,) = learner.perform(ExportWeights(0))
    assert isinstance(event, WeightsExported)
    (merged,) = reducer.perform(MergeModel(0, event.weights, {0: 1.0}, True))
    assert isinstance(merged, ModelsMerged)
    told, sent = (w.buffer.view(np.float32) for w in (merged.weights, event.weights))
    np.testing.assert_allclose(told, sent, rtol=1e-6)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda data: data[:-4], lambda data: data + b"\0"],
    ids=["bit", "cut", "more"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]):
    blueprint = make_blueprint(experiment("ppo"))
    file = tmp_path / "weights"
    warm_start = prepared(file, trained(blueprint), blueprint)
    file.write_bytes(damage(file.read_bytes()))
    state = blueprint.algorithm.init(5)
    before = named(state)
    with pytest.raises(ConfigError):
        start_with(file, warm_start, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in named(state).items())
