"""`tianji plan --simulate`: its table, its document, its figure, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.main import app

SIZES = ("plan", "--simulate", "1,2,4")


def invoke(directory: Path, *arguments: str) -> tuple[int, str, str]:
    words = ["--no-color", *arguments, "--results", str(directory)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=True)
    error = result.exception
    fix = getattr(error, "fix", "")
    return getattr(error, "exit_code", result.exit_code), result.stdout, f"{error} {fix}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("measured")
    write_synthetic_run(directory / "run")
    return directory


def test_a_table_says_what_limits_each_size_and_what_was_assumed(results: Path, tmp_path: Path):
    code, table, error = invoke(results, *SIZES, "--from", "run", "--plot", str(tmp_path / "plots"))
    assert code == 0, error
    rows = [line.split() for line in table.splitlines() if line.strip()[:1].isdigit()]
    assert [row[:3] for row in rows[:3]] == [["1", "2", "1"], ["2", "2", "1"], ["4", "6", "1"]]
    assert "1 host: actors wait" in table
    assert "4 hosts: learner-0: " in table
    assert "beyond 1 host, adding more stops paying" in table
    assert "assumed: network: 10000 Mbit/s and 0.1 ms" in table
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "forecast.png",
        "forecast.svg",
    }


def test_the_document_has_the_costs_and_every_size(results: Path, tmp_path: Path):
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("actors_per_host: 3\ncores: 16\ngrow_batch: true\n")
    code, text, error = invoke(
        results, "--json", *SIZES, "--from", "run", "--cluster", str(cluster), "--policy",
        "synchronous", "-s", "staleness.max_queued_rollouts=99",
    )  # fmt: skip
    assert code == 0, error
    document = json.loads(text)
    assert document["schema_version"] == 1
    assert document["costs"]["collect"]["walls_s"][0] == 0.05
    assert document["forecast"]["policy"] == "synchronous"
    found = {size["hosts"]: size for size in document["forecast"]["sizes"]}
    assert {hosts: size["actors"] for hosts, size in found.items()} == {1: 3, 2: 3, 4: 9}
    assert found[4]["lag_max"] == 0
    assert found[4]["loads"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (SIZES, "is not guessed"),
        (("plan", "--from", "run"), "nothing is simulated"),
        (("plan", "--simulate", "1,two", "--from", "run"), "'two' is not a number of hosts"),
        ((*SIZES, "--from", "run", "--limit", "a"), "it is not used with --simulate"),
        ((*SIZES, "--from", "run", "--slurm"), "it is not used with --simulate"),
        ((*SIZES, "--from", "other"), "no such run"),
        ((*SIZES, "--from", "run", "-s", "actor.device=cuda"), "does not tell what this would"),
        ((*SIZES, "--from", "run", "-s", "env.id=Acrobot-v1"), "does not tell what this would"),
        ((*SIZES, "--from", "run", "-s", "algorithm.num_epochs=9"), "algorithm.num_epochs"),
        ((*SIZES, "--from", "run", "-s", "staleness.max_lag=auto"), "-s staleness.max_lag=N"),
        ((*SIZES, "--from", "run", "-s", "actors=9"), "it follows from the number of hosts"),
        ((*SIZES, "--from", "run", "--policy", "multi-learner-x"), "unknown distribution policy"),
        ((*SIZES, "--from", "run", "--policy", "single-learner-fine"), "measure it with --profile"),
    ],
)
def test_what_cannot_be_simulated_is_one_clear_error(
    arguments: tuple[str, ...], words: str, results: Path
):
    code, _, error = invoke(results, *arguments)
    assert code == 2
    assert words in error
