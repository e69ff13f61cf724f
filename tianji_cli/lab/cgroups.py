"""Freezing hosts: one control group per host, version 2 where it is mounted, else version 1.

Only the freezer is used. It needs no controller in version 2, so it works where an outer container
or an older init has kept the controllers for version 1.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from tianji_cli.lab.processes import LabProcessId


class Freezer(msgspec.Struct, frozen=True, kw_only=True):
    """The lab's control groups.

    Attributes:
        version: Of the control group interface.
        directory: The lab's group; each host has one of its own name inside.
    """

    version: Literal[1, 2]
    directory: str

    def group(self, host: str) -> Path:
        return Path(self.directory) / host


def plan_freezer(lab_id: str) -> Freezer | None:
    """Finds where control groups can be made, below this process's own; None if nowhere.

    The groups made for the test are removed before it returns.
    """
    own = _own_groups(Path("/proc/self/cgroup").read_text(encoding="utf-8"))
    for version, mount, path in _mounts(Path("/proc/mounts").read_text(encoding="utf-8"), own):
        base = Path(mount) / path.lstrip("/")
        freezer = Freezer(version=version, directory=str(base / f"tjlab-{lab_id}"))
        if _works(freezer):
            return freezer
    return None


def _own_groups(text: str) -> dict[str, str]:
    """Group of this process by controller; version 2 has the empty name."""
    rows = (line.split(":", 2) for line in text.splitlines())
    return {name: path for _, names, path in rows for name in names.split(",")}


def _mounts(mounts: str, own: dict[str, str]) -> list[tuple[Literal[1, 2], str, str]]:
    """Version, mount point and own group of every hierarchy that can freeze; version 2 first."""
    found: list[tuple[Literal[1, 2], str, str]] = []
    for line in mounts.splitlines():
        _, point, kind, options = line.split(" ")[:4]
        if kind == "cgroup2" and "" in own:
            found.insert(0, (2, point, own[""]))
        elif kind == "cgroup" and "freezer" in options.split(",") and "freezer" in own:
            found.append((1, point, own["freezer"]))
    return found


def _works(freezer: Freezer) -> bool:
    directory = Path(freezer.directory)
    try:
        directory.mkdir()
        is_there = (directory / _switch(freezer)).exists()
        directory.rmdir()
    except OSError:
        return False
    return is_there


def _switch(freezer: Freezer) -> str:
    return "cgroup.freeze" if freezer.version == 2 else "freezer.state"


def make_groups(freezer: Freezer, hosts: list[str]) -> None:
    Path(freezer.directory).mkdir()
    for host in hosts:
        freezer.group(host).mkdir()


def set_frozen(freezer: Freezer, host: str, is_frozen: bool, *, timeout_s: float = 5.0) -> bool:
    """Stops or continues every process of a host.

    Returns:
        Whether it has happened within `timeout_s`.
    """
    words = ("1", "0") if freezer.version == 2 else ("FROZEN", "THAWED")
    switch = freezer.group(host) / _switch(freezer)
    deadline_s = time.monotonic() + timeout_s
    with (freezer.group(host) / _events(freezer)).open("rb") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while time.monotonic() < deadline_s:
            switch.write_text(words[0] if is_frozen else words[1], encoding="ascii")
            if frozen(freezer, host) == is_frozen:
                return True
            # Version 2 announces a change here; version 1 does not and is asked again.
            poll.poll(20)
            events.seek(0)
            events.read()
    return False


def _events(freezer: Freezer) -> str:
    return "cgroup.events" if freezer.version == 2 else "freezer.state"


def frozen(freezer: Freezer, host: str) -> bool:
    """Whether every process of a host is suspended."""
    try:
        text = (freezer.group(host) / _events(freezer)).read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return "frozen 1" in text.splitlines() or text.strip() == "FROZEN"


def members(freezer: Freezer) -> list[LabProcessId]:
    """Living processes in the lab's groups."""
    found = []
    for file in Path(freezer.directory).glob("*/cgroup.procs"):
        with suppress(OSError):
            pids = [int(word) for word in file.read_text(encoding="ascii").split() if word != "0"]
            found += [process for pid in pids if (process := LabProcessId.of(pid)) is not None]
    return found


def remove_groups(freezer: Freezer) -> list[str]:
    """Removes the lab's groups; returns those that are still there (something runs in them)."""
    top = Path(freezer.directory)
    groups = [*(entry for entry in top.glob("*") if entry.is_dir()), top]
    for group in groups:
        with suppress(OSError):
            group.rmdir()
    return [str(group) for group in groups if group.exists()]
