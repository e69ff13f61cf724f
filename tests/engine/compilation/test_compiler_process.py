"""A compiler is a fork of who needs it, or a new interpreter where forks may not be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.blueprint import Blueprint, make_blueprint
from engine.compilation.compile_job import CompileJob
from engine.devices.visible import PRETENDED
from engine.host.fork import Fork
from engine.spec import EnvSpec
from engine.testing import make_experiment

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture
def blueprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blueprint:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_blueprint(make_experiment(env=EnvSpec(id="CartPole-v1", num_envs=4)))


def test_it_is_a_fork_unless_there_are_gpus(blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch):
    for devices, kind in (("", Fork), ("cpu:0", subprocess.Popen)):
        monkeypatch.setenv(PRETENDED, devices)
        job = CompileJob(blueprint, "act")
        assert isinstance(job._process, kind)
        job.close()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("devices", ["", "cpu:0"])
def test_either_makes_the_library(
    devices: str, blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(PRETENDED, devices)
    job = CompileJob(blueprint, "prepare")
    job.wait()
    assert job.outcome.startswith("compiled in")
    assert job.library is not None


def test_what_fails_in_a_fork_is_told(blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("it has other operations")

    monkeypatch.setattr("engine.compilation.compiler.write_library", fail)
    own = os.getpid()
    job = CompileJob(blueprint, "steps")
    job.wait()
    assert os.getpid() == own
    assert job.outcome == "not compiled: RuntimeError: it has other operations"
