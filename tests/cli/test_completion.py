"""Tab completes names of runs, experiments, inventories, suites and policies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tianji_cli.commands.shell import completion
from tianji_cli.main import app


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in (
        "results/20260101-a",
        "results/20260102-b",
        "elsewhere/c",
        "mine/deep",
        ".hidden",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("mine/one.yaml", "mine/deep/two.yml", "mine/notes.txt", "results/file"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIANJI_RESULTS", raising=False)
    return tmp_path


def context(**params: object) -> typer.Context:
    made = typer.Context(typer.main.get_command(app))
    made.params = params
    return made


def test_runs_are_those_of_the_results_directory(place: Path, monkeypatch) -> None:
    assert completion.runs(context(), "2026") == ["20260101-a", "20260102-b"]
    assert completion.runs(context(results=Path("elsewhere")), "") == ["c"]
    monkeypatch.setenv("TIANJI_RESULTS", str(place / "elsewhere"))
    assert completion.runs(context(), "") == ["c"]
    monkeypatch.setenv("TIANJI_RESULTS", str(place / "nowhere"))
    assert completion.runs(context(), "") == []


def test_experiments_are_shipped_ones_and_files(place: Path) -> None:
    assert completion.experiments("cartpole_p") == ["cartpole_ppo"]
    assert "mine/" in completion.experiments("mi")
    assert completion.experiments("mine/") == ["mine/deep/", "mine/one.yaml"]
    assert completion.experiments("mine/deep/") == ["mine/deep/two.yml"]
    assert completion.experiments(f"{place}/mine/o") == [f"{place}/mine/one.yaml"]
    assert completion.experiments("nowhere/x") == []
    assert completion.experiments(".h") == []


def test_other_names(place: Path) -> None:
    assert completion.inventories("loc") == ["local"]
    names = ["scaling", "search", "smoke", "spaces"]
    names += ["staleness", "staleness-cost", "staleness-harm"]
    assert completion.suites("s") == names
    assert completion.policies("single") == ["single-learner-coarse", "single-learner-fine"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tianji report 20260101", ["20260101-a"]),
        ("tianji report --results elsewhere ", ["c"]),
        ("tianji up --policy lo", ["local"]),
    ],
)
def test_a_shell_is_answered_without_heavy_libraries(
    words: str, expected: list[str], place: Path
) -> None:
    asked = {
        "_TIANJI_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    probe = (
        "import sys, atexit; sys.argv = ['tianji']\n"
        "heavy = ('torch', 'pandas', 'gymnasium')\n"
        "atexit.register(lambda: print(*[n for n in heavy if n in sys.modules], file=sys.stderr))\n"
        "from tianji_cli.main import main; main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=place,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert answer.stdout.split() == expected
    assert answer.stderr.strip() == ""
