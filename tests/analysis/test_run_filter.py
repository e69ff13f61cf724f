"""Which rows of `tianji runs` are shown, and in which order."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.errors import ConfigError
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.run_filter import RunFilter, select_runs
from tianji_cli.analysis.runs import RunRow
from tianji_cli.commands.runs import runs_command
from tianji_cli.output import Output

NOW = datetime(2026, 2, 10, tzinfo=UTC)


def row(run_id: str, day: int, **more: object) -> RunRow:
    return RunRow(
        run_id=run_id,
        path=f"results/{run_id}",
        started_at=f"2026-02-{day:02}T12:00:00+00:00",
        **{"status": "ok", "algorithm": "ppo", "env_id": "CartPole-v1", **more},  # type: ignore[arg-type]
    )


ROWS = [
    row("a", 1, return_mean=10.0, policy="tianji"),
    row("b", 3, env_id="ALE/Pong-v5", algorithm="impala", return_mean=-3.0, policy="local"),
    row("c", 5, status="failed", problem="actor-1 was killed", policy="multi-learner"),
    row("d", 9, algorithm="dqn", return_mean=200.0, wall_s=3.0),
    RunRow(run_id="e", path="results/e", status="unreadable", problem="not a manifest"),
    RunRow(run_id="f-study", path="results/f", status="ok", kind="study"),
]


def shown(**wanted: object) -> str:
    return "".join(r.run_id[0] for r in select_runs(ROWS, RunFilter(**wanted), NOW))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({}, "abcdef"),
        ({"env": "cartpole"}, "acd"),
        ({"env": "CartPole-v1"}, "acd"),
        ({"env": "*pong*"}, "b"),
        ({"env": "pong, cartpole"}, "abcd"),
        ({"env": "cart?ole-v1"}, "acd"),
        ({"algorithm": "ppo"}, "ac"),
        ({"algorithm": "pp"}, ""),
        ({"algorithm": "PP*,dqn"}, "acd"),
        ({"policy": "local"}, "b"),
        ({"policy": "*-learner"}, "c"),
        ({"status": "failed,unreadable"}, "ce"),
        ({"status": "un*"}, "e"),
        ({"kind": "study"}, "f"),
        ({"kind": "run", "status": "ok"}, "abd"),
        ({"since": "2026-02-05"}, "cd"),
        ({"since": "2026-02-05T12:00:00Z"}, "cd"),
        ({"since": "2026-02-05T14:00:00+01:00"}, "d"),
        ({"since": "2d"}, "d"),
        ({"since": "12h"}, "d"),
        ({"since": "1w"}, "bcd"),
        ({"since": "99999999999w"}, "abcd"),
        ({"words": ("killed",)}, "c"),
        ({"words": ("PPO", "cart")}, "ac"),
        ({"words": ("[", "ppo")}, ""),
        ({"sort": "return"}, "cefbad"),
        ({"sort": "return", "is_reversed": True}, "dabfec"),
        ({"sort": "name", "count": 2}, "ef"),
        ({"count": 0}, ""),
        ({"count": 99}, "abcdef"),
        ({"sort": "return", "count": 2, "status": "ok", "is_reversed": True}, "da"),
        ({"sort": "time"}, "abcefd"),
    ],
)
def test_what_is_asked_for_is_shown(wanted: dict[str, object], rows: str):
    assert shown(**wanted) == rows


@pytest.mark.parametrize(
    ("wanted", "where", "fix"),
    [
        ({"status": "fail"}, "--status", "failed"),
        ({"kind": "studies"}, "--kind", "study"),
        ({"sort": "returns"}, "--sort", "return"),
        ({"since": "yesterday"}, "--since", "2026-01-31"),
        ({"since": "2026-13-01"}, "--since", "2026-01-31"),
        ({"since": "7 d"}, "--since", "12h"),
        ({"since": "-1d"}, "--since", "12h"),
    ],
)
def test_what_there_cannot_be_is_refused(wanted: dict[str, object], where: str, fix: str):
    with pytest.raises(ConfigError) as caught:
        shown(**wanted)
    assert caught.value.where == where
    assert fix in caught.value.fix


def test_a_program_sees_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_synthetic_run(tmp_path / "one", num_batches=4)
    write_synthetic_run(tmp_path / "two", num_batches=4, status="failed")
    runs_command(tmp_path, Output(is_json=True), RunFilter(status="failed"))
    assert [row["run_id"] for row in json.loads(capsys.readouterr().out)["runs"]] == ["two"]


def test_who_asks_for_too_much_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_synthetic_run(tmp_path / "one", num_batches=4)
    runs_command(tmp_path, Output(), RunFilter(env="pong"))
    said = capsys.readouterr()
    assert said.out == ""
    assert "none of 1 row fits" in said.err
