"""Bad input: one clear error with the documented exit code, and nothing is started or written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.helpers.running import run_tianji

BAD_KEY = """\
version: 1
name: bad
env: {id: CartPole-v1}
algorithm: {name: ppo}
stop: {env_step: 5}
"""


def tianji(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_tianji(cwd, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-s", "env.num_env=3"], ["unknown key 'num_env'", "env.num_env", "'num_envs'"]),
        (["-s", "env.num_envs=many"], ["expected `int`, got `str`", "-s env.num_envs"]),
        (["-s", "actors=0"], ["expected `int` >= 1", "-s actors"]),
        (["-s", "actors=99999999"], ["expected `int` <= 10000", "-s actors"]),
        (["-s", "nothing.of.this=1"], ["unknown key 'nothing'", "where: -s nothing.of.this"]),
        (["-s", "novalue"], ["not of the form KEY=VALUE"]),
        (["-x", "nowhere.yaml"], ["no such file", "nowhere.yaml"]),
        (["nowhere.yaml"], ["no such file", "nowhere.yaml"]),
        (["--policy", "tianjin"], ["unknown distribution policy", "did you mean 'tianji'?"]),
        (["-s", "stop.env_steps=0"], ["-s stop.env_steps", ">= 1"]),
        (
            ["-s", "stop.env_steps=null", "-s", "stop.return_threshold=null"],
            ["no stop rule is left", "stop"],
        ),
        (["-s", "stop.return_threshold=.nan"], ["stop.return_threshold"]),
        (["--name", "../up"], ["'../up' cannot name a directory", "--name"]),
        (["--name", ""], ["'' cannot name a directory", "--name"]),
        (["--resume", ""], ["no such run: ''"]),
        (["--frobnicate"], ["No such option"]),
        (["--policy", "local", "--detach"], ["--detach", "ends with it"]),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(tmp_path, arguments, words):
    result = tianji(tmp_path, "up", *arguments)
    assert result.returncode == 2
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("env.id=CartPol-v1", ["unknown environment 'CartPol-v1'", "did you mean 'CartPole-v1'?"]),
        ("env.kwargs.colour=red", ["CartPole-v1 cannot be made", "colour"]),
        ("algorithm.batch_steps=600", ["algorithm.batch_steps", "not a multiple of", "try 800"]),
        *(
            pytest.param(setting, words, marks=pytest.mark.slow)  # a run's start each
            for setting, words in (
                ("algorithm.name=pppo", ["unknown algorithm 'pppo'", "did you mean 'ppo'?"]),
                ("algorithm.learning_rat=1", ["-s algorithm.learning_rat", "'learning_rate'"]),
                ("algorithm.learning_rate=-1", ["-s algorithm.learning_rate", "> 0.0"]),
            )
        ),
    ],
)
def test_what_only_the_host_can_know_is_refused_before_a_run_exists(tmp_path, setting, words):
    result = tianji(tmp_path, "up", "-s", setting)
    assert result.returncode == 2, result.stderr
    for word in words:
        assert word in result.stderr
    assert not list(tmp_path.glob("results/*"))


def test_an_error_in_a_file_names_file_and_line(tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD_KEY)
    result = tianji(tmp_path, "plan", "-x", "bad.yaml")
    assert result.returncode == 2
    assert "unknown key 'env_step'" in result.stderr
    assert "bad.yaml:5: stop.env_step" in result.stderr
    assert "did you mean 'env_steps'?" in result.stderr


def test_an_inventory_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "hosts.yaml").write_text("version: 1\nhosts:\n  a: {adress: 127.0.0.1}\n")
    result = tianji(tmp_path, "plan", "hosts.yaml")
    assert result.returncode == 2
    assert "hosts.yaml:3: hosts.a.adress" in result.stderr
    assert "did you mean 'address'?" in result.stderr


@pytest.mark.parametrize(
    ("hosts", "words", "code"),
    [
        ("a: {connection: local, roles: {learner: 2}}", "where: hosts.yaml: roles", 2),
        ("a: {connection: local}, b: {connection: local}", "where: hosts.yaml: host a", 2),
        (
            "a: {connection: local, address: 203.0.113.9, ports: 29500}",
            "no network of this host has that address",
            3,
        ),
    ],
)
def test_an_error_of_a_host_is_not_blamed_on_the_experiment(tmp_path, hosts, words, code):
    (tmp_path / "hosts.yaml").write_text(f"version: 1\nhosts: {{{hosts}}}\n")
    result = tianji(tmp_path, "up", "hosts.yaml")
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "experiment" not in result.stderr


def test_a_busy_port_is_a_failed_preflight_that_names_the_range(tmp_path, witness):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        hosts = f"version: 1\nhosts:\n  here: {{connection: local, ports: {port}-{port}}}\n"
        (tmp_path / "hosts.yaml").write_text(hosts)
        result = tianji(tmp_path, "up", "hosts.yaml")
    assert result.returncode == 3, result.stderr
    assert f"{port}-{port}" in result.stderr
    assert not list(tmp_path.glob("results/*"))
    witness("port taken", "exit 3, the range named, no run directory")


def test_results_that_cannot_be_written_are_a_failed_preflight(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    result = tianji(tmp_path, "up", "--results", "file/inside")
    assert result.returncode == 3
    assert "file/inside" in result.stderr
    assert "--results" in result.stderr


def test_a_full_disk_is_a_failed_preflight(tmp_path):
    if not Path("/dev/full").exists() or os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root on Linux only")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        result = tianji(tmp_path, "up", "--results", str(small))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert result.returncode == 3
    assert "No space left on device" in result.stderr


def test_a_run_is_never_overwritten(tmp_path, witness):
    (tmp_path / "results" / "mine").mkdir(parents=True)
    result = tianji(tmp_path, "up", "--name", "mine")
    assert result.returncode == 2
    assert "not overwritten" in result.stderr
    witness("the same `up` twice", "exit 2, the run's directory left as it was")


def test_report_and_runs_without_any_run_say_what_to_do(tmp_path):
    report = tianji(tmp_path, "report")
    assert report.returncode == 2
    assert "tianji up" in report.stderr
    runs = tianji(tmp_path, "runs", "--json")
    assert runs.returncode == 0
    assert json.loads(runs.stdout)["runs"] == []


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["plan", "--policy", "nope"], "--policy nope"),
        (["plan", "-s", "policy=nope"], "-s policy"),
        (["plan", "--policy", "010"], "--policy 010"),
        (["up", "--dry-run", "--seed", "-3"], "--seed -3"),
        (["up", "--dry-run", "-s", "seed=-3"], "-s seed"),
    ],
)
def test_an_error_names_what_was_typed(tmp_path: Path, words: list[str], where: str):
    done = tianji(tmp_path, *words)
    assert done.returncode == 2
    assert f"where: {where}\n" in done.stderr


def test_the_version_is_an_option_too(tmp_path: Path):
    done = tianji(tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "tianji")
