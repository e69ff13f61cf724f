"""Compiled optimiser steps do what eager ones do; without them training goes on all the same."""

from __future__ import annotations

import errno
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
import torch

import engine.compilation.library as library_module
from engine.algorithms.base import EnvSlice, LearnerState
from engine.algorithms.gradient import EagerSteps, GradientStep
from engine.algorithms.registry import read_config
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import RunClock
from engine.compilation import library as libraries
from engine.compilation import tracing as traced
from engine.compilation.compile_job import CompileJob, Workspace
from engine.compilation.compiled import CompiledSteps
from engine.compilation.compiler import write_library
from engine.compilation.library import (
    DamagedError,
    Kind,
    Library,
    library_path,
    put_library,
    signature_path,
)
from engine.compilation.policy_inference import PolicyInference, as_tensors
from engine.compilation.staging import SampleStaging, Staging
from engine.compilation.traces import TRACE
from engine.compilation.tracing import StepRecorder, record
from engine.executors.learner import LearnerExecutor
from engine.roles.commands import ExportWeights, Update
from engine.roles.events import Noted, Updated
from engine.spec import EnvSpec, Experiment, StalenessSpec
from engine.testing import make_experiment, make_rollout, only
from tests.helpers.engine.functional_steps import FunctionalTaker
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import wait_for
from tests.helpers.warm.start import PROGRAM

TOLERANCE = 1e-5
ROOT = REPOSITORY


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


CARTPOLE = EnvSpec(id="CartPole-v1", num_envs=4)
"""Known in every process, unlike the environments of `engine.testing`."""


def ppo(**hyperparameters: float) -> Experiment:
    return make_experiment(env=CARTPOLE, num_epochs=2, **hyperparameters)


def changing_ppo() -> Experiment:
    """With everything that changes during training, which a library must be told anew."""
    return ppo(
        **{"learning_rate_final": 1e-4, "clip_range_final": 0.01, "value_clip_range": 0.1},
        **{"entropy_coefficient_final": 0.5, "target_kl": 1.0},
    )


def corrected_ppo() -> Experiment:
    """With all corrections for stale samples."""
    return ppo(
        **{"decoupled": True, "advantages": "vtrace", "ess_learning_rate": 0.5, "lag_weights": True}
    )


def impala() -> Experiment:
    experiment = make_experiment(env=CARTPOLE)
    algorithm = {"name": "impala", "rollout_steps": 10, "batch_steps": 80}
    network = msgspec.structs.replace(experiment.network, normalize_observation=True)
    return msgspec.structs.replace(experiment, algorithm=algorithm, network=network)


def dqn() -> Experiment:
    """With a falling learning rate, which a library must be told anew at each call."""
    algorithm = {
        **{"name": "dqn", "batch_size": 8, "updates_per_batch": 3, "prioritized": True},
        **{"learning_rate_final": 1e-4, "learning_rate_decay_env_steps": 10},
    }
    staleness = StalenessSpec(mode="unbounded")
    experiment = make_experiment(env=CARTPOLE, staleness=staleness)
    return msgspec.structs.replace(experiment, algorithm=algorithm)


def of_pendulum(**algorithm: str | int) -> Experiment:
    """SAC or TD3, whose steps are sequences of several parts."""
    staleness = StalenessSpec(mode="unbounded")
    experiment = make_experiment(env=EnvSpec(id="Pendulum-v1", num_envs=4), staleness=staleness)
    sizes: dict[str, str | int] = {"batch_size": 8, "updates_per_batch": 4}
    return msgspec.structs.replace(experiment, algorithm={**sizes, **algorithm})


def in_bfloat16(experiment: Experiment) -> Experiment:
    network = msgspec.structs.replace(experiment.network, precision="bfloat16")
    return msgspec.structs.replace(experiment, network=network)


EXPERIMENTS = pytest.mark.parametrize(
    "experiment",
    [
        *(ppo(), changing_ppo(), corrected_ppo(), impala(), dqn()),
        *(of_pendulum(name="sac"), of_pendulum(name="td3")),
    ],
    ids=["ppo", "changing ppo", "corrected ppo", "impala", "dqn", "sac", "td3"],
)


