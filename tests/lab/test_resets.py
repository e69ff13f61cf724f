"""Connections between hosts that are reset, by a firewall or a router that restarts: no peer dies,
nothing tells anybody what was under way, and every run gets on all the same."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.helpers.fault_rows import Witness
from tests.helpers.ssh_kit import SHORT, Bench, Command, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables"),
]

RESETS = 4
APART_S = 2.0
ENDLESS = (*SHORT, "-s", "stop.env_steps=null", "-s", "stop.seconds=300", "-s", "actors=2")


def inventory_with(bench: Bench, *roles: str | None) -> Path:
    """The lab's, with these roles on its first hosts."""
    text = bench.lab.inventory.read_text()
    for host, wanted in zip(bench.hosts, roles, strict=False):
        if wanted is not None:
            text = text.replace(f"{host}: {{", f"{host}: {{roles: {{{wanted}}}, ")
    inventory = bench.results / "roles.yaml"
    inventory.write_text(text)
    return inventory


def newest_s(command: Command, table: str, key: str, number: int) -> float:
    """When the newest row was written of an actor, a learner or a group."""
    return max((row["t_s"] for row in command.rows(table) if row[key] == number), default=0.0)


def reset_again_and_again(bench: Bench, command: Command) -> float:
    """Returns when the last reset was over, as the run counts."""
    for _ in range(RESETS):
        time.sleep(APART_S)  # the fault itself: several, and time between them to go on
        assert bench.reset_connections(bench.hosts[1]) > 0
    return max(row["t_s"] for row in command.rows("consumption"))


def end(bench: Bench, command: Command) -> None:
    command.process.send_signal(2)
    assert command.wait(60) == 130, command.said
    assert command.summary["status"] == "interrupted"
    assert command.summary["restarts"] == 0
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))
    bench.assert_nothing_left()


@pytest.mark.parametrize(
    ("policy", "roles"),
    [
        ("environments", (None, "coordinator: 1, learner: 1")),
        ("tianji", ("learner: 1, actor: 1", "buffer: 1, actor: 1")),
    ],
)
def test_a_run_gets_on_when_its_connections_are_reset(
    bench: Bench, witness: Witness, policy: str, roles: tuple[str | None, ...]
) -> None:
    one, two, *_ = bench.hosts
    command = bench.tianji(
        *("up", *ENDLESS, "--policy", policy, *limits(one, two)),
        run=f"reset-{policy}",
        inventory=inventory_with(bench, *roles),
    )
    command.wait_for_training()
    over_s = reset_again_and_again(bench, command)
    for actor in range(2):
        wait_until(
            lambda actor=actor: newest_s(command, "production", "actor", actor) > over_s + 3,
            30,
            f"actor {actor} goes on\n{command.said}",
        )
    wait_until(
        lambda: newest_s(command, "consumption", "learner", 0) > over_s + 3, 30, "so does training"
    )
    end(bench, command)
    witness(
        "connections between hosts reset",
        f"policy {policy}: {RESETS} times, all went on, books balance",
        summary=command.summary,
    )


def test_groups_go_on_merging_when_their_connections_are_reset(
    bench: Bench, witness: Witness
) -> None:
    one, two, *_ = bench.hosts
    command = bench.tianji("up", *ENDLESS, "-s", "groups=2", *limits(one, two), run="reset-groups")
    command.wait_for_training()
    over_s = reset_again_and_again(bench, command)
    for group in range(2):
        wait_until(
            lambda group=group: newest_s(command, "merges", "group", group) > over_s + 3,
            60,
            f"group {group} goes on merging\n{command.said}",
        )
    end(bench, command)
    witness(
        "connections between hosts reset",
        f"two groups: {RESETS} times, both went on merging",
        summary=command.summary,
    )
