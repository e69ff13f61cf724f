"""Cores are counted within the quotas of processor time of all groups that a process is in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.host import host_probe


def put(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return f"{root}/"


GROUPS = "sys/fs/cgroup"
OLD = f"{GROUPS}/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "250000 100000\n"}, [2.5]),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "max 100000\n"}, []),
        (
            {
                "proc/self/cgroup": "0::/jobs/7\n",
                f"{GROUPS}/jobs/7/cpu.max": "max 100000\n",
                f"{GROUPS}/jobs/cpu.max": "400000 100000\n",
            },
            [4.0],
        ),
        (
            {
                "proc/self/cgroup": "9:cpuset:/\n4:cpu,cpuacct:/docker/0f:b\n0::/\n",
                f"{OLD}/cpu.cfs_quota_us": "150000\n",
                f"{OLD}/cpu.cfs_period_us": "50000\n",
            },
            [3.0],
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                f"{OLD}/cpu.cfs_quota_us": "-1\n",
                f"{OLD}/cpu.cfs_period_us": "100000\n",
            },
            [],
        ),
    ],
)
def test_quotas_of_either_version(tmp_path: Path, files: dict[str, str], found: list[float]):
    assert host_probe.quotas(put(tmp_path, files)) == found


@pytest.mark.parametrize(("quotas", "cores"), [([], 4), ([2.5], 2), ([8.0, 3.0], 3), ([0.2], 1)])
def test_cores_are_those_within_all_quotas(
    monkeypatch: pytest.MonkeyPatch, quotas: list[float], cores: int
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(host_probe, "quotas", lambda: quotas)
    assert host_probe.num_cores() == cores
