"""What is seen of hosts on their way to a run."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from engine.progress import Progress, RoleState
from tianji_cli.config.inventory import Host
from tianji_cli.output import Output
from tianji_cli.planning.placement import Placement
from tianji_cli.render.hosts import PhaseLog, PhaseTable
from tianji_cli.runs.joining import Joining


def shown(table: PhaseTable, now_s: float) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(table.at(now_s))
    return [line.split() for line in capture.get().splitlines()]


def test_the_table_puts_those_first_that_are_still_on_their_way() -> None:
    table = PhaseTable(["a", "b", "c"], now_s=0.0)
    table.enter("a", "ready", "", now_s=1.0)
    table.enter("c", "ship", "0123456789abcdef", now_s=2.0)
    assert shown(table, now_s=9.0) == [
        ["b", "connect", "9", "s"],
        ["c", "ship", "7", "s", "0123456789abcdef"],
        ["a", "ready"],
    ]


def test_a_host_has_joined_when_all_its_roles_have() -> None:
    joining = Joining(
        [
            Placement("coordinator-0", "a", ("coordinator-0",)),
            Placement("worker-0", "a", ("actor-0", "learner-0")),
            Placement("actor-1", "b", ("actor-1",)),
        ]
    )

    def take(**states: str) -> list[str]:
        roles = {name.replace("_", "-"): RoleState(state) for name, state in states.items()}
        return joining.take(Progress(phase="starting", t_s=0.0, roles=roles))

    assert take(actor_0="running", learner_0="starting", actor_1="running") == ["b"]
    assert take(actor_0="running", learner_0="running", actor_1="running") == ["a"]
    assert take(actor_0="running", learner_0="stopped", actor_1="gone") == []


def test_off_a_terminal_each_phase_is_a_line(capsys) -> None:  # type: ignore[no-untyped-def]
    one, two = (
        msgspec.convert({"name": n, "connection": "ssh", "address": "", "ports": None}, Host)
        for n in ("one", "three")
    )
    log = PhaseLog(Output(), [one, two])
    log.show("one", "environment", "lacks torch\nand more")
    log.close()
    assert capsys.readouterr().err.split("] ")[1] == "one    environment lacks torch\n"
