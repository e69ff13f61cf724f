"""A whole run in one process and one thread, without sockets: the debug twin.

The same roles, the same algorithm, the same traces; only the order of events is determined by a
queue instead of the operating system. So equal seeds give equal traces, times aside.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from engine import PROTOCOL_VERSION
from engine.blueprint import Blueprint
from engine.files import read_umask
from engine.messages import COORDINATOR, Joined, StopRequested, TrackerFailed
from engine.progress import Progress
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import TimerFired
from engine.runtime.assemble import Assembly, host_role
from engine.runtime.loop import Loop, LoopClock
from engine.runtime.profiling import profiled
from engine.timing import OFF, Stopwatch

PROCESS = "inline"
"""Name of the only process in a profile."""


class InlineRun:
    """One run inside the calling thread.

    Args:
        blueprint: The run.
        info: For the summary.
        addresses: All roles but the coordinator.
        run_dir: Where results go.
        show: Called with progress; it may call `request_stop` and `tell`.
        devices: The device of each role that does not compute on the processor.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        info: RunInfo,
        addresses: tuple[str, ...],
        run_dir: Path,
        show: Callable[[Progress], None],
        devices: Mapping[str, str] | None = None,
    ) -> None:
        self._num_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # before the first weights: some threads round in another way
        clock = LoopClock()
        stopwatch = Stopwatch() if blueprint.experiment.profile else None
        sections = stopwatch or OFF
        assembly = Assembly(
            blueprint,
            info,
            addresses,
            (),
            run_dir,
            clock,
            show,
            devices=devices or {},
            sections=sections,
        )
        mask, hosted = read_umask(), {}
        for address in (*addresses, COORDINATOR):
            hosted[address] = host_role(address, assembly)
            os.umask(mask)  # an environment can have set another; the coordinator opens tables
        if stopwatch is not None:
            hosted = profiled(hosted, PROCESS, stopwatch)
        self._addresses = addresses
        self._loop = Loop(hosted, clock, sockets=None, sections=sections)

    def request_stop(self) -> None:
        """Stops the run gracefully, as the user's Ctrl-C does. Safe in a signal handler."""
        self._loop.post(COORDINATOR, StopRequested(reason="interrupted"))

    def tell(self, notice: TrackerFailed) -> None:
        """Tells the coordinator what the command knows. Safe in `show`."""
        self._loop.post(COORDINATOR, notice)

    def run(self) -> None:
        """Trains until a stop rule applies; then traces and summary are complete."""
        try:
            self._loop.post(COORDINATOR, TimerFired())
            for address in self._addresses:
                self._loop.post(
                    COORDINATOR,
                    Joined(
                        address=address,
                        host=socket.gethostname(),
                        pid=os.getpid(),
                        protocol=PROTOCOL_VERSION,
                    ),
                )
            self._loop.run()
        finally:
            self._loop.close()
            torch.set_num_threads(self._num_threads)
