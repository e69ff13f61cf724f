"""C++ of the engine is compiled once for all libraries."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.compilation import host_code
from engine.compilation.host_code import FLAGS, compile_object

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
    assert not list((host_code.cache_directory() / "objects").glob("*.o"))


def kept_object() -> Path:
    (kept,) = (host_code.cache_directory() / "objects").glob("*.o")
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
