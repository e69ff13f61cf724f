"""C++ of this folder, compiled for this host, to be linked into libraries."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.compilation.compile_job import cpp_compiler

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC")
SCAN = "tianji_scan"
"""The object file of `scan.cpp`, which is in every library."""
ACCUMULATE = "tianji_accumulate"
"""That of `accumulate.cpp`."""
_SEARCHED = "LIBRARY_PATH"


def compile_object(source: str, directory: Path, name: str, flags: Sequence[str] = FLAGS) -> Path:
    """Compiles a source file of this folder to `NAME.o`.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be compiled.
    """
    compiler = cpp_compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler here")
    compiled = directory / f"{name}.o"
    path = Path(__file__).with_name(source)
    command = [compiler, *flags, "-c", str(path), "-o", str(compiled)]
    subprocess.run(command, check=True, capture_output=True)
    return compiled


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
