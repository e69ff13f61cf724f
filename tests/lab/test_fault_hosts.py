"""Faults of whole hosts and of the network between them, over real SSH."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import TianJiError
from engine.roles.coordinator.liveness import HOST_LOST_S
from tests.helpers.fault_rows import Witness
from tests.helpers.histories import check_histories
from tests.helpers.ssh_kit import REPOSITORY, SHORT, SLOWED, Bench, Command, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.lab import Lab
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "actors=2")


def state_of(lab: Lab, name: str) -> str:
    return next(host.state for host in lab.status() if host.name == name)


def collected_by(command: Command, actor: int) -> int:
    return sum(row["actor"] == actor for row in command.rows("production"))


def books_balance(command: Command) -> bool:
    return not rebuild_counters(load_run(RunPaths(command.run_dir)))


def test_a_frozen_host_is_given_up_and_ends_its_roles_when_it_thaws(
    bench: Bench, witness: Witness
) -> None:
    one, two, three, _ = bench.hosts
    if bench.lab.load().freezer is None:
        pytest.skip("no freezer control group can be made here")
    command = bench.tianji(
        "up", *ENDLESS, "-s", "stop.seconds=30", *limits(one, two, three), run="frozen"
    )
    command.wait_for_training()

    def actors_there() -> list[int]:
        joined = [row for row in command.rows("events") if row["kind"] == "joined"]
        return [int(row["role"].rpartition("-")[2]) for row in joined if row["host"] == three]

    wait_until(actors_there, 10, "the events have come, too; each table comes by itself")
    (frozen_actor,) = actors_there()
    began_s = time.monotonic()
    bench.lab.freeze(three)
    assert state_of(bench.lab, three) == "frozen"
    wait_until(lambda: "host-lost" in command.kinds(), HOST_LOST_S + 6, "it is given up")
    report_s = time.monotonic() - began_s
    lost = next(row for row in command.rows("events") if row["kind"] == "host-lost")
    assert lost["role"] == three
    before = collected_by(command, 1 - frozen_actor)
    wait_until(lambda: collected_by(command, 1 - frozen_actor) > before + 3, 10, "others go on")
    known = collected_by(command, frozen_actor)
    assert bench.processes(three, "engine."), "it is all still there, only frozen"
    bench.lab.thaw(three)
    assert state_of(bench.lab, three) == "up"
    wait_until(lambda: not bench.processes(three), 20, "thawed, it ends its roles by itself")
    assert command.process.poll() is None, "which the run does not notice"
    code = command.wait(60)
    assert code in (0, 7), command.said
    assert command.summary["status"] == "ok"
    assert f"{three}" in command.said
    assert books_balance(command)
    late = collected_by(command, frozen_actor) - known
    if code == 7:
        assert bench.tianji("down", "frozen").wait(60) == 0
    bench.assert_nothing_left()
    witness(
        "a whole host frozen",
        f"given up by name, the others trained on, thawed it ended its roles, {late} late"
        f" rollouts of it were counted, exit {code}",
        report_s=report_s,
        summary=command.summary,
    )


def test_a_host_whose_disk_is_full_trains_on_and_saves_again_when_it_has_room(
    bench: Bench, witness: Witness
) -> None:
    one, two, *_ = bench.hosts
    settings = ("-s", "stop.seconds=35", "-s", "checkpoint.every_s=1")
    command = bench.tianji("up", *ENDLESS, *settings, *limits(one, two), run="full")
    command.wait_for_training()

    def num(kind: str) -> int:
        return command.kinds().count(kind)

    wait_until(lambda: num("checkpoint") > 1, 30, "checkpoints are written")
    began_s = time.monotonic()
    bench.lab.fill(one, leave="10mib")
    wait_until(lambda: num("traces-stopped") == 1, 20, "traces stop first")
    report_s = time.monotonic() - began_s
    saved = num("checkpoint")
    wait_until(lambda: num("checkpoint") > saved, 20, "checkpoints are still written")
    bench.lab.fill(one)
    assert next(host.is_full for host in bench.lab.status() if host.name == one)
    log = f"/root/.tianji/runs/full@{one}/logs/{one}/learner-0.log"

    def has_failed() -> bool:
        there = bench.lab.exec(one, ["cat", log]).stdout
        return "No space left" in there or num("checkpoint-failed") > 0

    wait_until(has_failed, 30, "a checkpoint cannot be written")
    bench.lab.free(one)
    saved = num("checkpoint")
    wait_until(lambda: num("checkpoint") > saved, 20, "with room again it saves again")
    assert command.wait(90) == 0, command.said
    assert "traces end early" in command.said
    assert "MiB are free" in command.summary["trace_error"]
    steps = command.summary
    taken = steps["env_steps_consumed"] + steps["env_steps_dropped"]
    assert steps["env_steps_collected"] == taken + steps["env_steps_in_flight"]
    bench.assert_nothing_left()
    witness(
        "disk full",
        "the learner's host: traces stopped, checkpoints failed and came back with room, exit 0",
        report_s=report_s,
        summary=command.summary,
    )


@pytest.fixture
def bad_links(tmp_path: Path) -> Iterator[Bench]:
    """Two hosts whose packets wait 100 ms each way, and of which one in ten is lost."""
    hide = [REPOSITORY / "engine", REPOSITORY / "tianji_cli"]
    try:
        lab = Lab.up(hosts=2, delay="100ms", loss="10", directory=tmp_path / "lab", hide=hide)
    except TianJiError as error:
        pytest.skip(f"no lab here: {error}")
    with lab:
        methods = lab.load().methods
        if "unavailable" in (methods.delay, methods.loss):
            pytest.skip("neither netem nor what would replace it")
        results = tmp_path / "results"
        results.mkdir()
        bench = Bench(lab, results)
        yield bench
        for command in bench.started:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
        check_histories(results)


@pytest.mark.slow
def test_a_bad_network_makes_it_slower_and_nobody_is_taken_for_dead(
    bad_links: Bench, witness: Witness
) -> None:
    one, two = bad_links.hosts
    ping = ("import socket, time\nfor _ in range(20):\n start_s = time.monotonic()\n"
            f" socket.create_connection(('{two}', 22), 20).close()\n"
            " print(time.monotonic() - start_s)\n")  # fmt: skip
    seconds = bad_links.lab.exec(one, ["python3", "-c", ping]).stdout.split()
    waits_s = sorted(float(word) for word in seconds)
    assert waits_s[0] >= 0.2, "a round trip takes 200 ms"
    assert waits_s[-1] >= 1.0, "a lost packet is sent again after a second"
    settings = ("-s", "stop.seconds=30", "-s", "watchdog.stuck_s=30")
    command = bad_links.tianji("up", *ENDLESS, *settings, run="bad")
    command.wait_for_training(within_s=240)
    assert command.wait(240) == 0, command.said
    kinds = command.kinds()
    assert not {"host-lost", "restarted", "exited", "stuck"} & set(kinds)
    assert command.summary["status"] == "ok"
    assert command.summary["restarts"] == 0
    assert books_balance(command)
    assert {row["actor"] for row in command.rows("production")} == {0, 1}
    bad_links.assert_nothing_left(within_s=30)
    rate = command.summary["consume_per_s"]
    witness(
        "10 % loss and 200 ms of delay",
        f"30 s at {rate:.0f} env steps/s: no restart, no host given up, books balance, exit 0",
        summary=command.summary,
    )
