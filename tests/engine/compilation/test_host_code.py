"""C++ of the engine is compiled once for all libraries."""

from __future__ import annotations

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
