"""Optimiser steps of networks with memory can be compiled, and then do what eager ones do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from engine.blueprint import Blueprint, make_blueprint
from engine.compilation import compiler
from engine.compilation.compile_job import CompileJob
from engine.compilation.compiled import CompiledSteps
from engine.compilation.library import Kind
from engine.compilation.native import build
from engine.compilation.native.function import NativeFunction
from engine.compilation.product_kernel import ProductKernel
from engine.compilation.staging import SampleStaging, Staging
from engine.compilation.traces import TRACE, kinds_of
from engine.spec import CoreSpec, EnvSpec, Experiment, NetworkSpec, StalenessSpec
from engine.testing import make_experiment
from tests.helpers.engine.functional_steps import FunctionalTaker

TOLERANCE = 1e-5
CARTPOLE = EnvSpec(id="CartPole-v1", num_envs=4)
ALGORITHMS = {
    "ppo": {"rollout_steps": 5, "batch_steps": 40, "minibatch_steps": 20, "num_epochs": 2},
    "impala": {"rollout_steps": 5, "batch_steps": 40},
    "dqn": {"rollout_steps": 5, "batch_size": 4, "updates_per_batch": 3, "burn_in_steps": 2},
    "apex": {"rollout_steps": 5, "batch_size": 4, "updates_per_batch": 3, "burn_in_steps": 0},
}


def with_memory(name: str, core: str) -> Blueprint:
    unbounded = StalenessSpec(mode="unbounded")
    experiment: Experiment = make_experiment(env=CARTPOLE, staleness=unbounded)
    memory = CoreSpec(name=core, size=6)  # type: ignore[arg-type]
    return make_blueprint(
        msgspec.structs.replace(
            experiment,
            algorithm={"name": name, **ALGORITHMS[name]},
            network=NetworkSpec(hidden_sizes=(8,), core=memory),
        )
    )


EVERY_ONE = pytest.mark.parametrize(
    "blueprint",
    [
        pytest.param((name, core), id=f"{name}-{core}")
        for name in ALGORITHMS
        for core in ("gru", "lstm")
    ],
)


def random_batch(blueprint: Blueprint) -> dict[str, torch.Tensor]:
    """With resets inside, and of replayed sequences some that have a burn-in."""
    random = torch.Generator().manual_seed(1)
    if blueprint.replay is None:
        batch = Staging(blueprint.layout, blueprint.rollouts_per_batch).tensors
        batch["log_prob"].uniform_(-1.0, -0.4, generator=random)
        batch["terminated"].bernoulli_(0.1, generator=random)
    else:
        batch = SampleStaging(blueprint.samples).tensors
        batch["weight"].uniform_(0.0, 1.0, generator=random)
        batch["discount"].uniform_(0.0, 1.0, generator=random)
        batch["has_burn_in"].bernoulli_(0.5, generator=random)
        batch["span"].fill_(1)
    for name in ("observation", "reward", "state"):
        batch[name].normal_(generator=random)
    batch["action"].random_(0, 2, generator=random)
    batch["valid"].bernoulli_(0.8, generator=random)
    return batch


def check_equal_training(blueprint: Blueprint, steps) -> None:
    batch = random_batch(blueprint)
    eager, other = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    other.steps = steps
    for _ in range(4):
        one, two = (blueprint.algorithm.update(state, batch) for state in (eager, other))
        assert two.metrics == pytest.approx(one.metrics, abs=TOLERANCE)
        assert one.samples_trained == two.samples_trained
        if one.errors is not None:
            torch.testing.assert_close(two.errors, one.errors, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(other.weights.vector, eager.weights.vector, atol=TOLERANCE, rtol=0)


@EVERY_ONE
def test_the_functional_step_is_the_eager_one(blueprint: tuple[str, str]):
    made = with_memory(*blueprint)
    check_equal_training(made, FunctionalTaker())


@EVERY_ONE
def test_what_is_traced_reads_its_arguments_only(blueprint: tuple[str, str]):
    made = with_memory(*blueprint)
    kinds = kinds_of(made)
    assert {"steps", "act"} <= set(kinds)
    for kind in kinds:
        assert all(node.op != "get_attr" for node in TRACE[kind](made).graph.graph.nodes)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("name", "core"), [("ppo", "gru"), ("dqn", "lstm")])
def test_a_library_agrees_with_eager_steps(
    name: str, core: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    blueprint = with_memory(name, core)
    job = CompileJob(blueprint, "steps")
    job.wait()
    assert job.library is not None, job.outcome
    steps = CompiledSteps(job.library)
    monkeypatch.setattr(steps, "_eager", None)  # it fits, so nothing is done in eager mode
    check_equal_training(blueprint, steps)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ProductKernel:
    return ProductKernel(tmp_path_factory.mktemp("kernel"))


def random_arguments(zeros: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [
        each + 0.3 * torch.rand(each.shape, generator=random)
        if each.is_floating_point()
        else torch.rand(each.shape, generator=random) < 0.7
        if each.dtype == torch.bool
        else each.clone()
        for each in zeros
    ]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("core", ["gru", "lstm"])
@pytest.mark.parametrize("kind", ["act", "steps", "prepare"])
def test_loops_of_memory_compute_what_pytorch_does(
    kind: Kind,
    core: str,
    kernel: ProductKernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    flags = [flag for flag in build._FLAGS if flag not in ("-O3", "-march=native")]
    monkeypatch.setattr(build, "_FLAGS", flags)  # a tenth of the time
    traced = TRACE[kind](with_memory("ppo", core))
    expected, found = (random_arguments(traced.arguments) for _ in range(2))
    compiler._compile_loops(traced.graph, tmp_path / "made.so", tmp_path, kernel)
    with torch.no_grad():
        traced.graph(*expected)
    NativeFunction(tmp_path / "made.so").call(found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=1e-4)
