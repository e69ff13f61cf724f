"""Several runs at once on the same hosts: none disturbs another, whatever they share.

They share ports, the directory of sockets, the results, now and then even a name.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.running import ENDLESS, SHORT, Command, rows, wait_for

pytestmark = pytest.mark.processes

LIMIT_S = 90.0
"""Three runs start on two cores."""


@pytest.fixture
def hosts(tmp_path: Path) -> str:
    """Two hosts that are this machine and share one range of ports."""
    path = tmp_path / "two.yaml"
    path.write_text(
        "version: 1\n"
        "defaults: {connection: local, address: 127.0.0.1, ports: 43000-43999}\n"
        "hosts: {a: , b: }\n"
    )
    return str(path)


def check_whole(run: Path) -> None:
    """It ended well, all of it is here, and its ledger balances."""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ok", summary
    collected, consumed, dropped, in_flight = (
        summary[f"env_steps_{name}"] for name in ("collected", "consumed", "dropped", "in_flight")
    )
    assert collected == consumed + dropped + in_flight
    assert sum(int(str(row["env_steps"])) for row in rows(run, "production")) == collected
    assert json.loads((run / "deployment.json").read_text())["is_collected"]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_runs_of_the_same_second_and_ports_all_end_well(
    tianji: Callable[..., Command], tmp_path: Path, hosts: str, count: int
) -> None:
    """Their names are automatic, so they would have been the same."""
    commands = [tianji("-q", "up", hosts, *SHORT) for _ in range(count)]
    ends = [command.end(LIMIT_S) for command in commands]
    assert [code for code, _, _ in ends] == [0] * count, ends
    runs = list((tmp_path / "results").iterdir())
    assert len(runs) == count
    for run in runs:
        check_whole(run)


def test_a_second_run_of_a_name_is_refused_and_the_first_goes_on(
    training: Command, tianji: Callable[..., Command], tmp_path: Path
) -> None:
    before = {process.pid for process in training.alive()}
    code, _, err = tianji("up", "--name", "run", *ENDLESS).end()
    assert code == 2, err
    assert "a run of this name exists and is not overwritten" in err
    training.look()
    assert before <= {process.pid for process in training.alive()}
    num_rows = len(rows(tmp_path / "results" / "run", "consumption"))
    wait_for(
        lambda: len(rows(tmp_path / "results" / "run", "consumption")) > num_rows,
        20,
        "the first goes on",
    )


def test_of_two_that_begin_with_one_name_one_runs(
    tianji: Callable[..., Command], tmp_path: Path, hosts: str
) -> None:
    commands = [tianji("-q", "up", hosts, "--name", "mine", *SHORT) for _ in range(3)]
    ends = [command.end(LIMIT_S) for command in commands]
    assert sorted(code for code, _, _ in ends) == [0, 2, 2], ends
    check_whole(tmp_path / "results" / "mine")


@pytest.mark.parametrize("inventory", ["ports", "sockets"])
def test_what_does_not_begin_leaves_no_name_taken(
    tianji: Callable[..., Command], tmp_path: Path, inventory: str
) -> None:
    """The address is another host's; or no socket's path is short enough."""
    path, long = tmp_path / "one.yaml", tmp_path / ("x" * 120)
    long.mkdir()
    strange = "address: 192.0.2.1, ports: 43000-43009" if inventory == "ports" else ""
    path.write_text(f"version: 1\nhosts: {{a: {{connection: local, {strange}}}}}\n")
    env = {"TMPDIR": str(long)} if inventory == "sockets" else {}
    code, _, err = tianji("up", str(path), "--name", "run", *SHORT, **env).end(LIMIT_S)
    assert code == 3, err
    assert list((tmp_path / "results").iterdir()) == []


def test_planted_names_end_no_run(
    tianji: Callable[..., Command], tmp_path: Path, hosts: str
) -> None:
    """Another user of the host fills the shared directory with what looks like a run's."""
    namespace = os.stat("/proc/self/ns/pid").st_ino
    with tempfile.TemporaryDirectory(prefix="tj-", dir="/tmp") as shared:
        planted = [f"tianji-{namespace}-1-1-x", f"tianji-{os.getuid()}"]
        for name in planted:
            os.symlink(f"{shared}/nowhere", f"{shared}/{name}")
        env = {"TMPDIR": shared}
        code, _, err = tianji("-q", "up", "--name", "run", *SHORT, **env).end(LIMIT_S)
        assert code == 0, err
        assert sorted(os.listdir(shared)) == sorted(planted)
