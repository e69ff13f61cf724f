"""The step that becomes a keeper, and what is said if none starts."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from engine.errors import HostUnreachableError, PreflightError
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.slurm import JobOverError, slurm_node, srun_words, step_error

NODE = Host(name="tj2", connection="slurm", job="7", address="192.0.2.2", ports=None)


def test_options_of_the_job_are_none_of_the_step() -> None:
    variables = ("PATH", "SLURM_NTASKS", "SLURM_CONF", "SLURM_CPU_BIND", "SRUN_CPUS_PER_TASK")
    words = srun_words("7", "tj2", "true", variables)
    unset = [name for flag, name in itertools.pairwise(words) if flag == "-u"]
    assert unset == ["SLURM_CPU_BIND", "SLURM_NTASKS", "SRUN_CPUS_PER_TASK"]
    step = words[words.index("srun") :]
    assert {"--jobid=7", "--nodelist=tj2", "--overlap", "--export=ALL", "--unbuffered"} < {*step}
    assert step[-3:] == ["sh", "-c", "true"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("srun: error: Slurm job 7 has expired\nsrun: Check SLURM_JOB_ID", JobOverError),
        ("srun: error: Unable to confirm allocation: Invalid job id specified", JobOverError),
        ("srun: error: Unable to create step: Requested node configuration", HostUnreachableError),
    ],
)
def test_a_step_that_does_not_start_is_explained(said: str, kind: type[Exception]) -> None:
    error = step_error("7", "tj2", said)
    assert type(error) is kind
    assert said.splitlines()[0] in error.what
    assert (error.where, error.exit_code) == ("tj2", 4)


def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of this name that does something else."""
    path = tmp_path / "srun"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_without_srun_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="srun is not there") as caught:
        slurm_node(NODE)
    assert caught.value.where == "this machine"


def test_a_node_is_used_through_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "count"
    srun(tmp_path, monkeypatch, f'echo step >>{count}; while [ "$1" != sh ]; do shift; done; "$@"')
    node = slurm_node(NODE)
    try:
        node.put(str(tmp_path / "file"), b"text")
        assert node.run(["cat", str(tmp_path / "file")], 10.0).stdout == "text"
        assert node.walk(str(tmp_path))["file"] == 4
        assert (node.is_remote, node.access.endpoint) == (True, "node tj2 of Slurm job 7")
    finally:
        node.close()
    assert count.read_text().split() == ["step"]


def test_a_later_job_reaches_what_an_earlier_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = 'case "$*" in *jobid=7*) echo "srun: error: Slurm job 7 has expired" >&2; exit 1;; esac'
    srun(tmp_path, monkeypatch, f'{over}; while [ "$1" != sh ]; do shift; done; "$@"')
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(JobOverError, match="Slurm job 7 is over"):
        slurm_node(NODE)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    node = slurm_node(NODE)
    node.close()
    assert node.access.endpoint == "node tj2 of Slurm job 7"
