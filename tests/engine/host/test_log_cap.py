"""Logs stay small, and the process that writes them notices nothing."""

from __future__ import annotations

import os
from pathlib import Path

from engine.files import cap_logs

CAP = 1000


def test_a_log_is_emptied_and_its_end_kept_while_it_is_written_to(tmp_path: Path):
    log = tmp_path / "actor-0.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    written = 0
    for number in range(500):
        os.write(descriptor, f"line {number:04d}\n".encode())
        written += 10
        cap_logs(tmp_path, CAP)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * CAP + 10
    os.close(descriptor)
    assert written > 4 * CAP
    aside = tmp_path / "actor-0.log.1"
    lines = (aside.read_text() + log.read_text()).splitlines()
    assert lines[-1] == "line 0499"
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert numbers[1:] == list(range(numbers[1], 500)), "in order, without a gap"


def test_short_logs_and_other_files_are_left_alone(tmp_path: Path):
    (tmp_path / "learner-0.log").write_bytes(b"x" * CAP)
    (tmp_path / "core").write_bytes(b"x" * 5 * CAP)
    assert cap_logs(tmp_path, CAP) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core", "learner-0.log"]


def test_a_burst_is_cut_to_its_end(tmp_path: Path):
    log = tmp_path / "buffer-0.log"
    log.write_bytes(b"a" * 50 * CAP + b"the end\n")
    assert cap_logs(tmp_path, CAP) == [log]
    assert log.stat().st_size == 0
    aside = (tmp_path / "buffer-0.log.1").read_bytes()
    assert len(aside) == CAP
    assert aside.endswith(b"the end\n")
