"""Runs a module as a child that never outlives its parent.

    python -P -m engine.host.tether PARENT SIGNAL MODULE [ARGUMENT...]

A child that imports PyTorch before it asks the kernel is unprotected for seconds: if its parent is
killed in that time, it runs on. So this asks before any heavy import, checks that the parent is
still the one that started it, and only then imports the module and calls its `main`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from engine.host.malloc import reading_libraries
from engine.host.process import die_with_parent
from engine.search_path import module_command


def tethered(module: str, *arguments: str, number: int = signal.SIGKILL) -> list[str]:
    """The command that runs a module's `main` as a child that ends with this process.

    Args:
        module: Its dotted name.
        arguments: As `sys.argv[1:]` there.
        number: The signal that it gets when this process, or the thread that starts it, ends.
    """
    parent = (str(os.getpid()), str(int(number)))
    return module_command(sys.executable, "engine.host.tether", *parent, module, *arguments)


def main() -> None:
    """See the module's first lines."""
    parent, number, module, *arguments = sys.argv[1:]
    die_with_parent(int(parent), int(number))
    sys.argv = [module, *arguments]
    with reading_libraries():
        read = importlib.import_module(module)
    read.main()


if __name__ == "__main__":
    main()
