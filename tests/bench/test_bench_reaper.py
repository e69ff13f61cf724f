"""A benchmark that is killed leaves no system running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCHMARK = """
import os, sys
from pathlib import Path
from tianji_cli.bench.process_tree import ProcessTree
script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time;"
script += " print(1); time.sleep(600)'], start_new_session=True); time.sleep(600)"
tree = ProcessTree([sys.executable, "-c", script], os.environ, Path.cwd(), Path(sys.argv[1]))
while not Path(sys.argv[1]).read_text():
    tree.wait(0.05)
tree.look()
print(*(process.pid for process in tree._members), flush=True)
tree.process.wait()
"""


@pytest.mark.processes
def test_a_killed_benchmark_leaves_no_system(tmp_path: Path) -> None:
    benchmark = subprocess.Popen(
        [sys.executable, "-c", BENCHMARK, str(tmp_path / "output")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert benchmark.stdout is not None
    pids = [int(word) for word in benchmark.stdout.readline().split()]
    tree = [psutil.Process(pid) for pid in pids]
    assert len(tree) == 2
    assert all(process.is_running() for process in tree)
    benchmark.kill()
    benchmark.communicate()
    deadline_s = time.monotonic() + 20.0
    while any(map(runs, tree)):
        assert time.monotonic() < deadline_s, f"{tree} still run"
        time.sleep(0.05)


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