def random_batch(blueprint: Blueprint) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if blueprint.algorithm.samples().kind == "replay":
        batch = SampleStaging(blueprint.samples).tensors
        for name in ("observation", "next_observation", "reward"):
            batch[name].normal_(generator=generator)
        for name in ("weight", "discount"):
            batch[name].uniform_(0.0, 1.0, generator=generator)
        batch["action"].random_(0, 2, generator=generator)
        return batch
    batch = Staging(blueprint.layout, blueprint.rollouts_per_batch).tensors
    batch["observation"].normal_(generator=generator)
    batch["action"].random_(0, 2, generator=generator)
    batch["log_prob"].uniform_(-1.0, -0.4, generator=generator)
    batch["reward"].normal_(generator=generator)
    batch["valid"].copy_(torch.rand(batch["valid"].shape, generator=generator) < 0.9)
    batch["terminated"].copy_(torch.rand(batch["valid"].shape, generator=generator) < 0.1)
    if blueprint.algorithm.samples().needs_versions:
        batch["version"] = -torch.arange(batch["valid"].shape[1])
    return batch


@EXPERIMENTS
def test_the_functional_step_is_the_eager_one(experiment: Experiment):
    blueprint = make_blueprint(experiment)
    batch = random_batch(blueprint)
    eager, functional = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    functional.steps = FunctionalTaker()
    for number in range(5):
        eager.progress = functional.progress = number / 4
        one = blueprint.algorithm.update(eager, batch)
        other = blueprint.algorithm.update(functional, batch)
        assert other.metrics == pytest.approx(one.metrics, abs=TOLERANCE)
        assert (other.errors is None) == (one.errors is None)
        if one.errors is not None:
            torch.testing.assert_close(other.errors, one.errors, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        functional.weights.vector, eager.weights.vector, atol=TOLERANCE, rtol=0
    )
    assert functional.num_updates == eager.num_updates


def test_a_parameter_that_no_gradient_reaches_may_be_infinite():
    """A mask of -inf, say. Its gradient was 0 times itself, so one such number was in all steps."""
    blueprint = make_blueprint(dqn())
    state = blueprint.algorithm.init(3)
    state.steps = FunctionalTaker()
    state.network.epsilon.fill_(float("-inf"))
    blueprint.algorithm.update(state, random_batch(blueprint))
    assert state.weights.vector.isfinite().all()


def test_recording_an_update_finds_its_samples_and_minibatches():
    blueprint = make_blueprint(ppo())
    recorder = record(blueprint, blueprint.algorithm.init(0))
    assert recorder.order is not None
    assert recorder.order.shape == (4, 40)
    assert recorder.samples["observation"].shape == (80, 4)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@EXPERIMENTS
def test_a_library_agrees_with_eager_steps(experiment: Experiment, tmp_path: Path):
    blueprint = make_blueprint(experiment)
    library = library_path(blueprint, "steps")
    job = CompileJob(blueprint, "steps")
    waiting = CompileJob(blueprint, "steps")
    assert waiting._process is None, "one of them compiles"
    assert not waiting.poll()
    assert job._process is not None
    job._process.wait(300)
    assert job.poll(), "the outcome is known"
    assert job.outcome.startswith("compiled in")
    files = sorted(path for path in library.parent.iterdir() if path.is_file())
    assert files == [signature_path(library), library]
    assert job.library is not None
    assert waiting.poll()
    assert waiting.outcome == "compiled by another process"
    batch = random_batch(blueprint)
    eager, compiled = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    compiled.steps = CompiledSteps(job.library)
    for number in range(5):
        eager.progress = compiled.progress = number / 4
        one = blueprint.algorithm.update(eager, batch)
        other = blueprint.algorithm.update(compiled, batch)
        assert other.metrics == pytest.approx(one.metrics, abs=TOLERANCE)
    torch.testing.assert_close(
        compiled.weights.vector, eager.weights.vector, atol=TOLERANCE, rtol=0
    )
    check_that_nothing_is_learnt_from_infinity(blueprint, compiled, batch)
    check_that_others_stay_eager(blueprint, CompiledSteps(job.library))
    assert CompileJob(blueprint, "steps").outcome == "taken from the cache"


def check_that_nothing_is_learnt_from_infinity(
    blueprint: Blueprint, compiled: LearnerState, batch: dict[str, torch.Tensor]
) -> None:
    def learning() -> list[torch.Tensor]:
        parameters = [p for p in compiled.network.parameters() if p.requires_grad]
        return [t.detach().clone() for t in (*parameters, *moments)]

    moments = compiled.optimizer.named_tensors().values()
    before = learning()
    compiled.weights.steps.count()
    spoilt = {**batch, "reward": torch.full_like(batch["reward"], torch.inf)}
    blueprint.algorithm.update(compiled, spoilt)
    wanted, left_out = compiled.weights.steps.count()
    assert wanted == left_out > 0
    assert all(torch.equal(one, other) for one, other in zip(before, learning(), strict=True))


