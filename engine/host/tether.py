"""Runs a module as a child that does not outlive its parent, from its very first moment on.

    python -P -m engine.host.tether PARENT SIGNAL MODULE [ARGUMENT...]

A child that imports PyTorch first and asks the kernel afterwards is on its own for seconds: if its
parent is killed meanwhile, it goes on for nobody. So this asks before anything heavy is imported,
looks whether the parent is still the one that started it, and only then reads that module and calls
its `main`.
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
    """The command that runs a module's `main` as a child that this process takes with it.

    Args:
        module: Its dotted name.
        arguments: As `sys.argv[1:]` there.
        number: The signal that it gets when this process, or the thread that starts it, is gone.
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
