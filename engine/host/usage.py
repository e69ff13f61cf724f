"""The resources used by a process: one read of `/proc` each, since a host can run many."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from engine.host.process_identity import ProcessId, identify, stat_fields

_UTIME, _STIME, _NUM_THREADS, _RSS = 11, 12, 17, 21
"""Indices of the fields after the command's name in `/proc/<pid>/stat`; see proc(5)."""
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Processor time since its start, memory in RAM, threads."""

    cpu_s: float
    rss_bytes: int
    num_threads: int


def usage_of(process: ProcessId) -> Usage | None:
    """The resources used by this process; None if it is gone."""
    fields = stat_fields(process.pid)
    if fields is None:
        return None
    if not fields:
        return _usage_by_psutil(process)
    if ProcessId.of_stat(process.pid, fields) != process:
        return None
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    return Usage(ticks * _TICK_S, int(fields[_RSS]) * _PAGE_BYTES, int(fields[_NUM_THREADS]))


def _usage_by_psutil(process: ProcessId) -> Usage | None:
    try:
        if identify(process.pid) != process:
            return None
        item = psutil.Process(process.pid)
        times = item.cpu_times()
        return Usage(times.user + times.system, item.memory_info().rss, item.num_threads())
    except psutil.Error:
        return None