def check_that_others_stay_eager(blueprint: Blueprint, steps: CompiledSteps) -> None:
    """Another shape is trained eagerly, with the same result as ever."""
    recorder = record(blueprint, blueprint.algorithm.init(0))
    assert recorder.step is not None
    samples = {name: values[:8].clone() for name, values in recorder.samples.items()}
    if recorder.order is None:
        samples["observation"] = recorder.samples["observation"][:9].clone()
    one, other = blueprint.algorithm.init(4), blueprint.algorithm.init(4)
    EagerSteps().take(one, recorder.step, samples)
    steps.take(other, recorder.step, samples)
    torch.testing.assert_close(other.weights.vector, one.weights.vector, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["steps", "act"])
@EXPERIMENTS
def test_what_is_traced_reads_its_arguments_only(kind: Kind, experiment: Experiment):
    """So what a library computes cannot depend on anything that was there when it was made."""
    graph = TRACE[kind](make_blueprint(experiment)).graph
    assert all(node.op != "get_attr" for node in graph.graph.nodes)


def random_rows(
    blueprint: Blueprint, acting: PolicyInference, seed: int
) -> dict[str, torch.Tensor]:
    """A rollout to be, with observations in it."""
    tensors = as_tensors(blueprint.layout.views(blueprint.layout.allocate()))
    tensors["observation"].normal_(generator=torch.Generator().manual_seed(seed))
    return tensors


def make_acting(blueprint: Blueprint) -> PolicyInference:
    acting = PolicyInference(
        blueprint.algorithm, EnvSlice(4, 4, 8), torch.Generator().manual_seed(2)
    )
    acting.parameters.load(blueprint.algorithm.init(3).weights.vector)
    acting.refresh()
    return acting


ACTING = pytest.mark.parametrize(
    "experiment",
    [ppo(), impala(), dqn(), in_bfloat16(ppo())],
    ids=lambda e: f"{e.algorithm_name}-{e.network.precision}",
)


@ACTING
def test_the_traced_act_is_the_eager_one(experiment: Experiment):
    blueprint = make_blueprint(experiment)
    eager, traced = make_acting(blueprint), make_acting(blueprint)
    wanted, found = (random_rows(blueprint, acting, 5) for acting in (eager, traced))
    graph = TRACE["act"](blueprint).graph
    for one, other in zip(eager.rows(wanted)[0], traced.rows(found)[0], strict=True):
        eager.choose(one)
        graph(*traced.weights, *other)
    check_equal_choices(eager, wanted, found)


def test_what_is_rounded_once_acts_like_what_is_rounded_in_every_step():
    blueprint = make_blueprint(in_bfloat16(ppo()))
    acting = make_acting(blueprint)
    state = blueprint.algorithm.init(3)
    rows = acting.rows(random_rows(blueprint, acting, 5))[0]
    for observation, noise, *outputs in rows:
        acting.choose((observation, noise, *outputs))
        wanted = blueprint.algorithm.act(state.network, observation, noise)
        for name, output in zip(acting.names, outputs, strict=True):
            torch.testing.assert_close(output, wanted[name], rtol=0, atol=0)
    before = [tensor.clone() for tensor in acting.weights]
    acting.parameters.load(blueprint.algorithm.init(4).weights.vector)
    acting.refresh()
    assert all(not torch.equal(a, b) for a, b in zip(before, acting.weights, strict=True))
    assert acting.weights[1].dtype == torch.bfloat16


