"""What an evaluation keeps, and how it looks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from tianji_cli.bench import statistics
from tianji_cli.evaluation.news import NewsReader, Played, Stepped
from tianji_cli.evaluation.records import (
    EpisodeRow,
    EvaluatedRun,
    episodes_csv,
    evaluation_files,
    length_statistics,
    return_statistics,
)
from tianji_cli.render.evaluations import evaluation_notes, evaluations_table


def row(number: int, episode_return: float = 1.0, ended_by: str = "terminated") -> EpisodeRow:
    return EpisodeRow(
        episode=number,
        seed=7 + number,
        episode_return=episode_return,
        length_env_steps=10 * (number + 1),
        ended_by=ended_by,
    )


def evaluated(rows: list[EpisodeRow], **changes: object) -> EvaluatedRun:
    one = EvaluatedRun(
        run_id="a-run",
        checkpoint="checkpoints/v0000000120.json",
        version=120,
        env_steps_consumed=4000,
        env_id="CartPole-v1",
        env_kwargs={},
        seed=7,
        episodes=len(rows),
        group_size=2,
        is_sampled=False,
        max_env_steps=500,
        returns=return_statistics(rows),
        lengths=length_statistics(rows),
        num_at_limit=sum(row.ended_by == "limit" for row in rows),
        versions={},
        evaluated_at="2026-01-31T00:00:00+00:00",
        wall_s=1.0,
        num_processes=2,
    )
    return msgspec.structs.replace(one, **changes)


def test_the_statistics_are_those_of_the_benchmarks():
    values = np.random.default_rng(3).lognormal(size=30).tolist()
    found = return_statistics([row(number, value) for number, value in enumerate(values)])
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert (found.min, found.max) == (min(values), max(values))
    assert found.iqm == statistics.bootstrap_iqm(values)


def test_a_single_episode_has_no_spread():
    found = return_statistics([row(0, 3.0)])
    assert (found.mean, found.std) == (3.0, None)
    assert (found.iqm.low, found.iqm.high) == (None, None)
    assert length_statistics([row(0)]).mean == 10


def test_many_values_are_drawn_in_blocks_and_the_same(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(3).lognormal(size=40).tolist()
    whole, drawn = statistics.bootstrap_iqm(values), statistics._resample(40)
    monkeypatch.setattr(statistics, "MAX_DRAWN", 40 * 1000 + 7)
    assert [len(block) for block in statistics._resampled(40)] == [1000] * 10
    np.testing.assert_array_equal(statistics._resample(40), drawn)
    assert statistics.bootstrap_iqm(values) == whole
    expected = np.random.default_rng(0).integers(0, 40, size=(10_000, 40))
    np.testing.assert_array_equal(drawn, expected)


def test_the_table_of_episodes_can_be_read_back():
    rows = [row(0, 0.1 + 0.2), row(1, -3.0, "limit")]
    lines = list(csv.DictReader(io.StringIO(episodes_csv(rows))))
    assert [msgspec.convert(line, EpisodeRow, strict=False) for line in lines] == rows


def test_a_table_of_a_team_has_a_column_for_each_agent_and_policy():
    returns = {"agent_returns": {"ann": 1.0, "bob": -4.0}, "policy_returns": {"both": -3.0}}
    rows = [msgspec.structs.replace(row(0, -3.0), **returns)]
    (line,) = csv.DictReader(io.StringIO(episodes_csv(rows)))
    assert line["agent_returns.ann"] == "1.0"
    assert line["agent_returns.bob"] == "-4.0"
    assert line["policy_returns.both"] == "-3.0"


def test_files_are_below_the_run():
    document, table = evaluation_files(Path("run"), "v1-a")
    assert (document.as_posix(), table.as_posix()) == (
        "run/evaluations/v1-a.json",
        "run/evaluations/v1-a.csv",
    )


def shown(*evaluations: EvaluatedRun, width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO(), no_color=True)
    console.print(evaluations_table(evaluations))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_runs_are_compared_in_one_table():
    one = evaluated([row(0, 100.0), row(1, 200.0)])
    other = evaluated([row(0, -3.0)], run_id="b-run", is_sampled=True)
    text = shown(one, other)
    first, second = (line for line in text.splitlines() if "-run" in line)
    assert first.split()[:5] == ["a-run", "120", "150.0", "70.7", "150.0"]
    assert "100.0 to 200.0" in first
    assert second.split()[:5] == ["b-run", "120", "-3.00", "–", "-3.00"]
    assert "1 episode or 2 episodes, greedy or sampled actions" in text


def test_a_table_of_large_numbers_fits_into_80_columns():
    rows = [row(number, -1234.5 - number) for number in range(4)]
    text = shown(evaluated(rows, run_id="20261130-040101-cartpole_ppo"), width=80)
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "-1,236.0" in text
    assert "20261130-040" in text


def test_episodes_that_did_not_end_are_said():
    assert list(evaluation_notes(evaluated([row(0)]))) == []
    (note,) = evaluation_notes(evaluated([row(0), row(1, ended_by="limit")]))
    assert note.startswith("1 episode had not ended after 500 env steps")


def test_news_are_read_line_by_line_while_they_are_written(tmp_path: Path):
    reader = NewsReader(tmp_path)
    assert reader.look() == []
    lines = [msgspec.json.encode(one) for one in (Played(row=row(0)), Stepped(env_steps=3))]
    (tmp_path / "news-0.jsonl").write_bytes(lines[0] + b"\n" + lines[1][:5])
    assert reader.look() == [Played(row=row(0))]
    assert reader.look() == []
    with (tmp_path / "news-0.jsonl").open("ab") as file:
        file.write(lines[1][5:] + b"\n")
    (tmp_path / "news-1.jsonl").write_bytes(lines[1] + b"\n")
    assert reader.look() == [Stepped(env_steps=3), Stepped(env_steps=3)]
