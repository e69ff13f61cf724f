"""A run as a batch job, with stand-ins for Slurm's commands: submitted, followed, ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import CleanupError, ConfigError, PreflightError
from tests.helpers.fake_slurm import FakeSlurm, record
from tianji_cli.commands.logs import LogsRequest
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.commands.submitted import down as down_module
from tianji_cli.commands.submitted.any_run import (
    end_run,
    fetch_of_run,
    logs_of_run,
    status_of_run,
)
from tianji_cli.commands.submitted.submit import submit_command
from tianji_cli.main import app
from tianji_cli.output import Output
from tianji_cli.runs.submitted import SubmittedRun, find_submitted
from tianji_cli.slurm.batch_script import JobOptions
from tianji_cli.slurm.job_record import SubmittedJob, note_job, read_job
from tianji_cli.slurm.job_state import JobState
from tianji_cli.storage.run_dir import RunPaths

EXPERIMENT = "experiments/cartpole_ppo.yaml"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def asked(results: Path, seed: int | None = None) -> UpRequest:
    return UpRequest(None, EXPERIMENT, ("actors=2",), results, "run", uses_slurm=True, seed=seed)


def submitted(results: Path, slurm: FakeSlurm, state: str = "PENDING") -> SubmittedRun:
    submit_command(asked(results), JobOptions(nodes="4"), Output(verbosity=-1))
    slurm.says(record(state))
    found = find_submitted(results, "run")
    assert found is not None
    return found


def begin(run: SubmittedRun, text: str = "host tj1 ready\n") -> None:
    """What the job does first, on a disk that is shared."""
    run.log.write_text(text)


def test_a_run_is_submitted_and_its_job_recorded(results, slurm, capsys):
    code = submit_command(asked(results, seed=3), JobOptions(nodes="4"), Output())
    assert code == 0
    assert slurm.calls == ["sbatch --parsable"]
    assert (results / "run/job.sh").read_text() == slurm.script
    command = slurm.script.splitlines()[-1]
    assert command.startswith("exec ")
    assert command.endswith(
        f"tianji_cli up --slurm --experiment={EXPERIMENT} --seed=3 --results={results} --name=run"
        " --set=actors=2 --continue"
    )
    assert read_job(results / "run") == SubmittedJob(run_id="run", job="42")
    said = capsys.readouterr().err
    assert "submitted run run as Slurm job 42" in said
    assert "tianji logs -f run" in said


def test_a_dry_run_shows_the_script_and_does_nothing(results, slurm, capsys):
    submit_command(asked(results), JobOptions(nodes="2"), Output(), is_dry=True)
    shown = capsys.readouterr().out
    assert shown.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=2\n" in shown
    assert not slurm.calls
    assert not results.exists()
    submit_command(asked(results), JobOptions(nodes="2"), Output(is_json=True))
    document = json.loads(capsys.readouterr().out)
    assert (document["run_id"], document["job"], document["script"]) == ("run", "42", shown)


def test_what_slurm_refuses_leaves_no_name_taken(results, slurm):
    slurm.refuses("sbatch: error: invalid partition specified: gpus\n")
    with pytest.raises(PreflightError, match="invalid partition specified: gpus"):
        submit_command(asked(results), JobOptions(partition="gpus"), Output(verbosity=-1))
    assert not (results / "run").exists()


def test_a_name_that_is_taken_is_refused_before_slurm_is_asked(results, slurm):
    (results / "run").mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists"):
        submit_command(asked(results), JobOptions(), Output(verbosity=-1))
    assert not slurm.calls


def test_a_setting_that_is_none_is_refused_where_the_user_sees_it(results, slurm):
    wrong = UpRequest(None, EXPERIMENT, ("actorss=2",), results, "run", uses_slurm=True)
    with pytest.raises(ConfigError, match="actorss"):
        submit_command(wrong, JobOptions(), Output(verbosity=-1))
    assert not slurm.calls


def test_where_there_is_no_slurm_it_is_said(results, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="sbatch is not there"):
        submit_command(asked(results), JobOptions(), Output(verbosity=-1))


@pytest.mark.parametrize(
    ("text", "phase", "said"),
    [
        (record("PENDING", reason="Priority", nodes="(null)"), "pending", "waiting (Priority)"),
        (record("RUNNING"), "running", "is running on tj[1-4]"),
        (record("CANCELLED", nodes="(null)", batch_host="(null)"), "ended", "it was cancelled"),
    ],
)
def test_status_says_what_the_job_does(results, slurm, capsys, text, phase, said):
    begin(submitted(results, slurm))
    slurm.says(text)
    assert status_of_run(results, "run", Output()) == 0
    assert said in capsys.readouterr().out
    status_of_run(results, None, Output(is_json=True))
    document = json.loads(capsys.readouterr().out)
    assert (document["run_id"], document["phase"]) == ("run", phase)
    assert document["job"]["state"] == text.partition("JobState=")[2].partition(" ")[0]


def test_the_end_is_remembered_when_slurm_has_forgotten_it(results, slurm):
    run = submitted(results, slurm)
    slurm.says(record("TIMEOUT", nodes="tj2"))
    ended = run.look()
    (slurm.place / "record").unlink()
    again = find_submitted(results, "run")
    assert again is not None
    assert again.look() == ended
    assert again.look().words() == "has ended: its time limit was reached (TIMEOUT)"


def test_accounts_are_asked_where_the_controller_has_forgotten_it(results, slurm):
    run = submitted(results, slurm)
    (slurm.place / "record").unlink()
    assert run.look().words() == "has ended; Slurm knows it no more"
    slurm.accounts("NODE_FAIL|0:0|tj1\n")
    assert run.look().words() == "has ended: a node has failed (NODE_FAIL)"


def test_logs_hold_what_up_says_in_the_job(results, slurm, capsys):
    run = submitted(results, slurm)
    with pytest.raises(ConfigError, match="no log yet"):
        logs_of_run(results, LogsRequest("run", None, False, 50), Output())
    begin(run)
    slurm.says(record("RUNNING"))
    logs_of_run(results, LogsRequest("run", None, False, 50), Output())
    assert capsys.readouterr().out == "job | host tj1 ready\n"


def test_logs_that_are_followed_end_with_the_job(results, slurm, capsys, monkeypatch):
    run = submitted(results, slurm, "RUNNING")
    begin(run)
    monkeypatch.setattr("tianji_cli.commands.submitted.logs.ASK_S", 0.0)
    looks: list[str] = []
    look = SubmittedRun.look

    def count(self: SubmittedRun) -> JobState:
        looks.append("")
        if len(looks) == 3:
            begin(run, "host tj1 ready\nstopped")
            slurm.says(record("COMPLETED"))
        return look(self)

    monkeypatch.setattr(SubmittedRun, "look", count)
    logs_of_run(results, LogsRequest("run", None, True, 50), Output())
    said = capsys.readouterr()
    assert said.out == "job | host tj1 ready\njob | stopped\n"
    assert "Slurm job 42 has ended: completed" in said.err


def test_fetch_on_a_shared_disk_says_where_they_are(results, slurm, capsys):
    begin(submitted(results, slurm, "RUNNING"))
    assert fetch_of_run(results, "run", Output()) == 0
    assert f"results: {results / 'run'}" in capsys.readouterr().err


def test_down_cancels_a_job_that_waits(results, slurm, capsys):
    submitted(results, slurm)
    slurm.says_after_cancel(record("CANCELLED", nodes="(null)", batch_host="(null)"))
    assert end_run(results, "run", Output()) == 0
    assert "scancel --quiet 42" in slurm.calls
    assert "Slurm job 42 has ended: it was cancelled" in capsys.readouterr().err


def test_down_asks_the_command_in_the_job_to_stop(results, slurm, capsys):
    begin(submitted(results, slurm, "RUNNING"))
    slurm.says_after_cancel(record("FAILED", code="130:0"))
    assert end_run(results, "run", Output(is_json=True)) == 0
    assert "scancel --quiet --batch --signal=INT 42" in slurm.calls
    document = json.loads(capsys.readouterr().out)
    assert document["is_clean"]
    assert document["hosts"] == {"Slurm job 42": {"left": [], "was_forced": False, "error": ""}}


def test_down_kills_a_job_that_does_not_end(results, slurm, monkeypatch):
    begin(submitted(results, slurm, "RUNNING"))
    monkeypatch.setattr(down_module, "STOP_S", 0.0)
    monkeypatch.setattr(down_module, "KILLED_S", 0.0)
    with pytest.raises(CleanupError, match="is running"):
        end_run(results, "run", Output(verbosity=-1))
    cancels = [call for call in slurm.calls if call.startswith("scancel")]
    assert cancels == [
        "scancel --quiet --batch --signal=INT 42",
        "scancel --quiet --full --signal=KILL 42",
        "scancel --quiet 42",
    ]


def test_a_run_that_continues_it_is_the_same_job(results, slurm, monkeypatch):
    """Under each name, and its beginning if that is nobody else's."""
    run = submitted(results, slurm, "RUNNING")
    begin(run)
    for name in ("run", "run-2"):
        (results / name).mkdir(exist_ok=True)
        (results / name / "manifest.json").write_text("{}")
        note_job(RunPaths(results / name), "run", {"SLURM_JOB_ID": "42"})
    for given in ("run", "run-2", "ru", None, str(results / "run-2")):
        found = find_submitted(results, given)
        assert found is not None
        assert (found.job.job, found.current.run_id) == ("42", "run-2")
    (results / "rural").mkdir()
    (results / "rural/manifest.json").write_text("{}")
    assert find_submitted(results, "ru") is None
    assert find_submitted(results, "rural") is None


def test_a_record_that_names_no_job_is_refused(results, slurm):
    run = submitted(results, slurm)
    path = run.first.root / "job.json"
    path.write_text(path.read_text().replace('"42"', '"42 --user=root"'))
    with pytest.raises(ConfigError, match="no job of Slurm"):
        find_submitted(results, "run")


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("--submit",), "--submit"),
        (("--nodes", "2"), "up"),
        (("--slurm", "--sbatch", "exclusive"), "up"),
        (("--slurm", "--submit", "--detach"), "--detach"),
        (("--slurm", "--submit", "--name", "x", "--continue"), "--continue"),
    ],
)
def test_options_that_do_not_go_together_are_refused(slurm, arguments, where):
    done = CliRunner().invoke(app, ["up", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.where == where
    assert not slurm.calls
