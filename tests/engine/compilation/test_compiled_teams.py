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
from engine.compilation.staging import SampleStaging, Staging
from engine.compilation.traces import TRACE
from engine.layers.inputs import is_observation
from engine.rollout import NEXT
from engine.spec import CoreSpec, EnvSpec, Experiment, NetworkSpec, StalenessSpec
from engine.testing import make_experiment

TWO_STEP = EnvSpec(id="TwoStep-v0", num_envs=4)


def experiment(name: str, core: CoreSpec | None, agents: str) -> Experiment:
    small = make_experiment(env=TWO_STEP)
    network = NetworkSpec(hidden_sizes=(8,), core=core, normalize_observation=True)
    algorithm = {**small.algorithm, "name": name, "num_epochs": 2}
    return replace(small, agents=agents, algorithm=algorithm, network=network)


def from_replay(name: str, agents: str) -> Experiment:
    algorithm = {"name": name, "batch_size": 16, "updates_per_batch": 4, "min_replay_size": 0}
    staleness = StalenessSpec(mode="unbounded")
    small = make_experiment(env=TWO_STEP, staleness=staleness)
    return replace(small, agents=agents, algorithm=algorithm)


SHARED_IPPO = experiment("ippo", None, "shared")
SEPARATE_MAPPO = experiment("mappo", CoreSpec(name="gru", size=4), "separate")
TEAMS = pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(SHARED_IPPO, id="ippo"),
        pytest.param(SEPARATE_MAPPO, id="mappo with a memory"),
        pytest.param(from_replay("qmix", "shared"), id="qmix"),
        pytest.param(from_replay("maddpg", "separate"), id="maddpg"),
    ],
)


@pytest.mark.parametrize("kind", ["act", pytest.param("steps", marks=pytest.mark.slow)])
def test_what_is_traced_reads_its_arguments_only(kind: Kind) -> None:
    graph = TRACE[kind](make_blueprint(SEPARATE_MAPPO)).graph
    assert all(node.op != "get_attr" for node in graph.graph.nodes)


def random_batch(blueprint: Blueprint) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    if blueprint.replay is None:
        batch = Staging(blueprint.layout, blueprint.rollouts_per_batch).tensors
        batch["valid"].copy_(torch.rand(batch["valid"].shape, generator=random) < 0.9)
    else:
        batch = SampleStaging(blueprint.samples).tensors
    for name, values in batch.items():
        if values.is_floating_point():
            values.normal_(generator=random)
        elif is_observation(name.removeprefix(NEXT)) or name == "action":
            values.random_(0, 2, generator=random)
    if blueprint.replay is not None:
        batch["discount"].fill_(0.99)
        batch["weight"].fill_(1.0)
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
        random = torch.Generator().manual_seed(4)
        for name, values in tensors.items():  # each environment sees something else
            if is_observation(name) and values.is_floating_point():
                values.normal_(generator=random)
            elif is_observation(name):
                values.random_(0, 2, generator=random)
        for row in acting.rows(tensors)[0]:
            acting.choose(row)
        chosen.append(tensors)
    names = [field.name for field in blueprint.algorithm.samples().fields if not field.extra_rows]
    for name in names:
        torch.testing.assert_close(chosen[1][name], chosen[0][name], atol=1e-5, rtol=0)
