"""Whatever ends a run before its stop rule is a failure by name, with a summary, exit code 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from broken_env import WAYS_OUT

from tests.helpers.running import EAGER
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.commands.up import up
from tianji_cli.output import Output


def settings(how: str, *, at_reset: bool) -> tuple[str, ...]:
    return (
        "env.id=broken_env:Leaving-v0",
        f"env.kwargs={json.dumps({'how': how, 'at_reset': at_reset})}",
        "stop.return_threshold=null",
        "stop.env_steps=8000",
        "restarts=0",
    )


def failed_summary(results: Path) -> str:
    summary = json.loads((results / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    return str(summary["error"])


@pytest.mark.parametrize("at_reset", [True, False])
@pytest.mark.parametrize("how", WAYS_OUT)
def test_in_one_process_no_way_out_is_taken_for_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, how: str, at_reset: bool
):
    monkeypatch.chdir(tmp_path)
    given = ("policy=local", *settings(how, at_reset=at_reset))
    request = UpRequest(None, None, given, results=tmp_path / "results", name="run")
    assert up(request, Output(verbosity=-1)) == 1
    error = failed_summary(tmp_path / "results")
    assert how in error
    assert how in capsys.readouterr().err


@pytest.mark.processes
@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("SystemExit: 0", "SystemExit: 0"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("os._exit(0)", "ended with code 0"),
        pytest.param("os._exit(3)", "ended with code 3", marks=pytest.mark.slow),
    ],
)
def test_a_role_that_takes_one_is_named(tianji, tmp_path: Path, how: str, cause: str):
    given = (word for setting in settings(how, at_reset=False) for word in ("-s", setting))
    code, _, err = tianji("up", "--name", "run", *EAGER, *given).end(60)
    assert code == 1, err
    error = failed_summary(tmp_path / "results")
    assert "actor-" in error
    assert cause in error
    assert cause in err


@pytest.mark.processes
@pytest.mark.parametrize("policy", ["local", "tianji"])
def test_a_module_that_ends_the_process_is_named(tianji, tmp_path: Path, policy: str):
    (tmp_path / "leaving.py").write_text("import sys; sys.exit(0)\n")
    command = tianji("up", "--name", "run", "--policy", policy, "-s", "modules=[leaving]")
    code, _, err = command.end(60)
    assert code == 2, err
    assert "the module 'leaving' cannot be imported: SystemExit: 0" in err
