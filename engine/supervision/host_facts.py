"""Facts about this host, for the manifest."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

import engine
from engine.control_protocol import HostFacts
from engine.devices.visible import visible_gpus
from engine.host.host_probe import gpus


def host_facts() -> HostFacts:
    """Hardware and versions of this host that this process can use."""
    versions = {name: metadata.version(name) for name in engine.REQUIREMENTS}
    # Without torch.cuda: the forkserver must not initialise CUDA before it forks.
    found = visible_gpus(gpus())
    return HostFacts(
        hostname=platform.node(),
        os=platform.platform(),
        cpu_model=_cpu_model(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        memory_bytes=psutil.virtual_memory().total,
        gpus=found,
        versions={
            "python": platform.python_version(),
            "tianji": engine.__version__,
            "protocol": str(engine.PROTOCOL_VERSION),
            **versions,
        },
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
