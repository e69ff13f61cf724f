"""The state file: everything that a lab has created, so that a later command can remove it.

It is written before each thing is made and replaced in one step, so that it is true whenever the
command that builds the lab is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from engine.errors import CleanupError, ConfigError
from tianji_cli.lab.cgroups import Freezer
from tianji_cli.lab.network import Methods
from tianji_cli.lab.plan import LabPaths, LabPlan
from tianji_cli.lab.processes import LabProcessId
from tianji_cli.storage import safe_files

STATE_SCHEMA_VERSION = 1


class HostProcesses(msgspec.Struct, frozen=True, kw_only=True):
    """The two processes of a running host.

    Attributes:
        launcher: unshare(1), outside the host; ends with it.
        init: sshd, the host's process 1; everything in the host ends with it.
    """

    launcher: LabProcessId
    init: LabProcessId | None = None


class LabState(msgspec.Struct, kw_only=True):
    """A lab, as written to `state.json`.

    Attributes:
        status: `starting` until every host answers.
        boot_id: Of the machine's boot that the processes belong to.
        plan: Names of namespaces, links, mounts and directories.
        methods: How delay and loss are made.
        freezer: Control groups of the hosts, if this machine lets hosts be frozen.
        has_clocks: Whether each host has its own origin of monotonic time.
        hosts: The processes of each host that was started, by name.
        delayer: The process that delays packets where netem is missing.
    """

    schema_version: int = STATE_SCHEMA_VERSION
    status: Literal["starting", "up"] = "starting"
    created_at: str
    boot_id: str
    plan: LabPlan
    methods: Methods = Methods()
    freezer: Freezer | None = None
    has_clocks: bool = False
    hosts: dict[str, HostProcesses] = {}
    delayer: LabProcessId | None = None

    def processes(self) -> list[LabProcessId]:
        """Every recorded process, a host's first before its launcher."""
        ids = [id for host in self.hosts.values() for id in (host.init, host.launcher)]
        return [id for id in (*ids, self.delayer) if id is not None]


def load_state(paths: LabPaths) -> LabState | None:
    """The state of the lab in a directory; None if there is no lab.

    Raises:
        CleanupError: The state file cannot be read: parts of its lab may still exist.
    """
    try:
        text = paths.state.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CleanupError(f"cannot be read: {error.strerror}", where=str(paths.state)) from error
    try:
        state = msgspec.json.decode(text, type=LabState)
    except msgspec.DecodeError as error:
        raise CleanupError(
            f"is not the state of a lab: {error}",
            where=str(paths.state),
            fix="restore it, or restart the machine and remove the directory",
        ) from error
    if state.schema_version != STATE_SCHEMA_VERSION:
        raise CleanupError(
            f"was written by another TianJi (schema {state.schema_version})",
            where=str(paths.state),
            fix="use that TianJi's `tianji lab down`",
        )
    return state


def require_state(paths: LabPaths) -> LabState:
    """The state of a lab that must be there; ConfigError if there is none."""
    state = load_state(paths)
    if state is None:
        raise ConfigError(
            "no lab is running here", where=str(paths.directory), fix="tianji lab up, or --dir DIR"
        )
    return state


def save_state(paths: LabPaths, state: LabState) -> None:
    """Replaces the state file in one step; it is on the disk when this returns."""
    draft = paths.state.with_suffix(".json.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(paths.state)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other `tianji lab` commands off a directory meanwhile.

    Raises:
        ConfigError: One is at work there.
    """
    what = "another `tianji lab` command is running here"
    with safe_files.locked(directory, ConfigError(what, where=str(directory), fix="wait for it")):
        yield
