"""The C++ compiler of this host: found, and told from others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

_COMPILERS = ("g++", "clang++", "c++")


def cpp_compiler() -> str | None:
    """Its name; None if there is none."""
    return next((name for name in compiler_names() if shutil.which(name)), None)


def compiler_names() -> Sequence[str]:
    """Those that are looked for: `$CXX`, or else the usual ones."""
    named = os.environ.get("CXX")
    return (named,) if named else _COMPILERS


def compiler_identity() -> tuple[str, int, int] | None:
    """What changes when another compiler is installed: its path, size in bytes and time of change
    in nanoseconds; None if there is none."""
    path = shutil.which(cpp_compiler() or "")
    if path is None:
        return None
    found = os.stat(path)
    return path, found.st_size, found.st_mtime_ns
