"""Compares the limits of a machine with what a run needs there, before anything starts.

Each limit that is too low is named with both figures and the way to raise it. Needs are lower
bounds, so that no run is refused that could have worked.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import PreflightError

BASE_DESCRIPTORS = 48
"""Descriptors of a process without connections: logs, traces, sockets, doorbells, a checkpoint."""
THREADS_PER_ROLE = 3
"""Threads of a role: its own, and two of ZeroMQ."""
KEEPERS = 2
"""Supervisor and forkserver."""
ROLE_BYTES = 8 * 2**20
"""Bytes of memory that a forked role does not share with its siblings."""
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Needs:
    """What a run needs on a host.

    Attributes:
        roles: Processes.
        connections: Connections of the process with most of them.
        shared_bytes: Shared memory for rollouts and weights, as far as it is used.
    """

    roles: int
    connections: int
    shared_bytes: int = 0

    @property
    def descriptors(self) -> int:
        return BASE_DESCRIPTORS + self.connections

    @property
    def threads(self) -> int:
        return THREADS_PER_ROLE * self.roles + KEEPERS

    @property
    def memory_bytes(self) -> int:
        return ROLE_BYTES * self.roles + self.shared_bytes


@dataclass(frozen=True)
class HostLimit:
    """One limit of this machine.

    Attributes:
        of: What is limited, as in `Needs`: `descriptors`, `threads` or `memory_bytes`.
        left: How much of it is left.
        name: What sets it, for the user.
        fix: How to raise it.
    """

    of: str
    left: int
    name: str
    fix: str


def check_limits(needs: Needs, limits: Iterable[HostLimit]) -> None:
    """Raises PreflightError, naming the limit, unless all suffice."""
    for limit in limits:
        needed = int(getattr(needs, limit.of))
        if needed <= limit.left:
            continue
        amounts = [
            f"{amount / 2**20:,.0f} MiB" if limit.of == "memory_bytes" else f"{amount:,}"
            for amount in (needed, max(limit.left, 0))
        ]
        what = limit.of.removesuffix("_bytes")
        raise PreflightError(
            f"{needs.roles:,} roles need {amounts[0]} of {what}, and {amounts[1]} are left",
            where=limit.name,
            fix=f"{limit.fix}; or run fewer roles there",
        )


def limits_here() -> Iterator[HostLimit]:
    """The limits of this process and its children, as far as the system reports them."""
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors != resource.RLIM_INFINITY:
        fix = "raise it: `ulimit -Hn`, or LimitNOFILE= of the service"
        yield HostLimit("descriptors", descriptors, "open files (RLIMIT_NOFILE)", fix)
    threads, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if threads != resource.RLIM_INFINITY and os.geteuid() != 0:  # it does not apply to root
        left = threads - _threads_of_user()
        yield HostLimit(
            "threads", left, "processes of this user (RLIMIT_NPROC)", "raise `ulimit -u`"
        )
    yield from _kernel_limits()
    for group in _own_cgroups():
        yield from _cgroup_limits(group)


def _kernel_limits() -> Iterator[HostLimit]:
    """Threads and memory of the whole machine."""
    used = _number(Path("/proc/loadavg"), lambda text: text.split()[3].partition("/")[2])
    for name in ("threads-max", "pid_max"):
        most = _number(Path("/proc/sys/kernel", name))
        if used is not None and most is not None:
            yield HostLimit(
                "threads", most - used, f"kernel.{name}", f"raise it: sysctl kernel.{name}"
            )
    free = _number(Path("/proc/meminfo"), _available_kib)
    if free is not None:
        yield HostLimit("memory_bytes", free * 1024, "memory of this machine", "free some")


def _available_kib(text: str) -> str:
    return text.partition("MemAvailable:")[2].split()[0]


def _own_cgroups() -> Iterator[Path]:
    """The control groups (version 2, or the two controllers of version 1) above this process."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        roots = {"": _CGROUPS, "pids": _CGROUPS / "pids", "memory": _CGROUPS / "memory"}
        root = roots.get(controllers)
        if root is None:
            continue
        group = root / path.lstrip("/")
        yield from (item for item in (group, *group.parents) if item.is_relative_to(root))


def _cgroup_limits(group: Path) -> Iterator[HostLimit]:
    most, used = _number(group / "pids.max"), _number(group / "pids.current")
    if most is not None and used is not None:
        yield HostLimit("threads", most - used, str(group / "pids.max"), "raise it (TasksMax=)")
    for limit, current in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, used = _number(group / limit), _number(group / current)
        if most is not None and used is not None:
            # The page cache in it is freed on demand.
            cached = _number(group / "memory.stat", _file_bytes) or 0
            left = most - used + cached
            yield HostLimit("memory_bytes", left, str(group / limit), "raise it (MemoryMax=)")


def _file_bytes(text: str) -> str:
    lines = dict(line.split(" ", 1) for line in text.splitlines())
    return lines.get("file", lines.get("total_cache", "0"))


def _number(path: Path, part: Callable[[str], str] = str) -> int | None:
    """The number in a file; None if there is none, as for the limit `max`."""
    try:
        return int(part(path.read_text()))
    except (OSError, ValueError, IndexError):
        return None


def _threads_of_user() -> int:
    own, total = os.getuid(), 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == own:
                total += len(os.listdir(entry / "task"))
        except OSError:
            continue  # gone meanwhile
    return total
