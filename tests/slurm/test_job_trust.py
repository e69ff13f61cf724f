"""A job's record can come from anywhere, and so can the name of a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ConfigError, TianJiError
from tests.helpers.fake_slurm import FakeSlurm, record
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.commands.submitted import submit as submitting
from tianji_cli.commands.submitted.any_run import end_run, fetch_of_run
from tianji_cli.commands.submitted.submit import submit_command
from tianji_cli.output import Output
from tianji_cli.runs.submitted import find_submitted
from tianji_cli.slurm.batch_script import JobOptions, batch_script, sbatch_lines
from tianji_cli.slurm.job_record import read_job

SILENT = Output(verbosity=-1)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def strangers(results: Path, name: str = "theirs", **facts: object) -> Path:
    """A results directory that somebody has sent."""
    root = results / name
    root.mkdir(parents=True)
    document = {"schema_version": 1, "run_id": name, "job": "42", **facts}
    (root / "job.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize(
    "facts",
    [
        {"last": {"state": "COMPLETED", "batch_host": "tj1\ntouch /tmp/x\n#"}},
        {"last": {"state": "COMPLETED", "batch_host": "tj1", "partition": "a b"}},
        {"last": {"state": "COMPLETED", "batch_host": "tj1", "account": "$(id)"}},
        {"run_id": ".."},
        {"run_id": "."},
        {"run_id": "../other"},
        {"job": "42 43"},
        {"cluster": "a;b"},
    ],
)
def test_what_could_lead_elsewhere_or_into_a_script_is_refused(tmp_path: Path, facts):
    root = strangers(tmp_path, **facts)
    with pytest.raises(ConfigError):
        read_job(root)


def test_a_strangers_job_is_neither_ended_nor_reached(tmp_path: Path, slurm: FakeSlurm):
    """Its number can be that of a job of yours."""
    strangers(tmp_path / "results")
    slurm.says(record("RUNNING"))
    for act in (end_run, fetch_of_run):
        with pytest.raises(TianJiError, match="you did not start this run here"):
            act(tmp_path / "results", "theirs", SILENT)
    assert not [call for call in slurm.calls if not call.startswith(("scontrol", "sacct"))]


def test_agreeing_ends_it(tmp_path: Path, slurm: FakeSlurm):
    strangers(tmp_path / "results")
    slurm.says(record("PENDING"))
    slurm.says_after_cancel(record("CANCELLED", batch_host=""))
    assert end_run(tmp_path / "results", "theirs", SILENT, trusts=True) == 0
    assert any(call.startswith("scancel") for call in slurm.calls)


@pytest.mark.parametrize("name", ["a\ntouch /tmp/x\n#", "a\rb", "a\0b"])
def test_no_directory_adds_a_line_to_a_script(name: str):
    with pytest.raises(ConfigError, match="batch script"):
        batch_script("run", f"/home/{name}", "/results/run", JobOptions(), ["tianji", "up"])
    with pytest.raises(ConfigError, match="batch script"):
        sbatch_lines([f"nodelist={name}"])


def test_a_run_that_continues_a_job_is_that_of_the_jobs_first_record(tmp_path: Path):
    strangers(tmp_path, "run", cluster="east", is_elsewhere=True)
    strangers(tmp_path, "run-2", run_id="run")
    found = find_submitted(tmp_path, "run-2")
    assert found is not None
    assert (found.job.cluster, found.job.is_elsewhere) == ("east", True)
    by_path = find_submitted(tmp_path, str(tmp_path / "run-2"))
    assert by_path is not None
    assert by_path.job == found.job


def test_a_job_that_cannot_be_recorded_is_cancelled(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(submitting, "write_job", fail)
    experiment = "experiments/cartpole_ppo.yaml"
    wanted = UpRequest(
        None, experiment, ("actors=2",), tmp_path / "results", "run", uses_slurm=True
    )
    with pytest.raises(Exception, match="No space left"):
        submit_command(wanted, JobOptions(), SILENT)
    assert [call.split()[0] for call in slurm.calls] == ["sbatch", "scancel"]
    assert not (tmp_path / "results/run").exists()


def test_the_node_of_an_ended_job_is_not_forgotten_with_the_controller(
    tmp_path: Path, slurm: FakeSlurm
):
    strangers(tmp_path, "run", last={"state": "COMPLETED", "batch_host": "tj1", "exit_code": 0})
    slurm.says("")
    slurm.accounts("COMPLETED|0:0|tj[1-4]\n")
    found = find_submitted(tmp_path, "run")
    assert found is not None
    assert found.look().batch_host == "tj1"
    kept = read_job(tmp_path / "run")
    assert kept is not None
    assert kept.last is not None
    assert kept.last.batch_host == "tj1"
