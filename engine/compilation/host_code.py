"""C++ of this folder, compiled for this host, to be linked into libraries.

It is the same for all libraries, so it is compiled once and kept beside them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.compilation.compile_job import cpp_compiler
from engine.compilation.library import cache_directory
from engine.host.cores import processor_features

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC")
SCAN = "tianji_scan"
"""The object file of `scan.cpp`, which is in every library."""
ACCUMULATE = "tianji_accumulate"
"""That of `accumulate.cpp`."""
_SEARCHED = "LIBRARY_PATH"


def compile_object(source: str, directory: Path, name: str, flags: Sequence[str] = FLAGS) -> Path:
    """Compiles a source file of this folder to `NAME.o`, or takes the object that was kept.

    If another process compiles it, this one waits for that.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be compiled.
    """
    compiler = shutil.which(cpp_compiler() or "")
    if compiler is None:
        raise FileNotFoundError("no C++ compiler here")
    compiled = directory / f"{name}.o"
    path = Path(__file__).parent / "cpp" / source
    kept = cache_directory() / "objects" / f"{name}-{_digest(path, compiler, flags)}.o"
    with _alone(kept):
        if kept.exists():
            shutil.copyfile(kept, compiled)
        else:
            command = [compiler, *flags, "-c", str(path), "-o", str(compiled)]
            subprocess.run(command, check=True, capture_output=True)
            _keep(compiled, kept)
    return compiled


def _digest(source: Path, compiler: str, flags: Sequence[str]) -> str:
    """Of all that an object depends on."""
    found = os.stat(compiler)
    depends_on = (compiler, found.st_size, found.st_mtime_ns, *flags, processor_features())
    digest = hashlib.blake2b(repr(depends_on).encode(), digest_size=16)
    for path in (source, *sorted(source.parent.glob("*.h"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Meanwhile, no other process makes this object."""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keep(made: Path, kept: Path) -> None:
    """Copies a file to its place atomically: it is there completely or not at all."""
    fresh = kept.with_suffix(".new")
    shutil.copyfile(made, fresh)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(kept)


@contextmanager
def found_by_linkers(directory: Path) -> Iterator[None]:
    """Meanwhile, linkers look for libraries and objects there."""
    before = os.environ.get(_SEARCHED)
    os.environ[_SEARCHED] = os.pathsep.join(filter(None, (str(directory), before)))
    try:
        yield
    finally:
        del os.environ[_SEARCHED]
        if before is not None:
            os.environ[_SEARCHED] = before
