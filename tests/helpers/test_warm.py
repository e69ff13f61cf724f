"""A fork with read libraries is, to others, the process that was asked for; else it is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from execnet.gateway_io import popen_args
from execnet.xspec import XSpec

from tests.helpers.running import wait_for
from tests.helpers.warm import caches, server
from tests.helpers.warm.start import WORKER, module_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")

WORDS = [sys.executable, "-P", "-m", "engine.supervision.supervisor"]


@contextmanager
def supervisor(**env: str) -> Iterator[psutil.Process]:
    """Waits for a request until its input is closed."""
    with subprocess.Popen(
        WORDS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env}
    ) as process:
        found = psutil.Process(process.pid)
        wait_for(lambda: found.name() == "tj-supervisor", 20, "it has begun")
        yield found
        process.communicate(timeout=20)
    assert process.returncode == 0


def has_read_torch(process: psutil.Process) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def test_a_fork_shows_what_was_asked_for():
    with supervisor(MARK="mine") as process:
        assert has_read_torch(process)
        assert process.ppid() == os.getpid()
        assert [word for word in process.cmdline() if word] == WORDS
        assert process.environ()["MARK"] == "mine"
        assert "ROOM" not in process.environ()


def test_a_fork_will_do_once_this_process_has_compiled(tmp_path):
    # PyTorch leaves that variable in a process that compiles, and so in those it starts later.
    with supervisor(TORCHINDUCTOR_CACHE_DIR=str(tmp_path)) as process:
        assert has_read_torch(process)


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "PYTHONPATH"])
def test_what_an_interpreter_reads_at_its_start_needs_a_new_one(name, tmp_path):
    (tmp_path / "sitecustomize.py").touch()
    with supervisor(**{name: {"PYTHONHASHSEED": "1"}.get(name, str(tmp_path))}) as process:
        assert not has_read_torch(process)


@pytest.mark.cold
def test_a_test_can_ask_for_new_ones():
    with supervisor() as process:
        assert not has_read_torch(process)


def test_a_worker_of_the_suite_is_a_fork_and_leaves_one():
    found = module_of(popen_args(XSpec("popen")))
    assert found is not None
    assert found[0] == WORKER
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    assert (server.inherited is not None) == is_worker


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork with threads
def test_what_workers_would_all_rewrite_is_rewritten_before_they_begin(tmp_path, monkeypatch):
    """One that is no Python is left to them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name, text in (("good", "assert 1 < 2\n"), ("bad", "assert\n"), ("other", "\n")):
        (tmp_path / f"test_{name}.py").write_text(text)
    files = sorted(tmp_path.glob("test_*.py"))
    monkeypatch.setattr(caches, "allowed_cores", lambda: {0})
    worker = SimpleNamespace(kind="worker", cwd=str(tmp_path))
    caches.fill_caches([str(tmp_path)], worker)
    assert [caches.is_rewritten(path) for path in files] == [False, True, True]
