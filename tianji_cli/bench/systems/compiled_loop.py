"""The plain loops, compiled by `torch.compile` in the manner of LeanRL."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from tianji_cli.bench.systems.base import DRIVERS, THREADS, Command, Installed, Job
from tianji_cli.bench.systems.single_process import SingleProcess

REHEARSED_UPDATES = 3
"""Of TD3 every second is one of the policy."""


class CompiledLoop(SingleProcess):
    """`SingleProcess`, whose acting, advantages and optimiser steps are compiled."""

    name = "compiled-loop"
    title = "compiled loop"
    drivers: ClassVar = dict.fromkeys(SingleProcess.drivers, "compiled_loop.py")
    caveats = (
        "The plain loop with its acting, advantages and optimiser steps compiled by"
        " `torch.compile`, which is how LeanRL speeds up CleanRL's files; on a GPU LeanRL also"
        " records CUDA graphs. It compiles once, before its first cell, as TianJi does; later"
        " cells read PyTorch's cache, which takes them some seconds after their first sample.",
    )

    def rehearsal(self, job: Job, scratch: Path, installed: Installed) -> Command:
        """Compiles everything, with a store that is soon full enough."""
        given = scratch / "job.json"
        given.write_bytes(msgspec.json.encode(job))
        argv = [installed.python, "-u", str(DRIVERS / "compiled_loop.py"), str(given)]
        env = {"PYTHONPATH": str(DRIVERS), "TIANJI_BENCH_RAW": str(scratch), **THREADS}
        return Command([*argv, str(REHEARSED_UPDATES)], env=env)
