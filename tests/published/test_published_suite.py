"""Suites of published results: the one that comes with TianJi, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config.config_file import read_yaml
from engine.errors import ConfigError
from tests.helpers.bench.bench_requests import request_for
from tianji_cli.bench.published.suite import load_published
from tianji_cli.commands.benchmarks.bench_published import KIND
from tianji_cli.config.lookup import find_file, shipped
from tianji_cli.output import Output

QUIET = Output(verbosity=-1)
SUITE = """
version: 1
kind: published
name: mine
summary: One row
seeds: 2
rows:
  a:
    experiment: cartpole_ppo
    published: {mean: 1, spread: 1, runs: 3}
    source: {name: n, figure: "https://a.b", settings: "https://a.b"}
    judge: training
    settings: {stop.return_threshold: null}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (path := tmp_path / "mine.yaml").write_text(SUITE)
    return path


def test_every_experiment_with_published_settings_is_a_row_under_its_name():
    suite = load_published("published")
    experiments = {row.experiment.removeprefix("published/") for row in suite.rows.values()}
    assert experiments == {path.stem for path in shipped("experiments").glob("published/*.yaml")}
    for row in suite.rows.values():
        document = read_yaml(find_file("experiments", row.experiment))
        assert document.data["name"] == row.experiment.removeprefix("published/")
        assert document.data["policy"] == "local"
        assert row.source.figure.startswith("https://")


def test_seeds_rows_budget_and_runs_at_once_are_chosen(tmp_path: Path):
    request = replace(
        request_for(tmp_path / "b", resume=False),
        suite="published",
        tasks=("cartpole-ppo", "acrobot-dqn"),
        seeds=2,
        budget_s=60.0,
        parallel="2",
        settings=("rows.cartpole-ppo.settings.policy=tianji",),
    )
    work = KIND.scheduled(KIND.plan(request, QUIET), request)
    suite = work.manifest.suite
    assert set(suite.rows) == {"cartpole-ppo", "acrobot-dqn"}
    assert len(work.open_cells) == 4
    assert suite.parallel == 2
    assert 'policy="tianji"' in suite.study.settings_of("cartpole-ppo", "published")
    assert "stop.seconds=60.0" in suite.study.settings_of("acrobot-dqn", "published")
    lines = list(KIND.announce(work))
    assert lines[0] == "4 runs, 2 at a time"
    assert lines[-1].startswith("runs share cores")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("runs: 3", "runs: 1", "needs the number of its episodes"),
        ("return_threshold: null", "return_threshold: null, seed: 3", "seeds belong to the suite"),
        ("settings: {stop.return_threshold: null}", "settings: {}", "not stop at a threshold"),
        ("return_threshold: null", "return_threshold: null, stop.env_steps: null", "must train"),
        ("return_threshold: null", "return_threshold: null, algorithm.clipp: 1", "clipp"),
        ("experiment: cartpole_ppo", "experiment: nowhere", "no such file"),
        ("seeds: 2", "seeds: 0", "seeds"),
    ],
)
def test_what_it_refuses(mine: Path, old: str, new: str, words: str):
    mine.write_text(SUITE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words):
        load_published(str(mine))


def test_a_row_that_it_has_not_is_refused_with_the_nearest(mine: Path):
    with pytest.raises(ConfigError, match="no row 'b'"):
        load_published(str(mine), rows=["b"])
    with pytest.raises(ConfigError, match="no row"):
        load_published(str(mine), ["rows={}"])
