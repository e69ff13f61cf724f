"""Random rounds of starts and ends can be planned; a few of them are gone through for real."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from engine.trace.reader import read_summary
from tests.faults.ends_schedule import COMMAND, KEEPERS, LAYOUTS, MOMENTS, ROLES, make_rounds
from tests.faults.random_ends import Trial, judge_code, main
from tests.helpers.paths import REPOSITORY
from tianji_cli.commands.up import AFTER_ITS_END

FINISHED = REPOSITORY / "tests" / "recorded" / "finished"


def test_a_seed_makes_one_list_of_rounds_and_another_seed_another():
    assert make_rounds(1, 50) == make_rounds(1, 50)
    assert make_rounds(1, 50) != make_rounds(2, 50)
    assert make_rounds(1, 50)[:20] == make_rounds(1, 20)


def test_every_process_is_hit_in_every_phase():
    runs = [run for planned in make_rounds(3, 4000) for run in planned.runs]
    targets = {COMMAND, *KEEPERS, *(role for roles in ROLES.values() for role in roles)}
    wanted = {(target, moment) for target in targets for moment in MOMENTS}
    assert wanted <= {(run.target, run.moment) for run in runs}
    assert {run.layout for run in runs} == set(LAYOUTS)
    assert {run.is_detached for run in runs} == {True, False}


def test_what_runs_in_one_process_is_neither_detached_nor_hit_elsewhere():
    runs = [run for planned in make_rounds(4, 2000) for run in planned.runs]
    alone = [run for run in runs if run.layout == "local"]
    assert alone
    assert not any(run.is_detached or run.target != COMMAND for run in alone)


@pytest.mark.parametrize(
    ("code", "is_right"), [(-signal.SIGKILL, True), (0, True), (1, False), (130, False)]
)
def test_a_command_that_was_just_ending_when_it_was_killed_is_judged_by_what_it_did(
    tmp_path: Path, code: int, is_right: bool
):
    """A signal to a process that has ended and was not yet waited for is no error, and no hit."""
    killed = ("local", COMMAND, "kill", "stopping")
    planned = next(
        run
        for each in make_rounds(1, 4000)
        for run in each.runs
        if (run.layout, run.target, run.act, run.moment) == killed
    )
    trial = Trial(planned, "run", tmp_path, subprocess.Popen(["true"], text=True), tmp_path)
    trial.happened = "kill of command, process 1"
    judge_code(trial, code, None)
    trial.command.wait()
    assert (trial.broken == []) == is_right


@pytest.mark.parametrize(("said", "is_right"), [(AFTER_ITS_END, True), ("", False)])
def test_a_second_ctrl_c_after_a_run_must_say_that_the_run_had_ended(
    tmp_path: Path, said: str, is_right: bool
):
    twice = (COMMAND, "interrupt-twice", "stopping")
    planned = next(
        run
        for each in make_rounds(1, 4000)
        for run in each.runs
        if (run.target, run.act, run.moment) == twice
    )
    trial = Trial(planned, "run", tmp_path, subprocess.Popen(["true"], text=True), tmp_path)
    trial.happened = "interrupt-twice of command, process 1"
    (tmp_path / "run.err").write_text(said)
    judge_code(trial, 130, read_summary(FINISHED / "summary.json"))
    trial.command.wait()
    assert (trial.broken == []) == is_right


@pytest.mark.slow
def test_a_few_rounds_break_no_rule(tmp_path: Path):
    """`make ends` goes through two hundred."""
    out = tmp_path / "ends"
    assert main(["--seed", "7", "--rounds", "4", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert len(rows) >= 4
    assert any(not row["happened"].startswith("missed") for row in rows)
