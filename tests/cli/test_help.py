"""The command line's shape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.helpers.running import run_tianji
from tianji_cli.commands.shell.grouped import GROUPS
from tianji_cli.main import app

HEAVY = ("torch", "pandas", "matplotlib", "paramiko", "gymnasium", "numpy", "zmq")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_tianji(Path.cwd(), *arguments, env=os.environ)


def commands() -> list[str]:
    listing = run("--help").stdout.partition("Train:")[2].partition("Exit codes")[0]
    return re.findall(r"^  (\w+) ", listing, re.MULTILINE)


def test_help_reads_no_heavy_library():
    probe = (
        "import sys; sys.argv = ['tianji', '--help']\n"
        "from tianji_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_commands_are_told_whole_in_80_columns_and_the_first_is_up():
    assert "..." not in run("--help").stdout.partition("Train:")[2]
    assert commands()[0] == "up"


def test_every_command_is_listed_once_in_a_group():
    assert sorted(commands()) == sorted(typer.main.get_command(app).commands)
    assert set(commands()) <= {name for names in GROUPS.values() for name in names}


def test_every_command_has_help():
    assert {"up", "plan", "report", "runs", "version"} <= set(commands())
    for command in commands():
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.stdout


@pytest.mark.parametrize("arguments", [("--json", "version"), ("version", "--json")])
def test_global_options_stand_before_and_after_the_command(arguments):
    result = run(*arguments)
    assert result.returncode == 0
    assert json.loads(result.stdout)["schema_version"] == 1


def test_plan_shows_processes_and_channels():
    result = run("plan", "--json", "-s", "actors=3")
    plan = json.loads(result.stdout)
    assert [placement["process"] for placement in plan["processes"]] == [
        "coordinator",
        "actor-0",
        "actor-1",
        "actor-2",
        "buffer-0",
        "learner-0",
    ]
    assert {channel["carries"] for channel in plan["channels"]} == {"rollout", "batch", "weights"}


def test_plan_of_the_debug_twin_is_one_process():
    plan = json.loads(run("plan", "--json", "--policy", "local").stdout)
    assert plan["is_inline"]
    assert len(plan["processes"]) == 1


def test_dry_run_checks_and_starts_nothing(tmp_path):
    result = run("up", "--dry-run", "--results", str(tmp_path / "results"))
    assert result.returncode == 0, result.stderr
    assert "process learner-0" in result.stdout
    assert list((tmp_path / "results").iterdir()) == []
