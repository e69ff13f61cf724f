"""Which machine this is, how busy it is, and that results of two are never mixed."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

from engine.errors import ConfigError

MAX_BUSY_CORES = 0.3
"""More than so many busy cores just before a cell are worth a warning."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where a benchmark ran. Results of different ids are never merged."""

    id: str
    hostname: str
    os: str
    cpu_model: str
    num_cores: int
    memory_bytes: int
    cpu_governor: str | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the machine was just before a cell."""

    average_1min: float
    """Runnable processes over the last minute; falls slowly after each cell."""
    busy_cores: float
    """Cores that were busy during half a second just before launch."""
    frequency_mhz: float | None = None


def check_same(machine: Machine, ids: Iterable[str], where: str) -> None:
    """Refuses results of other machines.

    Args:
        machine: Machine on which the work was started.
        ids: Where its parts were run.
        where: They were read from.

    Raises:
        ConfigError: One of them is another machine.
    """
    if strangers := sorted(set(ids) - {machine.id}):
        raise ConfigError(
            f"parts of it were run on machine {', '.join(strangers)}, it was begun on {machine.id}",
            where=where,
            fix="times of different machines cannot be compared",
        )


def this_machine() -> Machine:
    """Facts of this host as this process may use it."""
    facts = {
        "hostname": platform.node(),
        "os": platform.platform(),
        "cpu_model": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
    }
    words = [_text("/etc/machine-id"), *(str(value) for value in facts.values())]
    identity = hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None
    return msgspec.convert({"id": identity, "cpu_governor": governor, **facts}, Machine)


def load_now(over_s: float = 0.5) -> Load:
    """Measures for `over_s` how busy the machine is."""
    share = psutil.cpu_percent(interval=over_s) / 100
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return Load(
        average_1min=round(os.getloadavg()[0], 2),
        busy_cores=round(share * (psutil.cpu_count() or 1), 2),
        frequency_mhz=round(frequency.current, 0) if frequency else None,
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _first(path: str, key: str) -> str:
    for line in _text(path).splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""
