"""Keeps a supervisor's `state/<host>.json` up to date."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.runtime.identity import ProcessId, identify
from engine.runtime.launch import Prepare
from engine.runtime.state import HostState, state_path, write_state


class Scribe:
    """Writes the state of this host's part of a run.

    Args:
        run_dir: The run's directory on this host.
        prepare: The run.
        socket_dir: Of the Unix sockets; empty if there are none.
    """

    def __init__(self, run_dir: Path, prepare: Prepare, socket_dir: str) -> None:
        own = identify(os.getpid())
        assert own is not None
        self._path = state_path(run_dir, prepare.host)
        self.log = run_dir / "logs" / prepare.host / "supervisor.log"
        self.state = HostState(
            run_id=prepare.run_id, host=prepare.host, supervisor=own, socket_dir=socket_dir
        )

    def write(self, roles: dict[str, ProcessId]) -> None:
        """Writes what is known now; a full disk is reported and does not end the run."""
        self.state.roles = roles
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
