"""A system for tests: `fake_system.py job.json BEHAVIOUR`. Records as real drivers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from recorder import recorder_of_process

CHILD = (
    "import signal, socket, time\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
    "print('listening', flush=True)\n"
    "time.sleep(600)\n"
)


def leave_a_child() -> None:
    """A daemon in a session of its own that listens, as some systems leave behind."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    child.stdout.readline()


def main() -> None:
    behaviour = sys.argv[2]
    stopping: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: stopping.append(number))
    if behaviour == "silent":
        time.sleep(600)
    if behaviour == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if behaviour == "orphan":
        leave_a_child()
    if behaviour == "litter":
        with open(f"/dev/shm/torch_{os.getpid()}_1_0", "wb") as file:
            file.write(bytes(1000))
    recorder = recorder_of_process()
    level = {"slow": 5.0, "stall": 5.0, "crash": 5.0}.get(behaviour, 200.0)
    for index in range(100_000):
        if stopping:
            break
        recorder.steps(20)
        recorder.episode(level, 20)
        if index == 60 and behaviour == "crash":
            print("the reason for it", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if index == 60 and behaviour == "garbage":
            with open(os.path.join(os.environ["TIANJI_BENCH_RAW"], "x.jsonl"), "w") as file:
                file.write("no record at all\n")
        if index == 60 and behaviour == "liar":
            recorder.claimed(1_000_000)
        if index == 60 and behaviour == "stall":
            recorder.close()
            time.sleep(600)
        time.sleep(0.005)
    recorder.close()


if __name__ == "__main__":
    main()
