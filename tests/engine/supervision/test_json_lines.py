"""A supervisor whose reports nobody reads, because the command is stopped or its terminal held."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.control_protocol import Failed, Finished, FromSupervisor, Hello, Ping, Pong, Shown
from engine.messages import Message
from engine.progress import Progress
from engine.supervision.json_lines import MAX_WAITING, Backlog, LineReader, NonBlockingWriter
from engine.wire.codec import Codec
from engine.wire.sockets import Sockets, Wiring

MANY = 1000
"""Reports of more than the 64 KiB that a pipe takes."""
PATIENCE_S = 20.0


class Pipe:
    """A real one, its reader, and an outlet that writes to it."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.writer = NonBlockingWriter(self.write_end)
        self.reader: LineReader[FromSupervisor] = LineReader(self.read_end, FromSupervisor)
        self.is_read = True

    def close_reader(self) -> None:
        if self.is_read:
            os.close(self.read_end)
        self.is_read = False

    def read_to_the_end(self) -> list[FromSupervisor]:
        """Reads and writes by turns, as two processes would."""
        messages: list[FromSupervisor] = []
        while self.writer.fd is not None:
            messages.extend(self.reader.read())
            self.writer.flush()
        return [*messages, *self.reader.read()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close_reader()
    pipe.writer.close_when_empty()


def shown(number: int) -> Shown:
    return Shown(progress=Progress(phase="running", t_s=0.0, env_steps_collected=number))


def failed(number: int) -> Failed:
    return Failed(address=f"actor-{number}", cause="died", log_tail=["x" * 200])


def test_what_nobody_reads_is_kept_in_order_and_of_progress_the_latest(pipe: Pipe):
    for number in range(MANY):
        pipe.writer.put(shown(number))
    for number in range(MANY // 2):
        pipe.writer.put(failed(number))
        pipe.writer.put(shown(MANY + number))
    pipe.writer.put(Finished())
    assert pipe.writer.fd is not None, "the pipe is full, and nothing has waited for it"
    messages = pipe.read_to_the_end()
    assert [m for m in messages if isinstance(m, Failed)] == [failed(n) for n in range(MANY // 2)]
    assert messages[-2:] == [shown(MANY + MANY // 2 - 1), Finished()]
    numbers = [m.progress.env_steps_collected for m in messages if isinstance(m, Shown)]
    assert numbers == sorted(set(numbers)), "a line that was begun is ended, none is said twice"


def test_a_reader_that_is_gone_is_told_nothing_more(pipe: Pipe):
    for number in range(MANY):
        pipe.writer.put(failed(number))
    pipe.close_reader()
    pipe.writer.put(Finished())
    assert pipe.writer.fd is None


def test_an_outlet_closes_once_its_reader_has_everything(pipe: Pipe):
    for number in range(MANY // 2):
        pipe.writer.put(failed(number))
    pipe.writer.close_when_empty()
    pipe.writer.put(Finished())
    messages = pipe.read_to_the_end()
    assert messages == [failed(number) for number in range(MANY // 2)]
    assert list(pipe.reader.read()) == []
    assert pipe.reader.at_end


def test_a_backlog_has_an_end_but_takes_last_words():
    backlog = Backlog()
    reports: list[Message] = [failed(number) for number in range(MAX_WAITING + 5)]
    for report in [*reports, Finished()]:
        backlog.add(report)
    lines = []
    while line := backlog.head(1 << 20):
        lines.append(msgspec.json.decode(line, type=FromSupervisor))
        backlog.written(len(line))
    assert lines == [*reports[:MAX_WAITING], Finished()]


def test_sockets_wake_up_as_soon_as_a_full_pipe_can_be_written(tmp_path: Path, pipe: Pipe):
    wiring = Wiring(bind=f"ipc://{tmp_path}/s")
    with Sockets("supervisor-0", wiring, Codec.for_messages()) as sockets:
        for number in range(MANY):
            pipe.writer.put(failed(number))
        sockets.watch_writable({pipe.write_end})
        assert list(sockets.receive(0.0)) == []
        assert len(list(pipe.reader.read())) > 100
        assert list(sockets.receive(None)) == [], "it returned"
        assert pipe.writer.wait(0.0)
        sockets.watch_writable(set())
        assert list(sockets.receive(0.0)) == []


@pytest.fixture
def supervisor() -> Iterator[subprocess.Popen[bytes]]:
    """One that was asked so much that its answers fill its pipe, which nobody reads."""
    command = [sys.executable, "-m", "engine.supervision.supervisor"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number in range(MANY):
            process.stdin.write(msgspec.json.encode(Ping(number=number)) + b"\n")
        process.stdin.flush()
        yield process
        process.kill()


def test_a_supervisor_that_nobody_reads_sees_that_its_controller_is_gone(
    supervisor: subprocess.Popen[bytes],
):
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    assert supervisor.wait(PATIENCE_S) == 0


def test_a_controller_that_was_stopped_reads_all_answers_when_it_goes_on(
    supervisor: subprocess.Popen[bytes],
):
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    reports = [
        msgspec.json.decode(supervisor.stdout.readline(), type=FromSupervisor)
        for _ in range(1 + MANY)
    ]
    assert isinstance(reports[0], Hello)
    assert [r.number for r in reports[1:] if isinstance(r, Pong)] == list(range(MANY))
    supervisor.stdin.close()
    assert supervisor.wait(PATIENCE_S) == 0
