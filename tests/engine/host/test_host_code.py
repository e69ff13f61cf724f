"""C++ of the engine is compiled once for all libraries."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.host import account
from engine.host.host_code import (
    FLAGS,
    FLAGS_OF_PRODUCT,
    PRODUCT,
    ProductInAdvance,
    compile_object,
)
from tests.helpers.running import wait_for

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_object_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    flags = (*FLAGS, "-O0")
    first = compile_object("scan.cpp", tmp_path / "one", "scan", flags)
    monkeypatch.setattr(subprocess, "run", None)
    second = compile_object("scan.cpp", tmp_path / "other", "scan", flags)
    assert second.read_bytes() == first.read_bytes()
    with pytest.raises(TypeError):  # other flags: it would be compiled
        compile_object("scan.cpp", tmp_path / "other", "scan", FLAGS)


def test_what_cannot_be_compiled_is_not_kept(tmp_path: Path):
    with pytest.raises(subprocess.CalledProcessError):
        compile_object("scan.cpp", tmp_path, "scan", ("--no-such-flag",))
    assert not list((account.cache_directory() / "objects").glob("*.o"))


def kept_object() -> Path:
    (kept,) = (account.cache_directory() / "objects").glob("*.o")
    return kept


@pytest.mark.parametrize("fault", ["damaged", "no checksum", "another user's"])
def test_what_may_not_be_linked_is_compiled_anew(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = (*FLAGS, "-O0")
    right = compile_object("accumulate.cpp", tmp_path, "sums", flags).read_bytes()
    kept = kept_object()
    kept.write_bytes(right[:-1] + b"x")
    if fault == "no checksum":
        kept.with_suffix(".sha256").unlink()
    elif fault == "another user's":
        wrong = hashlib.sha256(kept.read_bytes()).hexdigest()
        kept.with_suffix(".sha256").write_text(wrong)
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert compile_object("accumulate.cpp", tmp_path, "sums", flags).read_bytes() == right
    assert kept_object().read_bytes() == right


def test_an_object_that_is_being_linked_is_not_written_to(tmp_path: Path):
    flags = (*FLAGS, "-O0")
    first = compile_object("accumulate.cpp", tmp_path, "sums", flags)
    with first.open("rb") as linked:
        content = first.read_bytes()
        os.truncate(kept_object(), 3)
        again = compile_object("accumulate.cpp", tmp_path, "sums", flags)
        assert again.stat().st_ino != os.fstat(linked.fileno()).st_ino
        assert linked.read() == content


def wait_for_end(advance: ProductInAdvance) -> None:
    assert advance._process is not None
    assert advance._process.wait(300) == 0


@pytest.mark.slow
@pytest.mark.processes
def test_the_kernel_is_compiled_in_advance_once(tmp_path: Path):
    first = ProductInAdvance(os.environ)
    wait_for_end(first)
    first.close()
    assert kept_object().name.startswith(PRODUCT)
    assert ProductInAdvance(os.environ)._process is None
    compile_object("product.cpp", tmp_path, PRODUCT, FLAGS_OF_PRODUCT)
    assert len(list(kept_object().parent.glob("*.o"))) == 1, "what libraries are linked with"


SLEEPING_COMPILER = """#!/bin/sh
: > "${TMPDIR:-/tmp}/ccAbCdEf.s"
: > "$(dirname "$0")/is-compiling"
exec sleep 600
"""


@pytest.mark.processes
def test_what_is_no_longer_needed_in_advance_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "g++"
    program.write_text(SLEEPING_COMPILER)
    program.chmod(0o700)
    monkeypatch.setenv("CXX", str(program))
    advance = ProductInAdvance(os.environ)
    wait_for((tmp_path / "is-compiling").exists, 120.0, "a C++ compiler")
    advance.close()
    left = (account.cache_directory() / "objects").iterdir()
    assert {path.suffix for path in left} == {".lock"}


def test_in_advance_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert ProductInAdvance(os.environ)._process is None
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    ProductInAdvance(os.environ).close()


def refuse(*_: object, **__: object) -> None:
    raise OSError("no more processes")
