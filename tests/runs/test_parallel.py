"""One host that hangs holds up neither the others nor the command."""

from __future__ import annotations

import threading
import time

import pytest

from engine.errors import HostUnreachableError, TianJiError
from tianji_cli.runs import parallel
from tianji_cli.runs.parallel import in_parallel

BOUND_S = 30.0


def refuse() -> None:
    raise HostUnreachableError("no route", where="cut")


def fill() -> None:
    raise OSError(28, "No space left on device")


def test_all_are_done_at_once_and_what_went_wrong_is_told_by_host() -> None:
    meet = threading.Barrier(3)
    done: list[str] = []

    def note(host: str) -> None:
        meet.wait(BOUND_S)
        done.append(host)

    actions = {host: lambda host=host: note(host) for host in "abc"}
    errors = in_parallel({**actions, "cut": refuse, "full": fill}, BOUND_S)
    assert sorted(done) == ["a", "b", "c"]
    assert {host: error.what for host, error in errors.items()} == {
        "cut": "no route",
        "full": "[Errno 28] No space left on device",
    }


def test_one_that_hangs_is_left_alone_when_its_time_is_over() -> None:
    release = threading.Event()
    errors = in_parallel({"slow": release.wait}, 0.2)
    release.set()
    assert {host: error.what for host, error in errors.items()} == {"slow": "not done within 0 s"}


def test_who_is_in_a_hurry_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "HURRY_S", 0.1)
    release = threading.Event()
    began_s = time.monotonic()
    errors = in_parallel({"slow": release.wait}, 100 * BOUND_S, is_urgent=lambda: True)
    release.set()
    assert isinstance(errors["slow"], TianJiError)
    assert time.monotonic() - began_s < BOUND_S


def test_nothing_to_do_takes_no_time() -> None:
    assert in_parallel({}, BOUND_S) == {}
