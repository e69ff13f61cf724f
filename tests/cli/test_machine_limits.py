"""What a machine refuses is said in words with a way out, never with a traceback."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import PreflightError, of_machine
from tests.helpers.paths import REPOSITORY

NUMBERS = [
    *(errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.ENOMEM, errno.EAGAIN, errno.EIO),
]


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_each_has_words_and_a_way_out(number: int) -> None:
    error = of_machine(OSError(number, os.strerror(number), "/disk/file"))
    assert isinstance(error, PreflightError)
    assert error.exit_code == 3
    assert error.where == "/disk/file"
    assert error.fix


def test_other_libraries_and_threads_count_too() -> None:
    class LibraryError(Exception):
        errno = errno.EMFILE

    text = f"libx.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"
    for error in (LibraryError(), ImportError(text), RuntimeError("can't start new thread")):
        assert of_machine(error) is not None, error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EBADF, "x"), FileNotFoundError(errno.ENOENT, "x"), ValueError(), ImportError()],
    ids=repr,
)
def test_a_fault_of_the_program_stays_one(error: Exception) -> None:
    assert of_machine(error) is None


def tianji(directory: Path, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`before` is run by the shell that becomes the command."""
    command = [sys.executable, "-m", "tianji_cli.main", *words]
    return subprocess.run(
        ["sh", "-c", f'{before or ":"}; exec "$@"', "sh", *command],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.processes
@pytest.mark.parametrize("words", ["up", "runs", "status", "report", "check x"])
def test_a_working_directory_that_was_removed_is_named(tmp_path: Path, words: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = tianji(gone, *words.split(), before=f"rmdir {gone}")
    assert done.returncode == 3, done.stderr
    assert "the working directory was removed" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


@pytest.mark.processes
@pytest.mark.parametrize("limit", [8, 12])
def test_too_few_descriptors_are_named(tmp_path: Path, limit: int) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= limit
    done = tianji(tmp_path, "up", "--name", "run", before=f"ulimit -n {limit}")
    assert done.returncode in (1, 3), done.stderr
    assert "more files" in done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
