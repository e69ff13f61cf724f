"""The plain loop: one process, one file, what a person would write first."""

from __future__ import annotations

from tianji_cli.baselines.base import (
    DriverPeer,
    Installed,
    ParityRow,
    PeerOptions,
    parity_rows,
)
from tianji_cli.baselines.probe import probe_here
from tianji_cli.bench.suite import Task


class SingleProcess(DriverPeer):
    """Runs in TianJi's own interpreter, but imports nothing of TianJi."""

    name = "single-process"
    title = "single process"
    driver = "single_process_loop.py"
    caveats = ("A plain loop of about a hundred lines; it exists to show what distribution costs.",)

    def prepare(self, options: PeerOptions) -> Installed:
        return probe_here(["torch", "gymnasium"])

    def parity(self, task: Task) -> list[ParityRow]:
        total = task.workers * task.envs_per_worker
        return parity_rows(
            task,
            self.name,
            different={"workers": f"one process steps all {total} environments and learns"},
            extra=(
                ("advantage normalisation", "per minibatch", "equal", ""),
                ("value loss clipping", "off", "equal", ""),
                ("bootstrap at truncation", "on", "equal", ""),
                ("seed", "the block's", "equal", ""),
            ),
        )
