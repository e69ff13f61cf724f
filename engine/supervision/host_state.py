"""`state/<host>.json`: the state of a supervisor on disk, for later commands.

The supervisor's `StateWriter` keeps it up to date and replaces it atomically, so a reader sees one
state or the next. `status`, `down` and `check` use only this file.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from engine.clock import TimerQueue
from engine.control_protocol import Failed
from engine.errors import ConfigError
from engine.files import read_regular
from engine.host.process_identity import ProcessId
from engine.progress import Progress
from engine.supervision.host_run import HostRun

SCHEMA_VERSION = 1
STATE_NAME = "state"
MAX_STATE_BYTES = 1 << 24
SOON_S = 0.1
"""Changes within this time are written together."""


class HostState(msgspec.Struct, kw_only=True):
    """One host's part of a run.

    Attributes:
        phase: `ended` once no process of the run is left here.
        roles: Running processes, by address.
        failures: Unexpected exits of roles, in order.
        socket_dir: Where its Unix sockets are; empty if it has none.
        attempt: Of the `up` that started it; see `engine.host.process_identity.mark`.
        updated_unix_s: When this was written, by the host's own clock; for information only.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    host: str
    supervisor: ProcessId
    phase: Literal["running", "ended"] = "running"
    is_detached: bool = False
    roles: dict[str, ProcessId] = {}
    progress: Progress | None = None
    failures: list[Failed] = []
    socket_dir: str = ""
    attempt: str = ""
    updated_unix_s: float = 0.0


def state_path(run_dir: Path, host: str) -> Path:
    """Path of the state of a host's part of a run."""
    return run_dir / STATE_NAME / f"{host}.json"


def write_state(path: Path, state: HostState) -> None:
    """Replaces the file.

    Raises:
        OSError: The disk is full or not writable; the old state is unchanged.
    """
    state.updated_unix_s = time.time()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(msgspec.json.encode(state) + b"\n")
    temporary.replace(path)


def read_state(path: Path) -> HostState | None:
    """The last state; None if there is no readable one."""
    try:
        return state_of_bytes(read_regular(path, MAX_STATE_BYTES))
    except ConfigError:
        return None


def state_of_bytes(data: bytes) -> HostState | None:
    """The state in the contents of such a file; None if there is none."""
    try:
        return msgspec.json.decode(data, type=HostState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class StateWriter:
    """Writes the state of this host's part of a run.

    Args:
        run_dir: The run's directory on this host.
        run: What there is of the run here.
        timers: For delayed writes.
    """

    def __init__(self, run_dir: Path, run: HostRun, timers: TimerQueue) -> None:
        own = ProcessId.of(os.getpid())
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
