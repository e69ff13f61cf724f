"""Trace tables and a disk that takes no more."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
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


def event(kind: str) -> Event:
    return Event(t_s=2.0, kind=kind, host="", role="learner-0", detail="x" * 40)


@pytest.fixture
def leave_bytes() -> Iterator[Callable[[Path, int | None], None]]:
    """Lets a file grow by so many bytes, then no more; None: for ever again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead

    def limit(path: Path, num_bytes: int | None) -> None:
        soft = before[0] if num_bytes is None else path.stat().st_size + num_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_events_of_a_disk_that_was_full_for_a_while_can_be_read(
    tmp_path: Path, leave_bytes: Callable[[Path, int | None], None]
):
    path = tmp_path / "events.jsonl"
    with TraceWriter(tmp_path) as writer:
        writer.write([event("before")])
        writer.flush()
        line_bytes = path.stat().st_size
        leave_bytes(path, line_bytes + 30)
        writer.write([event("fitted"), event("was cut")])
        writer.flush()
        assert "File too large" in (writer.stopped or "")
        assert path.read_bytes().endswith(b"\n"), "no fragment is left behind"
        leave_bytes(path, None)
        writer.write([event("after")])
    assert [row.kind for row in read_table(tmp_path, Event)] == ["before", "fitted", "after"]


def test_a_fragment_that_cannot_be_cut_off_at_once_is_before_the_next_write(
    tmp_path: Path,
    leave_bytes: Callable[[Path, int | None], None],
    monkeypatch: pytest.MonkeyPatch,
):
    path = tmp_path / "events.jsonl"

    def refuse(fd: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    with TraceWriter(tmp_path) as writer:
        leave_bytes(path, 30)
        with monkeypatch.context() as patch:
            patch.setattr("os.ftruncate", refuse)
            writer.write([event("was cut")])
            writer.flush()
            leave_bytes(path, None)
            writer.write([event("is lost")])
            writer.flush()
        assert path.stat().st_size == 30, "nothing is glued to it"
        assert "File too large" in (writer.stopped or "")
        writer.write([event("after")])
    assert [row.kind for row in read_table(tmp_path, Event)] == ["after"]
