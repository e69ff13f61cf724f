"""Products by oneDNN are those of PyTorch's BLAS library, to rounding."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from engine.blueprint import Blueprint, make_blueprint
from engine.compilation import tracing
from engine.compilation.compiled import CompiledSteps
from engine.compilation.compiler import write_library
from engine.compilation.library import Library
from engine.compilation.staging import SampleStaging
from engine.spec import EnvSpec, NetworkSpec, StalenessSpec
from engine.testing import make_experiment

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN"
)


def blueprint_of(name: str) -> Blueprint:
    experiment = make_experiment(
        env=EnvSpec(id="Pendulum-v1", num_envs=4), staleness=StalenessSpec(mode="unbounded")
    )
    return make_blueprint(
        msgspec.structs.replace(
            experiment,
            algorithm={"name": name, "batch_size": 16, "updates_per_batch": 4},
            network=NetworkSpec(hidden_sizes=(16, 16), activation="relu"),
        )
    )


def batch_of(blueprint: Blueprint) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    batch = SampleStaging(blueprint.samples).tensors
    for name in ("observation", "next_observation", "reward", "discount", "action"):
        batch[name].uniform_(-1.0, 1.0, generator=generator)
    return batch


@needs_onednn
@pytest.mark.parametrize("name", ["sac", "td3"])
def test_a_rewritten_step_computes_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    blueprint = blueprint_of(name)
    rewritten = tracing.trace_steps(blueprint)
    targets = [str(node.target) for node in rewritten.graph.graph.nodes]
    assert targets.count("mkldnn._linear_pointwise.default") >= 10
    monkeypatch.setattr(tracing, "multiply_by_onednn", lambda graph: None)
    plain = tracing.trace_steps(blueprint)
    generator = torch.Generator().manual_seed(0)
    arguments = [argument.clone() for argument in plain.arguments]
    for argument in arguments[6:]:  # the samples
        if argument.is_floating_point():
            argument.uniform_(-1.0, 1.0, generator=generator)
    before, copies = arguments[0].clone(), [argument.clone() for argument in arguments]
    results = zip(plain.graph(*arguments), rewritten.graph(*copies), strict=True)
    for one, other in [*results, *zip(arguments, copies, strict=True)]:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert not torch.equal(arguments[0], before), "something was learnt"


@needs_onednn
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which is PyTorch's own
@pytest.mark.parametrize("name", ["sac", "td3"])
def test_compiled_it_trains_as_in_eager_mode(name: str, tmp_path: Path):
    blueprint = blueprint_of(name)
    write_library(blueprint, "steps", tmp_path / "library.so", tmp_path)
    eager, compiled = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    compiled.steps = CompiledSteps(Library(tmp_path / "library.so"))
    batch = batch_of(blueprint)
    for _ in range(5):
        one, other = (blueprint.algorithm.update(state, batch) for state in (eager, compiled))
        assert other.metrics == pytest.approx(one.metrics, abs=1e-5)
    torch.testing.assert_close(compiled.weights.vector, eager.weights.vector, atol=1e-5, rtol=0)
