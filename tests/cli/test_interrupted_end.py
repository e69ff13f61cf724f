"""Signals that reach `up` around a run: before it there is nothing, after it all is to be told."""

from __future__ import annotations

import os
import signal

import pytest

from tianji_cli.commands import up as command
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.output import Output
from tianji_cli.runs.monitor import RunOutcome

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _heard():
    """Under `nohup` SIGHUP is ignored, by `up` as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def request_of(tmp_path):
    settings = ("policy=local", "stop.env_steps=64")
    return UpRequest(None, None, settings, tmp_path, "run")


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_after_the_run_takes_nothing_from_its_end(monkeypatch, request_of, number):
    said = []

    def conclude(*arguments: object) -> int:
        send(number)
        said.append(arguments[2])
        return 0

    monkeypatch.setattr(command, "run_inline", lambda *_: RunOutcome())
    monkeypatch.setattr(command, "report_outcome", conclude)
    before = [signal.getsignal(number) for number in ENDING]
    assert command.up(request_of, Output(verbosity=-1)) == 0
    assert said == [False], "the run itself was not interrupted"
    assert [signal.getsignal(number) for number in ENDING] == before


def test_a_second_one_ends_what_does_not_come_to_an_end(monkeypatch, request_of, capsys):
    """The run may have ended well, but not all of that was told; the files are there."""
    monkeypatch.setattr(command, "run_inline", lambda *_: RunOutcome())
    monkeypatch.setattr(command, "report_outcome", lambda *_: send(signal.SIGINT, signal.SIGINT))
    assert command.up(request_of, Output()) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert "interrupted after the run had ended; results:" in said
    assert "plots: tianji report run" in said


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_before_the_run_leaves_no_directory(monkeypatch, request_of, number, capsys):
    monkeypatch.setattr(command, "run_inline", lambda *_: send(number))
    assert command.up(request_of, Output()) == 130
    assert "before anything was started" in capsys.readouterr().err
    assert not any(request_of.results.iterdir())
