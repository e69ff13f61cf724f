"""Takes a lab down, and checks that nothing of it is left.

Acts only on what the state file records: processes by pid and start time, and what lives in the
lab's own namespaces, control groups and directory, whose names are random.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.errors import CleanupError
from engine.host.process_identity import is_alive
from tianji_cli.lab import cgroups, hosts, network
from tianji_cli.lab.network import NetworkCommand
from tianji_cli.lab.plan import LabPaths, LabPlan
from tianji_cli.lab.processes import LabProcessId, kill_and_reap, read_table
from tianji_cli.lab.state import LabState, load_state
from tianji_cli.lab.system import NETNS_DIRECTORY, attempt, boot_id, mount_points
from tianji_cli.lab.view import is_below

UNMOUNT_TIMEOUT_S = 5.0
_UNMOUNT_PAUSE_S = 0.05


class Leftovers(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a lab that still exist."""

    processes: list[int] = []
    namespaces: list[str] = []
    links: list[str] = []
    mounts: list[str] = []
    groups: list[str] = []

    def __bool__(self) -> bool:
        return any(msgspec.structs.astuple(self))

    def __str__(self) -> str:
        parts = ((name, values) for name, values in msgspec.structs.asdict(self).items() if values)
        return "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in parts)


def take_down(paths: LabPaths) -> LabState | None:
    """Ends a lab and removes its directory. Without a lab there, nothing happens.

    Returns:
        What was taken down.

    Raises:
        CleanupError: Something is left; the state file stays, so that it can be tried again.
    """
    state = load_state(paths)
    if state is None:
        with suppress(OSError):
            paths.directory.rmdir()
        return None
    if state.boot_id == boot_id():
        _end_processes(state)
        _remove_network(state.plan)
        _unmount(state.plan.disks)
        if state.freezer is not None:
            cgroups.remove_groups(state.freezer)
        left = find_leftovers(state)
        if left:
            raise CleanupError(
                f"left of the lab: {left}",
                where=str(paths.directory),
                fix=f"end the processes that use it, then: tianji lab down --dir {paths.directory}",
            )
    _remove_files(paths)
    return state


def _end_processes(state: LabState) -> None:
    for name in state.hosts:
        hosts.end_processes(state, name)
    rest = residents(state)
    if rest:
        kill_and_reap(rest, hosts.KILL_TIMEOUT_S)


def residents(state: LabState) -> list[LabProcessId]:
    """Living processes that are recorded, or are in the lab's network namespaces or groups."""
    inodes = set()
    for name in state.plan.namespaces:
        with suppress(OSError):
            inodes.add(f"net:[{(NETNS_DIRECTORY / name).stat().st_ino}]")
    found = {process for process in state.processes() if is_alive(process)}
    found |= {row.id for row in read_table() if row.net_namespace in inodes}
    if state.freezer is not None:
        found |= set(cgroups.members(state.freezer))
    return sorted(found, key=lambda process: process.pid)


def _remove_network(plan: LabPlan) -> None:
    """Failures show in `find_leftovers`; what was never made is no failure."""
    if (NETNS_DIRECTORY / plan.fabric).exists():
        attempt(network.disconnect(plan))
    for name in plan.namespaces:
        if (NETNS_DIRECTORY / name).exists():
            attempt(network.remove_namespace(name))


def _unmount(disks: str) -> None:
    """A mount may be in use for a moment after the last process in it has ended."""
    deadline_s = time.monotonic() + UNMOUNT_TIMEOUT_S
    while disks in mount_points() and time.monotonic() < deadline_s:
        if attempt(NetworkCommand(("umount", "--recursive", disks))).returncode != 0:
            time.sleep(_UNMOUNT_PAUSE_S)


def find_leftovers(state: LabState) -> Leftovers:
    """Looks for everything that the state file records."""
    plan, freezer = state.plan, state.freezer
    return Leftovers(
        processes=[process.pid for process in residents(state)],
        namespaces=[name for name in plan.namespaces if (NETNS_DIRECTORY / name).exists()],
        links=[plan.link] if _alias(plan.link) == plan.fabric else [],
        mounts=[point for point in mount_points() if is_below(point, plan.disks)],
        groups=[freezer.directory] if freezer and Path(freezer.directory).exists() else [],
    )


def _alias(link: str) -> str:
    """The owner that `connect_all` wrote beside a link's name."""
    try:
        return Path("/sys/class/net", link, "ifalias").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _remove_files(paths: LabPaths) -> None:
    """Removes what `LabPaths` names and nothing else."""
    for directory in (paths.logs, paths.disks):
        if directory.is_dir():
            shutil.rmtree(directory)
    files = (paths.inventory, paths.known_hosts, paths.key, paths.public_key)
    for file in (*files, paths.state.with_suffix(".json.tmp"), paths.state):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # the user has put something there
        paths.directory.rmdir()
