"""Trace tables and a disk that takes no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.trace.reader import read_table
from engine.trace.records import Event, Ledger
from engine.trace.writer import TraceWriter

ROW = Ledger(t_s=1.0, collected=1, consumed=1, dropped=0, in_flight=0)
EVENT = Event(t_s=2.0, kind="traces-stopped", host="", role="coordinator", detail="")


def test_when_the_disk_is_low_only_events_are_written(tmp_path: Path):
    with TraceWriter(tmp_path) as writer:
        writer.write([ROW])
        assert not writer.stop_if_disk_is_low(least_bytes=0)
        assert writer.stop_if_disk_is_low(least_bytes=1 << 60)
        assert not writer.stop_if_disk_is_low(least_bytes=1 << 60), "it is told once"
        writer.write([ROW, EVENT])
        assert "MiB are free" in (writer.stopped or "")
    assert read_table(tmp_path, Ledger) == [ROW], "what came before is all there"
    assert read_table(tmp_path, Event) == [EVENT]


def test_a_write_that_fails_stops_the_tables_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = TraceWriter(tmp_path)
    file = writer._files[Ledger]
    writer._files[Ledger] = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    writer.write([ROW])
    writer.flush()
    assert "No space left" in (writer.stopped or "")
    writer.write([ROW, EVENT])
    writer.close()
    file.close()
    assert read_table(tmp_path, Event) == [EVENT]
