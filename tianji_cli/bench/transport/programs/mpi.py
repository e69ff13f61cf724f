"""mpi4py: rank 0 receives; numbers as pickled objects, or buffers straight into the target.

Started by `mpiexec -n <1 + senders>`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI

from tianji_cli.bench.transport.programs.harness import main, read_job
from tianji_cli.bench.transport.programs.workers import Ends, serve


class World(Ends):
    """Option of the job: `pickles`."""

    forks = False

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        self._pickles = bool(job["options"]["pickles"])
        self._message = np.empty(size_bytes, np.uint8)

    def send(self, source: np.ndarray, count: int) -> None:
        send = MPI.COMM_WORLD.send if self._pickles else MPI.COMM_WORLD.Send
        for _ in range(count):
            np.copyto(self._message, source)
            send(self._message, dest=0)

    def receive(self, target: np.ndarray, count: int) -> None:
        world = MPI.COMM_WORLD
        if self._pickles:
            for _ in range(count):
                np.copyto(target, world.recv(source=MPI.ANY_SOURCE))
            return
        for _ in range(count):
            world.Recv(target, source=MPI.ANY_SOURCE)


def play() -> None:
    """Rank 0 measures, the others serve."""
    job, rank = read_job(), MPI.COMM_WORLD.Get_rank()
    if rank == 0:
        main(World, job, MPI.COMM_WORLD.Barrier)
        return
    MPI.COMM_WORLD.Barrier()
    for size_bytes in job["sizes_bytes"]:
        serve(World(job, size_bytes), rank - 1)


if __name__ == "__main__":
    play()
