"""Keeps a supervisor's `state/<host>.json` up to date."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.host.process_identity import identify
from engine.supervision.host_run import HostRun
from engine.supervision.host_state import HostState, state_path, write_state
from engine.supervision.timer_queue import TimerQueue

SOON_S = 0.1


class StateWriter:
    """Writes the state of this host's part of a run.

    Args:
        run_dir: The run's directory on this host.
        run: What there is of the run here.
        timers: For delayed writes.
    """

    def __init__(self, run_dir: Path, run: HostRun, timers: TimerQueue) -> None:
        own = identify(os.getpid())
        assert own is not None
        prepare = run.prepare
        self._run = run
        self._timers = timers
        self._is_due = False
        self._path = state_path(run_dir, prepare.host)
        self.log = run_dir / "logs" / prepare.host / "supervisor.log"
        self.state = HostState(
            run_id=prepare.run_id,
            host=prepare.host,
            supervisor=own,
            socket_dir=run.socket_dir,
            attempt=prepare.attempt,
        )

    def write_soon(self) -> None:
        """Schedules one write for all changes of the next moment: the file is written as a whole,
        and a thousand roles start, and end, one by one."""
        if not self._is_due:
            self._is_due = True
            self._timers.add(SOON_S, self.write)

    def write(self) -> None:
        """Writes the current state; a full disk is reported and does not end the run."""
        self._is_due = False
        self.state.roles = self._run.children.identities()
        self._write()

    def end(self) -> None:
        """Writes that nothing is left."""
        self.state.roles = {}
        self.state.phase = "ended"
        self._write()

    def _write(self) -> None:
        try:
            write_state(self._path, self.state)
        except OSError as error:
            print(f"the state cannot be written: {error}", file=sys.stderr, flush=True)
