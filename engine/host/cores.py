"""The cores of this host: features, which are idle; a process's share of them: pinning, niceness.

If the kernel groups processes by session (`autogroup`), niceness applies only within a session, so
all roles of a host and their compilers are in the session of their forkserver.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from engine.messages import role_of

LOOK_S = 0.1
IDLE_SHARE = 0.2
"""A core that was busy for a larger share of the time is in use."""
GIVES_WAY: Mapping[str, int] = {"actor": 5, "environment": 5, "evaluator": 5}
"""Niceness by role; 0 for all others. Actors can work ahead until the queue is full, and then wait
beside an idle core if the learner, which has one thread, does not get a whole core."""

NICEST = 19

_before_pinning: set[int] = set()


def allowed_cores(limit: int | None = None) -> tuple[int, ...]:
    """Numbers of the cores that this process may use, at most `limit`; empty if unknown.

    Of more than `limit`, the least busy ones: runs that share a host, or a node on which Slurm
    binds no job to its cores, then do not all take the first ones.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    if limit is None or limit >= len(cores):
        return tuple(cores)
    busy = dict(enumerate(psutil.cpu_percent(interval=LOOK_S, percpu=True)))
    return tuple(sorted(sorted(cores, key=lambda core: busy.get(core, 0.0))[:limit]))


def idle_cores(cores: Sequence[int], over_s: float = LOOK_S) -> tuple[int, ...]:
    """The cores among these that are idle, measured over `over_s`."""
    busy = psutil.cpu_percent(interval=over_s, percpu=True)
    return tuple(core for core in cores if core < len(busy) and busy[core] <= 100 * IDLE_SHARE)


def pin(cores: Sequence[int]) -> None:
    """Pins this process and its children to these cores; does nothing if there are none."""
    if cores and hasattr(os, "sched_setaffinity"):
        _before_pinning.update(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores)


def release(pid: int) -> None:
    """Gives a child of a pinned process the cores that its parent had before pinning."""
    if _before_pinning:
        os.sched_setaffinity(pid, _before_pinning)


def processor_features() -> list[str]:
    """The processor features on which code compiled for this machine relies: model and instruction
    sets."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return [platform.machine(), platform.processor(), platform.node()]
    first, _, _ = cpuinfo.read_text().partition("\n\n")
    named = ("vendor_id", "model", "flags", "CPU", "Features")
    return [line for line in first.splitlines() if line.startswith(named)]


def niceness(roles: Sequence[str]) -> int:
    """Niceness of a process with all these roles: that of the most urgent.

    >>> niceness(["actor-0"]), niceness(["actor-0", "learner-0"])
    (5, 0)
    """
    return min(GIVES_WAY.get(role_of(role), 0) for role in roles)


def step_back() -> None:
    """Gives this process, the first of its session, and its children the lowest priority.

    Niceness belongs to threads, and where sessions are grouped it counts only within one: there the
    session itself steps back too.
    """
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):  # it is gone, or sessions are not grouped
            for thread in process.threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, NICEST)
            Path(f"/proc/{process.pid}/autogroup").write_text(str(NICEST), encoding="ascii")


def give_way(roles: Sequence[str]) -> None:
    """Lowers this process's priority to that of its roles."""
    os.nice(niceness(roles))
