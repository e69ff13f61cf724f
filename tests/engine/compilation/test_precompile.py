"""Compiling ahead of a run: who does nothing else may wait, and is told what became of it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import msgspec
import pytest

from engine.blueprint import make_blueprint
from engine.compilation import precompile as module
from engine.compilation.compile_job import CompileJob, Workspace
from engine.compilation.library import library_path, put_library
from engine.spec import EnvSpec
from engine.testing import make_experiment

EXPERIMENT = make_experiment(env=EnvSpec(id="CartPole-v1", num_envs=4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_without_a_compiler_it_says_so_at_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    path = tmp_path / "experiment.json"
    path.write_bytes(msgspec.json.encode(EXPERIMENT))
    monkeypatch.setattr("sys.argv", ["precompile", str(path)])
    module.main()
    why = "not compiled: no C++ compiler here (no-such-compiler)"
    names = ("optimiser steps", "values before the steps", "acting")
    assert capsys.readouterr().out.splitlines() == [f"{name} {why}" for name in names]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_who_waits_for_another_process_is_told_when_that_is_done():
    blueprint = make_blueprint(EXPERIMENT)
    library = library_path(blueprint, "steps")
    other = Workspace.claim(library)
    assert other is not None
    job = CompileJob(blueprint, "steps")
    assert job._process is None
    waiting = threading.Thread(target=job.wait)
    waiting.start()
    made = other.path / "made"
    made.write_bytes(b"not a library")
    put_library(made, {}, library)
    other.remove()
    waiting.join(20)
    assert not waiting.is_alive()
    assert job.outcome.startswith("not compiled: ")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_all_functions_are_in_the_cache_afterwards():
    names = ["optimiser steps", "values before the steps", "acting"]
    lines = module.precompile(EXPERIMENT)
    assert [line.partition(" compiled in ")[0] for line in lines] == names
    assert module.precompile(EXPERIMENT) == [f"{name} taken from the cache" for name in names]
