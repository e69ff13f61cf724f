"""Keeps a supervisor's `state/<host>.json` up to date."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.host.process_identity import identify
from engine.supervision.host_run import Household
from engine.supervision.host_state import HostState, state_path, write_state
from engine.supervision.timer_queue import Agenda

SOON_S = 0.1


class Scribe:
    """Writes the state of this host's part of a run.

    Args:
        run_dir: The run's directory on this host.
        house: What there is of the run here.
        agenda: For what is written a moment later.
    """

    def __init__(self, run_dir: Path, house: Household, agenda: Agenda) -> None:
        own = identify(os.getpid())
        assert own is not None
        prepare = house.prepare
        self._house = house
        self._agenda = agenda
        self._is_due = False
        self._path = state_path(run_dir, prepare.host)
        self.log = run_dir / "logs" / prepare.host / "supervisor.log"
        self.state = HostState(
            run_id=prepare.run_id,
            host=prepare.host,
            supervisor=own,
            socket_dir=house.socket_dir,
            attempt=prepare.attempt,
        )

    def write_soon(self) -> None:
        """Has it written once for all that changes within the next moment: it is written as a
        whole, and a thousand roles start, and end, one by one."""
        if not self._is_due:
            self._is_due = True
            self._agenda.add(SOON_S, self.write)

    def write(self) -> None:
        """Writes what is known now; a full disk is reported and does not end the run."""
        self._is_due = False
        self.state.roles = self._house.children.identities()
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
