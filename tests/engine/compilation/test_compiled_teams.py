"""Compiled steps and acting of algorithms for teams."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from engine.algorithms.base import EnvSlice
from engine.blueprint import Blueprint, make_blueprint
from engine.compilation.compile_job import CompileJob
from engine.compilation.compiled import CompiledSteps
from engine.compilation.library import Kind
from engine.compilation.policy_inference import PolicyInference, as_tensors, with_states
from engine.compilation.staging import Staging
from engine.compilation.tracing import TRACE
from engine.layers.inputs import is_observation
from engine.spec import CoreSpec, EnvSpec, Experiment, NetworkSpec
from engine.testing import make_experiment

TWO_STEP = EnvSpec(id="TwoStep-v0", num_envs=4)


def experiment(name: str, core: CoreSpec | None, agents: str) -> Experiment:
    small = make_experiment(env=TWO_STEP)
    network = NetworkSpec(hidden_sizes=(8,), core=core, normalize_observation=True)
    algorithm = {**small.algorithm, "name": name, "num_epochs": 2}
    return replace(small, agents=agents, algorithm=algorithm, network=network)


SHARED_IPPO = experiment("ippo", None, "shared")
SEPARATE_MAPPO = experiment("mappo", CoreSpec(name="gru", size=4), "separate")
TEAMS = pytest.mark.parametrize(
    "experiment", [SHARED_IPPO, SEPARATE_MAPPO], ids=["ippo", "mappo with a memory"]
)


@pytest.mark.parametrize("kind", ["act", pytest.param("steps", marks=pytest.mark.slow)])
def test_what_is_traced_reads_its_arguments_only(kind: Kind) -> None:
    graph = TRACE[kind](make_blueprint(SEPARATE_MAPPO)).graph
    assert all(node.op != "get_attr" for node in graph.graph.nodes)


def random_batch(blueprint: Blueprint) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    batch = Staging(blueprint.layout, blueprint.rollouts_per_batch).tensors
    for name, values in batch.items():
        if values.is_floating_point():
            values.normal_(generator=random)
        elif is_observation(name) or name == "action":
            values.random_(0, 2, generator=random)
    batch["valid"].copy_(torch.rand(batch["valid"].shape, generator=random) < 0.9)
    return batch


def made(blueprint: Blueprint, kind: Kind) -> CompileJob:
    job = CompileJob(blueprint, kind)
    assert job._process is not None
    job._process.wait(300)
    assert job.poll(), "the outcome is known"
    return job


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@TEAMS
def test_libraries_agree_with_eager_mode(experiment: Experiment, tmp_path: Path) -> None:
    blueprint = make_blueprint(experiment)
    job = made(blueprint, "steps")
    assert job.library is not None, job.outcome
    batch = random_batch(blueprint)
    eager, compiled = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    compiled.steps = CompiledSteps(job.library)
    for _ in range(3):
        one = blueprint.algorithm.update(eager, batch)
        other = blueprint.algorithm.update(compiled, batch)
        assert other.metrics == pytest.approx(one.metrics, abs=1e-4)
    torch.testing.assert_close(compiled.weights.vector, eager.weights.vector, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@TEAMS
def test_a_library_chooses_what_is_chosen_eagerly(experiment: Experiment) -> None:
    blueprint = make_blueprint(experiment)
    job = made(blueprint, "act")
    assert job.library is not None, job.outcome
    chosen = []
    for library in (None, job.library):
        acting = PolicyInference(
            blueprint.algorithm, EnvSlice(0, 4, 4), torch.Generator().manual_seed(2)
        )
        acting.parameters.load(blueprint.algorithm.init(3).weights.vector)
        acting.refresh()
        if library is not None:
            acting.use(library)
        layout = blueprint.layout
        tensors = with_states(as_tensors(layout.views(layout.allocate())), layout)
        for name, values in tensors.items():
            if is_observation(name):
                values.fill_(1)
        for row in acting.rows(tensors)[0]:
            acting.choose(row)
        chosen.append(tensors)
    for name in ("action", "log_prob"):
        torch.testing.assert_close(chosen[1][name], chosen[0][name], atol=1e-5, rtol=0)
