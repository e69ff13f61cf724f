"""What comes before the steps of an update is the same if it is compiled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from engine.algorithms.returns import accumulate
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.compilation.compiler import without_own_operations, write_library
from engine.compilation.fit import Fits
from engine.compilation.library import Library
from engine.compilation.prepared import CompiledPreparing, trace_prepare
from engine.compilation.traces import kinds_of, kinds_of_learner
from engine.compilation.tracing import batch_of_zeros
from engine.executors.learner import LearnerExecutor
from engine.roles.commands import Update
from engine.roles.events import Noted
from engine.spec import EnvSpec, StalenessSpec
from engine.testing import make_experiment, make_rollout
from tests.helpers.engine.traced_library import TracedLibrary


def blueprint_of(core: dict[str, object] | None = None, **algorithm: object) -> Blueprint:
    experiment = make_experiment(env=EnvSpec(id="CartPole-v1", num_envs=4))
    network = msgspec.to_builtins(experiment.network) | {"core": core, "hidden_sizes": [8]}
    ppo = {"name": "ppo", "rollout_steps": 10, "batch_steps": 80, "minibatch_steps": 40}
    changed = msgspec.structs.replace(
        experiment,
        algorithm=algorithm if "name" in algorithm else {**ppo, **algorithm},
        network=msgspec.convert(network, type(experiment.network)),
    )
    if algorithm.get("name") == "dqn":
        changed = msgspec.structs.replace(changed, staleness=StalenessSpec(mode="unbounded"))
    return make_blueprint(changed)


def random_batch(blueprint: Blueprint) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    batch = batch_of_zeros(blueprint)
    for values in batch.values():
        if values.dtype == torch.bool:
            values.copy_(torch.rand(values.shape, generator=generator) < 0.2)
        elif values.dtype == torch.int64:
            values.random_(0, 2, generator=generator)
        else:
            values.normal_(generator=generator)
    return batch


GRU = {"name": "gru", "size": 4}
DQN = {"name": "dqn", "batch_size": 8, "updates_per_batch": 2, "target_update_period": 2}
OF_PPO = {
    "clipped": {"value_clip_range": 0.1, "normalize_reward": True, "normalized_reward_limit": 1.0},
    "corrected": {"advantages": "vtrace", "decoupled": True},
    "with a memory": {"core": GRU},
}
OF_TARGET = {"of a target network": DQN, "of one with a memory": {**DQN, "core": GRU}}


def cases(named: dict[str, dict[str, object]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", list(named.values()), ids=list(named))


def check(blueprint: Blueprint, preparing: CompiledPreparing) -> None:
    eager, compiled = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    compiled.preparing = preparing
    batch = random_batch(blueprint)
    for _ in range(3):
        one = blueprint.algorithm.update(eager, batch)
        other = blueprint.algorithm.update(compiled, batch)
        assert other.metrics == pytest.approx(one.metrics, abs=1e-5)
    torch.testing.assert_close(compiled.weights.vector, eager.weights.vector, atol=1e-5, rtol=0)


@cases({**OF_PPO, **OF_TARGET})
def test_what_is_traced_is_what_is_computed(options: dict[str, object]):
    blueprint = blueprint_of(**options)
    library = TracedLibrary(trace_prepare(blueprint))
    check(blueprint, CompiledPreparing(library))
    assert library.num_calls == 3


@cases({**OF_PPO, **OF_TARGET})
def test_a_library_writes_into_contiguous_tensors(options: dict[str, object]):
    """With a memory a result is transposed in eager mode, and a library does not see strides."""
    signature = trace_prepare(blueprint_of(**options)).signature
    made = [one for name, one in signature.items() if name.startswith("made.")]
    assert made
    for one in made:
        assert torch.empty(one.shape).stride() == one.stride


@cases(OF_PPO)
def test_sums_in_time_are_one_operation(options: dict[str, object]):
    traced = trace_prepare(blueprint_of(**options))
    assert torch.ops.tianji.accumulate.default in [node.target for node in traced.graph.graph.nodes]


def test_an_old_pytorch_computes_it_without_operations_of_its_own():
    traced = trace_prepare(blueprint_of())
    graph = without_own_operations(traced.graph, traced.arguments)
    assert not [node for node in graph.graph.nodes if "tianji" in str(node.target)]
    check(blueprint_of(), CompiledPreparing(TracedLibrary(replace(traced, graph=graph))))


def test_versions_of_samples_are_no_part_of_it():
    blueprint = blueprint_of(lag_weights=True)
    library = TracedLibrary(trace_prepare(blueprint))
    state = blueprint.algorithm.init(3)
    state.preparing = CompiledPreparing(library)
    batch = random_batch(blueprint)
    num_columns = batch["valid"].shape[1]
    blueprint.algorithm.update(state, {**batch, "version": torch.zeros(num_columns).long()})
    assert library.num_calls == 1
    assert state.preparing.fit.is_used


def test_another_batch_is_judged_in_eager_mode():
    library = TracedLibrary(trace_prepare(blueprint_of()))
    check(blueprint_of(rollout_steps=20), CompiledPreparing(library))
    assert library.num_calls == 0


def test_a_function_that_no_call_fits_is_told_once(capsys: pytest.CaptureFixture[str]):
    fits, told = Fits(), []
    for steps in (10, 20):
        blueprint = blueprint_of(rollout_steps=steps)
        state, batch = blueprint.algorithm.init(3), random_batch(blueprint)
        state.preparing = preparing = CompiledPreparing(
            TracedLibrary(trace_prepare(blueprint_of()))
        )
        fits.watch(f"of {steps} steps", preparing.fit)
        assert fits.tell() == [], "nothing was called yet"
        blueprint.algorithm.update(state, batch)
        told += fits.tell()
    (line,) = told
    assert line.startswith("of 20 steps: the compiled function is not used")
    assert "batch.reward" in line
    assert "vector" not in line
    assert fits.tell() == []
    assert capsys.readouterr().out == f"{line}\n"


def test_a_learner_tells_what_does_not_fit():
    blueprint = blueprint_of()
    library = TracedLibrary(trace_prepare(blueprint_of(rollout_steps=20)))
    executor = LearnerExecutor(blueprint, None, ManualClock())
    executor._use_preparing(library)  # type: ignore[arg-type]
    rollouts = [make_rollout(layout=blueprint.layout) for _ in range(2)]
    (_, noted), (_,) = (executor.perform(Update(rollouts)) for _ in range(2))
    assert isinstance(noted, Noted)
    assert noted.kind == "eager"
    assert noted.detail.startswith("values before the steps: the compiled function is not used")
    executor.close()


def test_only_what_computes_something_before_is_compiled_for_it():
    impala = blueprint_of(name="impala", rollout_steps=10, batch_steps=80)
    assert kinds_of_learner(impala) == ("steps",)
    assert kinds_of(blueprint_of()) == ("steps", "prepare", "act")
    assert kinds_of_learner(blueprint_of(**DQN)) == ("steps", "prepare")
    with pytest.raises(RuntimeError, match=r"computes nothing through state\.preparing"):
        trace_prepare(impala)


def test_sums_go_backwards_in_time():
    delta, trace = torch.randn(7, 3), torch.rand(7, 3)
    found, following = accumulate(delta, trace), torch.zeros(3)
    for t in reversed(range(7)):
        following = delta[t] + trace[t] * following
        torch.testing.assert_close(found[t], following)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which is PyTorch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@cases({**OF_PPO, **OF_TARGET})
def test_a_library_computes_what_is_computed_in_eager_mode(
    options: dict[str, object], tmp_path: Path
):
    blueprint = blueprint_of(**options)
    write_library(blueprint, "prepare", tmp_path / "library.so", tmp_path)
    preparing = CompiledPreparing(Library(tmp_path / "library.so"))
    check(blueprint, preparing)
    assert preparing._judge is not None
