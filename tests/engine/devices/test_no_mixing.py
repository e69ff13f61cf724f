"""No algorithm mixes tensors of a device with those of main memory, or reads a value in a step.

PyTorch's device `meta` computes shapes only. Like a GPU it refuses operands elsewhere (but for
scalars); unlike one it also refuses to be read, so what runs on it can be recorded as a graph.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from engine.algorithms.base import EnvSlice
from engine.blueprint import Blueprint, make_blueprint
from engine.compilation.tracing import record
from engine.devices.pinned_fields import torch_dtype
from engine.devices.tensors import state_on
from engine.layers.inputs import STATE, input_names
from engine.spec import CoreSpec, NetworkSpec
from tests.helpers.engine.small_learners import batch_of, experiment

META = torch.device("meta")
NETWORKS = {
    "plain": NetworkSpec(hidden_sizes=(8,)),
    "normalized": NetworkSpec(hidden_sizes=(8,), normalize_observation=True),
    "gru": NetworkSpec(hidden_sizes=(8,), core=CoreSpec(name="gru", size=5)),
}
PAIRS = [
    pytest.param(name, network, marks=[pytest.mark.slow] if network == "plain" else [])
    for name in ("ppo", "impala", "dqn", "sac", "td3")
    for network in NETWORKS
    if network != "gru" or name in ("ppo", "impala", "dqn")
]


def blueprint_of(name: str, network: str) -> Blueprint:
    return make_blueprint(msgspec.structs.replace(experiment(name), network=NETWORKS[network]))


def moved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values.to(META) for name, values in tensors.items()}


@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_a_step_stays_on_its_device_and_reads_nothing(name: str, network: str):
    blueprint = blueprint_of(name, network)
    state = blueprint.algorithm.init(0)
    recorder = record(blueprint, state)
    assert recorder.step is not None
    there = state_on(META, blueprint.algorithm.init(0))
    samples = moved(recorder.samples)
    if recorder.order is not None:
        rows = recorder.order[0].to(META)
        samples = {key: values.index_select(0, rows) for key, values in samples.items()}
    with torch.no_grad():
        metrics, norm = recorder.step.functional(there).write(
            recorder.step.changed(there), torch.zeros((), device=META), samples
        )
    assert metrics.device == norm.device == META
    if name in ("ppo", "impala", "dqn"):
        recorder.step.take(there, samples, 1.0)


@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_acting_stays_on_its_device_and_reads_nothing(name: str, network: str):
    blueprint = blueprint_of(name, network)
    acting, algorithm = blueprint.algorithm.network().to(META), blueprint.algorithm
    by_name = {field.name: field for field in blueprint.layout.fields}
    inputs = {
        key: torch.zeros(4, *by_name[key].shape, dtype=torch_dtype(by_name[key].dtype), device=META)
        for key in input_names(blueprint.layout.fields)
    }
    noise = algorithm.noise(torch.Generator(), 1, EnvSlice(0, 4, 4))[0].to(META)
    given = inputs if STATE in inputs else next(iter(inputs.values()))
    with torch.inference_mode():
        chosen = algorithm.act(acting, given, noise)
        greedy = algorithm.act_greedily(acting, given)
    assert {values.device for values in chosen.values()} == {META}
    assert (greedy["action"] if STATE in inputs else greedy).device == META


def test_a_mixture_and_a_value_that_is_read_are_seen():
    there = torch.zeros(3, device=META)
    with pytest.raises(RuntimeError, match="device"):
        there + torch.zeros(3)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        bool(there.sum() > 0)


def read_as_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an update reads at its end, for the trace, is zeros."""

    def read(sound: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], object]:
        return lambda values: sound(torch.zeros(values.shape) if values.is_meta else values)

    for name in ("tolist", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, read(getattr(torch.Tensor, name)))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["plain", "gru"])
@pytest.mark.parametrize("name", ["ppo", "impala", "dqn"])
def test_a_whole_update_stays_on_its_device(name: str, network: str, monkeypatch):
    blueprint = blueprint_of(name, network)
    if name == "ppo":
        algorithm = {**blueprint.experiment.algorithm, "normalize_reward": False}
        changed = msgspec.structs.replace(blueprint.experiment, algorithm=algorithm)
        blueprint = make_blueprint(changed)
    state = state_on(META, blueprint.algorithm.init(0))
    read_as_zeros(monkeypatch)
    result = blueprint.algorithm.update(state, moved(batch_of(blueprint, 1)))
    assert state.num_updates > 0
    assert result.errors is None or result.errors.device == META
