"""`up --continue`: where a command that is started again goes on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from engine.errors import ConfigError, HostUnreachableError
from tests.helpers.paths import REPOSITORY
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.commands.up import up
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Node
from tianji_cli.output import Output
from tianji_cli.runs.continuing import Continuation, continuation
from tianji_cli.storage.deployment import Deployment, HostPart, write_deployment
from tianji_cli.storage.run_dir import claim_run


def unreachable(host: Host, cancel: threading.Event) -> Node:
    raise HostUnreachableError("it is gone", where=host.name)


def make_run(root: Path, *, version: int | None) -> None:
    """A run that has begun; with a checkpoint of this version."""
    (root / "checkpoints").mkdir(parents=True)
    (root / "manifest.json").write_text("{}")
    if version is not None:
        (root / f"checkpoints/v{version:010d}.json").write_text("{}")


def test_without_an_earlier_run_it_starts_one(tmp_path):
    assert continuation(tmp_path, "run") == Continuation("run")


def test_a_directory_that_was_only_claimed_for_the_job_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("job.json", "job.sh", "job.log", ".job.json.1a2b.tmp"):
        (tmp_path / "run" / name).write_text("")
    assert continuation(tmp_path, "run") == Continuation("run")
    assert claim_run(tmp_path, "run", is_of_job=True).run_id == "run"
    with pytest.raises(ConfigError, match="exists"):
        claim_run(tmp_path, "run")


def test_it_goes_on_from_the_newest_run_with_a_trained_checkpoint(tmp_path):
    make_run(tmp_path / "run", version=7)
    make_run(tmp_path / "run-2", version=9)
    make_run(tmp_path / "run-3", version=0)
    found = continuation(tmp_path, "run")
    assert (found.name, found.resumes) == ("run-4", str(tmp_path / "run-2"))


def test_if_there_is_no_checkpoint_it_says_that_it_starts_anew(tmp_path):
    make_run(tmp_path / "run", version=None)
    found = continuation(tmp_path, "run")
    assert (found.name, found.resumes) == ("run-2", None)
    assert found.notes == ("run has no checkpoint to go on from: it starts anew",)


def test_files_of_another_user_are_not_trusted(tmp_path, monkeypatch):
    make_run(tmp_path / "run", version=7)
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "run").stat().st_uid + 1)
    assert continuation(tmp_path, "run").resumes is None


def test_hosts_of_the_earlier_run_that_are_gone_are_named_and_do_not_stop_it(tmp_path):
    make_run(tmp_path / "run", version=7)
    host = Host(name="tj3", connection="ssh", ssh_host="tj3", address="10.0.0.3", ports=None)
    part = HostPart(host=host, python="python3", source="/s", run_dir="/w/runs/run@tj3")
    write_deployment(tmp_path / "run", Deployment(run_id="run", parts=(part,)))
    found = continuation(tmp_path, "run", unreachable)
    assert found.resumes == str(tmp_path / "run")
    assert found.notes == ("run: tj3 does not answer: it is gone",)


def test_it_needs_a_name(tmp_path):
    request = UpRequest(None, None, (), tmp_path, None, continues=True)
    with pytest.raises(ConfigError, match="name"):
        up(request, Output(verbosity=-1))


def test_what_was_cut_short_goes_on_until_it_has_reached_its_end(tmp_path, capsys):
    """The same command three times: to train, to go on, and when nothing is left to do."""
    experiment = str(REPOSITORY / "experiments/cartpole_ppo.yaml")
    settings = ("policy=local", "stop.return_threshold=null", "checkpoint.every_s=0.01")

    def start(env_steps: int) -> int:
        steps = (*settings, f"stop.env_steps={env_steps}")
        request = UpRequest(None, experiment, steps, tmp_path, "run", continues=True)
        return up(request, Output())

    assert start(2000) == 0
    assert start(6000) == 0
    assert "resumes run from version" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    with pytest.raises(ConfigError, match="already"):
        start(6000)
