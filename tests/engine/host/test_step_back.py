"""What steps back takes its threads and its children along."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.helpers.paths import REPOSITORY

CODE = """
import json, os, subprocess, threading
import psutil
from engine.host.cores import step_back
parked = threading.Event()
threading.Thread(target=parked.wait, daemon=True).start()
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
step_back()
threads = [os.getpriority(os.PRIO_PROCESS, t.id) for t in psutil.Process().threads()]
def group(pid):
    try:
        return open(f"/proc/{pid}/autogroup").read().split()[-1]
    except OSError:
        return None
print(json.dumps([threads, psutil.Process(child.pid).nice(), group(os.getpid()), group(child.pid)]))
child.kill()
child.wait()
"""


def test_threads_children_and_sessions_step_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    threads, child, group, child_group = json.loads(done.stdout)
    assert len(threads) >= 2
    assert {*threads, child} == {19}
    assert group == child_group
    assert group in ("19", None)  # None: sessions are not grouped here
