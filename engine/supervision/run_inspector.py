"""Inspects or ends a run on this host from outside, for `status`, `logs` and `down`.

    python -m engine.supervision.run_inspector look RUN_DIR RUN_ID HOST [ATTEMPT]
    python -m engine.supervision.run_inspector stop RUN_DIR RUN_ID HOST SECONDS [ATTEMPT]

Both print one JSON document. For runs of releases without attempts, leave ATTEMPT out. Only
processes that carry the run's mark in their environment are touched; never a process because of its
name, nor because a file names its pid and start: those may be another's after a reboot.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Container
from pathlib import Path

import msgspec

from engine.host.endpoints import sweep_stale
from engine.host.process_identity import (
    KILL_S,
    ProcessId,
    await_end,
    find_marked,
    is_alive,
    kill_marked,
    mark,
    send_signal,
    shows_marks,
)
from engine.supervision.host_state import HostState, read_state, state_path


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run on a host.

    Attributes:
        state: The last state of its supervisor; None if there is none.
        is_supervised: Whether that supervisor is alive.
        alive: Running roles, by address.
        marked: Pids of all processes of the run, including the supervisor.
        was_forced: Whether it was killed because it did not end in time.
    """

    state: HostState | None
    is_supervised: bool
    alive: list[str]
    marked: list[int]
    was_forced: bool = False


def look(run_dir: Path, run_id: str, host: str, attempt: str = "") -> Findings:
    """Inspects the run."""
    state = _own_state(run_dir, host, attempt)
    marked = sorted(find_marked(mark(run_id, host, str(run_dir), attempt)))
    if state is None:
        return Findings(state=None, is_supervised=False, alive=[], marked=marked)
    return Findings(
        state=state,
        is_supervised=_is_of_run(state.supervisor, marked),
        alive=[address for address, process in state.roles.items() if is_alive(process)],
        marked=marked,
    )


def _own_state(run_dir: Path, host: str, attempt: str) -> HostState | None:
    """The state on disk, unless a later run of the same name has written it."""
    state = read_state(state_path(run_dir, host))
    return state if state is not None and state.attempt == attempt else None


def _is_of_run(process: ProcessId, marked: Container[int]) -> bool:
    """Whether it is alive and has the run's mark, as far as this system shows environments."""
    return is_alive(process) and (process.pid in marked or not shows_marks())


def stop(run_dir: Path, run_id: str, host: str, within_s: float, attempt: str = "") -> Findings:
    """Asks the supervisor to end the run, waits for it, then kills whatever is left."""
    state = _own_state(run_dir, host, attempt)
    wanted = mark(run_id, host, str(run_dir), attempt)
    was_forced = False
    if state is not None and _is_of_run(state.supervisor, find_marked(wanted)):
        send_signal(state.supervisor, signal.SIGTERM)
        await_end([state.supervisor], within_s)
        was_forced = send_signal(state.supervisor, signal.SIGKILL)
        await_end([state.supervisor], KILL_S)
    kill_marked(wanted, spare=set())
    sweep_stale()
    return msgspec.structs.replace(look(run_dir, run_id, host, attempt), was_forced=was_forced)


def main(arguments: list[str]) -> None:
    """Runs one verb."""
    verb, directory, run_id, host, *rest = arguments
    if verb == "stop":
        findings = stop(Path(directory), run_id, host, float(rest[0]), *rest[1:])
    else:
        findings = look(Path(directory), run_id, host, *rest)
    sys.stdout.write(msgspec.json.encode(findings).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