def check_equal_choices(acting: PolicyInference, wanted: dict, found: dict) -> None:
    assert len(wanted["action"].unique()) > 1
    for name in acting.names:
        torch.testing.assert_close(found[name], wanted[name], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@EXPERIMENTS
def test_a_library_chooses_what_is_chosen_eagerly(experiment: Experiment):
    blueprint = make_blueprint(experiment)
    job = CompileJob(blueprint, "act")
    assert job._process is not None
    job._process.wait(300)
    assert job.poll(), "the outcome is known"
    assert job.library is not None, job.outcome
    eager, compiled = make_acting(blueprint), make_acting(blueprint)
    compiled.use(job.library)
    wanted, found = (random_rows(blueprint, acting, 5) for acting in (eager, compiled))
    for one, other in zip(eager.rows(wanted)[0], compiled.rows(found)[0], strict=True):
        assert callable(other)
        eager.choose(one)
        compiled.choose(other)
    check_equal_choices(eager, wanted, found)
    (rows,) = compiled.rows({name: values[:, :2].clone() for name, values in found.items()})
    assert isinstance(rows[0], tuple), "another number of environments is acted in eagerly"


def test_a_loss_that_reads_other_tensors_is_refused(tmp_path: Path):
    blueprint = make_blueprint(ppo())
    step = blueprint.algorithm._step
    foreign = torch.ones(3)
    impure = GradientStep(
        loss=lambda network, minibatch: tuple(
            part * foreign.sum() for part in step.loss(network, minibatch)
        ),
        learning_rate=1e-3,
        epsilon=1e-5,
        max_gradient_norm=1.0,
    )
    blueprint.algorithm._step = impure
    with pytest.raises((AssertionError, RuntimeError), match=r"FakeTensors|not its arguments"):
        write_library(blueprint, "steps", tmp_path / "steps.so", tmp_path)


def test_without_a_compiler_training_stays_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    blueprint = make_blueprint(ppo())
    executor = LearnerExecutor(blueprint, tmp_path, RunClock.start_now(), compiles=True)
    note = only(executor.perform(ExportWeights(0)), Noted)
    assert note.kind == "eager"
    assert "no C++ compiler here (no-such-compiler)" in note.detail
    assert capsys.readouterr().out.count("no C++ compiler") == 1
    rollouts = tuple(make_rollout(layout=blueprint.layout) for _ in range(2))
    (updated,) = executor.perform(Update(rollouts))
    assert isinstance(updated, Updated)
    executor.close()


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = tmp_path / "broken-compiler"
    compiler.write_text("#!/bin/sh\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    blueprint = make_blueprint(ppo())
    job = CompileJob(blueprint, "steps")
    assert job._process is not None
    job._process.wait(120)
    assert job.poll()
    assert job.library is None
    assert job.outcome.startswith("not compiled: ")
    assert not job.poll(), "told once"
    left = {path.name: path for path in library_path(blueprint, "steps").parent.iterdir()}
    assert left.keys() <= {"objects"}
    assert not any(path.suffix != ".lock" for path in left["objects"].iterdir())


CONTENT = bytes(range(256)) * 64


def put_something(library: Path) -> None:
    """A library as far as its seal goes; the dynamic linker would refuse it."""
    library.parent.mkdir(parents=True, exist_ok=True)
    made = library.with_name("made")
    made.write_bytes(CONTENT)
    put_library(made, {}, library)


def test_a_library_that_does_not_fit_is_not_used():
    blueprint = make_blueprint(ppo())
    put_something(library_path(blueprint, "steps"))
    job = CompileJob(blueprint, "steps")
    assert (job.library, job._process) == (None, None)
    assert job.outcome.startswith("not compiled: ")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda path: os.truncate(path, len(CONTENT) // 2),
    "empty": lambda path: os.truncate(path, 0),
    "one byte": lambda path: path.write_bytes(CONTENT[:-1] + b"x"),
    "zeros": lambda path: path.write_bytes(bytes(len(CONTENT))),
    "gone": lambda path: path.unlink(),
    "seal gone": lambda path: signature_path(path).unlink(),
    "seal empty": lambda path: os.truncate(signature_path(path), 0),
    "seal half": lambda path: os.truncate(signature_path(path), 30),
    "seal of another release": lambda path: signature_path(path).write_text("{}"),
    "seal of zeros": lambda path: signature_path(path).write_bytes(bytes(100)),
    "seal in no encoding": lambda path: signature_path(path).write_bytes(b"\xff\xfe{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_never_loaded_and_compiled_anew(
    damage: str, monkeypatch: pytest.MonkeyPatch
):
    blueprint = make_blueprint(ppo())
    library = library_path(blueprint, "steps")
    put_something(library)
    DAMAGES[damage](library)
    with pytest.raises(DamagedError):
        Library(library)
    job = CompileJob(blueprint, "steps")
    assert job._process is not None
    assert (job.library, job.outcome) == (None, "")
    assert not library.exists()
    assert not signature_path(library).exists()
    job.close()
    put_something(library)
    DAMAGES[damage](library)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert CompileJob(blueprint, "steps").outcome.startswith("not compiled: no C++ compiler")


def test_a_library_of_another_user_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_something(tmp_path / "steps.so")
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(DamagedError, match="another user"):
        Library(tmp_path / "steps.so")


def test_who_finds_a_damaged_library_leaves_it_to_whoever_compiles(tmp_path: Path):
    blueprint = make_blueprint(ppo())
    library = library_path(blueprint, "steps")
    put_something(library)
    os.truncate(library, 0)
    claimed = Workspace.claim(library)
    assert claimed is not None
    job = CompileJob(blueprint, "steps")
    assert not job.poll()
    assert (job._process, library.exists()) == (None, True)
    put_something(library)  # is done
    assert job.poll()
    assert job.outcome
    claimed.remove()


def test_a_disk_that_fills_up_leaves_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library, made = tmp_path / "steps.so", tmp_path / "made"
    made.write_bytes(CONTENT)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(library_module, "write_durably", full)
    with pytest.raises(OSError, match="No space"):
        put_library(made, {}, library)
    with pytest.raises(DamagedError):
        Library(library)


def left_beside(library: Path) -> list[Path]:
    """Files in the cache; objects that libraries share may be kept at once."""
    return [path for path in library.parent.iterdir() if path.name != "objects"]


def test_whoever_waits_for_a_compiler_that_was_ended_compiles_instead():
    blueprint = make_blueprint(ppo())
    first, second, third = (CompileJob(blueprint, "steps") for _ in range(3))
    first.close()
    assert not second.poll(), "not done yet"
    assert second._process is not None
    assert not third.poll()
    assert third._process is None, "one of them compiles"
    second.close()
    assert not left_beside(library_path(blueprint, "steps"))


def test_a_library_that_comes_just_before_the_wait_is_told_once(monkeypatch: pytest.MonkeyPatch):
    blueprint = make_blueprint(ppo())
    library = library_path(blueprint, "steps")

    def claim(_path: Path) -> None:
        """Another process has the right, and is done at this moment."""
        put_something(library)

    monkeypatch.setattr(Workspace, "claim", claim)
    job = CompileJob(blueprint, "steps")
    assert job.outcome
    assert not job.poll(), "told already"


def test_a_compiler_keeps_its_workspace_until_it_has_ended():
    blueprint = make_blueprint(ppo())
    job = CompileJob(blueprint, "steps")
    assert job._process is not None
    assert job._workspace is not None
    os.close(job._workspace.lock)  # as if the process that started it had died
    job._process.send_signal(signal.SIGSTOP)
    assert Workspace.claim(library_path(blueprint, "steps")) is None
    job._process.kill()
    job._process.wait()
    claimed = Workspace.claim(library_path(blueprint, "steps"))
    assert claimed is not None
    claimed.remove()


def test_closing_ends_the_compiler_and_removes_its_files():
    blueprint = make_blueprint(ppo())
    job = CompileJob(blueprint, "steps")
    process = job._process
    assert process is not None
    job.close()
    assert process.poll() is not None
    assert not left_beside(library_path(blueprint, "steps"))


CPP_COMPILER = """#!/bin/sh
: > "${TMPDIR:-/tmp}/ccAbCdEf.s"
: > "$(dirname "$0")/is-compiling"
exec sleep 600
"""


def test_a_cpp_compiler_that_is_killed_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    temporary, program = tmp_path / "temporary", tmp_path / "g++"
    temporary.mkdir()
    program.write_text(CPP_COMPILER)
    program.chmod(0o700)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("CXX", str(program))
    job = CompileJob(make_blueprint(ppo()), "steps")
    wait_for((tmp_path / "is-compiling").exists, 120.0, "a C++ compiler")
    job.close()
    assert list(temporary.iterdir()) == []


LEARNER = """
import sys, time
from engine.blueprint import make_blueprint
from engine.compilation.compile_job import CompileJob
from engine.spec import Experiment
import msgspec
job = CompileJob(make_blueprint(msgspec.json.decode(sys.argv[1], type=Experiment)), "steps")
print(job._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.processes
def test_a_killed_learner_takes_its_compiler_with_it(tmp_path: Path):
    learner = subprocess.Popen(
        [sys.executable, "-m", PROGRAM, LEARNER, msgspec.json.encode(ppo()).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert learner.stdout is not None
    compiler = psutil.Process(int(learner.stdout.readline()))
    learner.kill()
    learner.communicate()
    wait_until_gone(compiler, 30.0)


BESIEGED_LEARNER = """
import errno, os, resource, sys
import msgspec
from engine.blueprint import make_blueprint
from engine.compilation.compile_job import CompileJob
from engine.host.descriptors import keep_spare
from engine.spec import Experiment
blueprint = make_blueprint(msgspec.json.decode(sys.argv[1], type=Experiment))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
keep_spare()
try:
    while True:
        os.dup(0)
except OSError as error:
    assert error.errno == errno.EMFILE
job = CompileJob(blueprint, "steps")
assert job._process is not None, job.outcome
job.close()
"""


@pytest.mark.processes
def test_a_learner_compiles_also_where_strangers_have_taken_all_descriptors(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", BESIEGED_LEARNER, msgspec.json.encode(ppo()).decode()],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not left_beside(library_path(make_blueprint(ppo()), "steps"))


def wait_until_gone(process: psutil.Process, within_s: float) -> None:
    """Waits on the system, which sends this test no events: it is not our child."""
    deadline = time.monotonic() + within_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"{process} still runs"
        time.sleep(0.05)


def steps_path(experiment: Experiment) -> Path:
    return library_path(make_blueprint(experiment), "steps")


def test_the_library_depends_on_what_is_computed():
    plain = steps_path(ppo())
    assert plain == steps_path(ppo())
    assert plain != steps_path(ppo(clip_range=0.1))
    assert plain != steps_path(ppo(minibatch_steps=80))
    assert plain != library_path(make_blueprint(ppo()), "act")


def test_the_library_depends_on_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = tmp_path / "compiler"
    compiler.write_text("one")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    plain = steps_path(ppo())
    assert plain == steps_path(ppo())
    compiler.write_text("another")
    assert plain != steps_path(ppo())


def normalising_ppo() -> Experiment:
    """It can have every option."""
    return ppo(normalize_reward=True)


def apex() -> Experiment:
    experiment = dqn()
    return msgspec.structs.replace(experiment, algorithm={**experiment.algorithm, "name": "apex"})


def with_others(experiment: Experiment, names: tuple[str, ...]) -> Experiment:
    """Other values of these hyperparameters, as far as the experiment may have them."""
    config = read_config(experiment)
    other_of = {
        **{bool: lambda v: not v, int: lambda v: 2 * v, float: lambda v: v / 2 or 1.0},
        **{type(None): lambda v: 0.5, str: lambda v: OTHER_WORD[v]},
    }
    values = {name: getattr(config, name) for name in names}
    others = {name: other_of[type(value)](value) for name, value in values.items()}
    if "epsilon_decay_fraction" in others:  # excludes the other
        del others["epsilon_decay_env_steps"]
    return msgspec.structs.replace(experiment, algorithm={**experiment.algorithm, **others})


OTHER_WORD = {"huber": "squared", "gae": "vtrace"}
SHAPING = {
    *("rollout_steps", "batch_steps", "minibatch_steps", "batch_size", "updates_per_batch"),
    *("normalize_reward", "dueling", "prioritized", "initial_priorities", "diagnostics"),
}
"""What is read as well, as the shapes of rollouts, weights and minibatches."""


@pytest.mark.parametrize("kind", ["steps", "act"])
@pytest.mark.parametrize("make", [normalising_ppo, impala, dqn, apex])
def test_runs_that_differ_in_what_is_not_read_share_a_library(make, kind: Kind):
    blueprint = make_blueprint(make())
    request = blueprint.algorithm.samples()
    unread = request.unread_by_step if kind == "steps" else request.unread_by_act
    names = tuple(name for name in unread if name not in SHAPING)
    assert "learning_rate" in names
    other = make_blueprint(with_others(make(), names))
    assert library_path(other, kind) == library_path(blueprint, kind)
    assert TRACE[kind](other).graph.code == TRACE[kind](blueprint).graph.code


def test_the_library_depends_on_the_processor(monkeypatch: pytest.MonkeyPatch):
    """A home directory may be shared by machines that do not run each other's instructions."""
    here = steps_path(ppo())
    monkeypatch.setattr(libraries, "processor_features", lambda: ["flags: other"])
    assert steps_path(ppo()) != here


def test_the_library_depends_on_how_it_is_made_and_called():
    used = re.findall(r"^from engine\.compilation\.(\w+)", inspect.getsource(traced), re.MULTILINE)
    described_otherwise = {"library", "native"}
    assert set(used) - described_otherwise < set(libraries.MAKERS)


def test_a_recorder_takes_the_steps_that_it_records():
    blueprint = make_blueprint(ppo())
    eager, recorded = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    recorded.steps = StepRecorder()
    batch = random_batch(blueprint)
    blueprint.algorithm.update(eager, batch)
    blueprint.algorithm.update(recorded, batch)
    torch.testing.assert_close(eager.weights.vector, recorded.weights.vector, atol=0, rtol=0)
