"""The compiler: a process that turns part of an experiment into a shared library.

`python -m engine.runtime.compiler KIND LIBRARY WORKSPACE PARENT < experiment.json`

`steps` plays one update on an empty batch and records what the algorithm asks `state.steps` to do;
`act` is an actor's step. Either is traced as one computation with fixed shapes, of which PyTorch's
ahead-of-time compiler makes a library. It runs beside the training that wants the result and never
inside it: tracing holds Python's lock for seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import cast

import msgspec
import psutil
import torch

from engine.runtime.blueprint import Blueprint, make_blueprint
from engine.runtime.library import Kind, signature_path
from engine.runtime.process import die_with_parent, name_process
from engine.runtime.traced import TRACE
from engine.spec import Experiment


def write_library(blueprint: Blueprint, kind: Kind, library: Path, workspace: Path) -> None:
    """Compiles in `workspace`, then moves library and signature to their place, whole.

    Raises:
        RuntimeError, AssertionError: What is to be compiled is no pure function.
    """
    made = workspace / "made.so"
    traced = TRACE[kind](blueprint)
    with torch.no_grad():
        torch._inductor.aot_compile(
            traced.graph, traced.arguments, options={"aot_inductor.output_path": str(made)}
        )
    made.replace(library)
    temporary = workspace / "signature.json"
    temporary.write_bytes(msgspec.json.encode(traced.signature))
    temporary.replace(signature_path(library))


NICENESS = 19
"""Training comes first: at equal priority a run of ten seconds on two cores lost a quarter of its
speed to a compiler whose work it could not wait for."""


def main() -> None:
    """Compiles what standard input describes; see the module's first lines."""
    signal.signal(signal.SIGTERM, _end)
    die_with_parent(signal.SIGTERM)
    name_process("tj-compiler")
    os.nice(NICENESS)
    kind, library, workspace, parent = sys.argv[1:]
    if os.getppid() != int(parent):  # it died before the line above asked to be told
        return
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1
    torch._inductor.config.cpp_cache_precompile_headers = False
    experiment = msgspec.json.decode(sys.stdin.buffer.read(), type=Experiment)
    blueprint = make_blueprint(experiment)
    write_library(blueprint, cast(Kind, kind), Path(library), Path(workspace))


def _end(number: int, _frame: FrameType | None) -> None:
    """Ends the C++ compiler, too, which would go on for seconds, and removes all by-products."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(sys.argv[3], ignore_errors=True)
    os._exit(128 + number)


if __name__ == "__main__":
    main()
