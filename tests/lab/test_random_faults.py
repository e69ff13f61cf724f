"""Random orders of faults can be planned, written down and read back; a short one on real hosts."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from engine.errors import PreflightError
from tests.faults.chaos import Chaos
from tests.faults.random_faults import main
from tests.faults.schedule import (
    LASTING,
    LONGEST_S,
    MILD,
    REST_S,
    SEVERE,
    Planned,
    Schedule,
    make_schedule,
    read_schedule,
    write_schedule,
)
from tests.helpers.ssh_kit import Bench, Command
from tianji_cli.lab.preflight import check_machine, check_namespaces

HOSTS = ("tj2", "tj3", "tj4")


def test_a_seed_makes_one_schedule_and_another_seed_another():
    one = make_schedule(1, 600, 120, HOSTS)
    assert one == make_schedule(1, 600, 120, HOSTS)
    assert one != make_schedule(2, 600, 120, HOSTS)


def test_a_schedule_comes_back_from_its_file(tmp_path: Path):
    schedule = make_schedule(3, 600, 120, HOSTS, is_severe=True)
    write_schedule(tmp_path / "schedule.json", schedule)
    assert read_schedule(tmp_path / "schedule.json") == schedule


@pytest.mark.parametrize("seed", range(20))
def test_actors_and_links_alone_are_hit_unless_more_is_asked_for(seed: int):
    faults = make_schedule(seed, 600, 120, HOSTS).faults
    assert [fault.number for fault in faults] == list(range(1, 121))
    assert all(0 <= fault.at_s <= 600 - LONGEST_S for fault in faults)
    assert {fault.kind for fault in faults} == set(MILD)
    assert {fault.target for fault in faults} == set(HOSTS)
    severe = make_schedule(seed, 600, 120, HOSTS, is_severe=True).faults
    assert 3 < sum(fault.kind in SEVERE for fault in severe) < 40


@pytest.mark.parametrize("seed", range(20))
def test_no_host_is_silent_for_so_long_that_it_may_be_given_up(seed: int):
    schedule = make_schedule(seed, 600, 400, HOSTS)
    silent = ("cut-host", "freeze-host")
    for host in HOSTS:
        ends_s = -REST_S
        for fault in schedule.faults:
            if fault.target == host and fault.kind in silent:
                assert fault.at_s >= ends_s + REST_S - 0.02
                ends_s = fault.at_s + fault.for_s
    assert all((fault.for_s > 0) == (fault.kind in LASTING) for fault in schedule.faults)
    assert max(fault.for_s for fault in schedule.faults) <= LONGEST_S


class Running:
    """A command whose run goes on."""

    process = SimpleNamespace(poll=lambda: None)


def test_faults_that_are_late_keep_their_distance_and_hosts_are_healed_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a slow machine a host would else be cut until all of them were done, and given up."""
    happened: list[str] = []
    at_s: list[float] = []

    def do(self: Chaos, planned: Planned, _command: object) -> str:
        happened.append(f"cut {planned.target}")
        at_s.append(self.elapsed_s)
        self._undo(planned, lambda: happened.append(f"heal {planned.target}"))
        return "proof"

    monkeypatch.setattr(Chaos, "_do", do)
    faults = tuple(
        Planned(number=number, at_s=number / 10, kind="cut-host", target=host)
        for number, host in enumerate(HOSTS, start=1)
    )
    schedule = Schedule(seed=1, seconds=10.0, hosts=HOSTS, faults=faults)
    bench = cast(Bench, None)
    chaos = Chaos(bench, schedule, tmp_path / "faults.jsonl", began_s=time.monotonic() - 100.0)
    chaos.pursue(cast(Command, Running()))
    assert happened == [f"{act} {host}" for host in HOSTS for act in ("cut", "heal")]
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(at_s))
    assert chaos.late_s > 99


@pytest.mark.lab
@pytest.mark.slow
def test_a_run_survives_a_minute_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`make chaos` does it for ten minutes, and also names a directory relative to its own."""
    try:
        check_machine()
        check_namespaces()
    except PreflightError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    out = Path("chaos")
    assert main(["--seed", "5", "--seconds", "40", "--faults", "10", "--out", str(out)]) == 0
    outcome = json.loads((out / "outcome.json").read_text())
    assert outcome["faults"] >= 8
    lines = (out / "faults.jsonl").read_text().splitlines()
    assert len(lines) == 10
    assert all(json.loads(line)["proof"] for line in lines)
