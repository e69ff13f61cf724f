"""When a threshold counts as reached: by whom, and for how long."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from engine.errors import ConfigError
from engine.roles.coordinator.totals import RunTotals
from engine.spec import EvaluationSpec, StopSpec, check_experiment
from engine.testing import make_experiment
from engine.trace.reader import read_table
from engine.trace.records import Episode, Evaluation
from tests.helpers.engine.learning_runs import PPO, make_run, run_inline
from tianji_cli.analysis.convergence import threshold_crossing


def episode(value: float) -> Episode:
    return Episode(t_s=0.0, actor=0, episode_return=value, length_env_steps=1, version=0)


def evaluation(mean: float) -> Evaluation:
    return Evaluation(
        t_s=0.0,
        evaluator=0,
        version=0,
        episodes=1,
        return_mean=mean,
        return_min=mean,
        return_max=mean,
        length_mean_env_steps=1.0,
        evaluate_s=0.1,
    )


def reached_after(values: list[float], judge: str, sustained: int, window: int) -> int | None:
    """How many episodes or evaluations it took."""
    stop = StopSpec(
        env_steps=1,
        return_threshold=10.0,
        return_window=window,
        judge=judge,  # type: ignore[arg-type]
        sustained=sustained,
    )
    totals = RunTotals(make_experiment(stop=stop))
    make = episode if judge == "training" else evaluation
    for number, value in enumerate(values, start=1):
        totals.add(make(value), now_s=float(number))
        if totals.reached_at_s is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("values", "sustained", "wanted"),
    [
        ([0, 10, 20], 1, 3),
        ([20, 0, 20, 20, 20], 1, 2),
        ([20, 20, 0, 0, 20, 20, 20, 20], 2, 7),
        ([20, 20, 20], 2, None),
        ([20, 20, 20, 20], 2, 4),
    ],
)
def test_training_windows_must_hold_one_after_the_other(
    values: list[float], sustained: int, wanted: int | None
):
    """Windows of 2 episodes: `sustained` of them side by side, and nothing below in between."""
    assert reached_after(values, "training", sustained, 2) == wanted
    means = pd.Series(values, dtype=float).rolling(2).mean()
    curve = pd.DataFrame(
        {
            "t_s": range(1, len(values) + 1),
            "env_steps": range(1, len(values) + 1),
            "return_mean": means,
            "is_full": means.notna(),
        }
    )
    crossing = threshold_crossing(curve, 10.0, 1 + (sustained - 1) * 2)
    assert (crossing.env_steps if crossing else None) == wanted, "the report must agree"


@pytest.mark.parametrize(
    ("values", "sustained", "wanted"),
    [([0, 10], 1, 2), ([10, 0, 10, 10], 2, 4), ([10, 0, 10, 0], 2, None)],
)
def test_evaluations_must_hold_one_after_the_other(
    values: list[float], sustained: int, wanted: int | None
):
    assert reached_after(values, "evaluation", sustained, 2) == wanted


def test_an_evaluation_does_not_judge_unless_it_is_asked_to():
    totals = RunTotals(make_experiment(stop=StopSpec(env_steps=1, return_threshold=10.0)))
    totals.add(evaluation(99.0), now_s=1.0)
    assert totals.reached_at_s is None
    assert totals.returns.evaluation_mean == 99.0


def test_a_judge_that_does_not_exist_is_refused():
    stop = StopSpec(env_steps=1, judge="evaluation")
    with pytest.raises(ConfigError, match="there is none") as error:
        check_experiment(make_experiment(stop=stop))
    assert error.value.where == "stop.judge"


def test_evaluations_use_the_same_seeds_and_judge_a_whole_run(tmp_path: Path):
    experiment = make_run(
        PPO, 30_000, evaluation=EvaluationSpec(episodes=5, every_s=None, every_versions=5)
    )
    stop = msgspec.structs.replace(
        experiment.stop, return_threshold=60.0, judge="evaluation", sustained=2
    )
    summary = run_inline(msgspec.structs.replace(experiment, stop=stop), tmp_path)
    rows = read_table(tmp_path / "trace", Evaluation)
    assert summary.reached
    assert all(row.return_mean >= 60.0 for row in rows[-2:])
    assert summary.evaluation_return == rows[-1].return_mean
    assert all(b.version - a.version >= 5 for a, b in itertools.pairwise(rows))
    again = run_inline(msgspec.structs.replace(experiment, stop=stop), tmp_path / "again")
    repeated = read_table(tmp_path / "again" / "trace", Evaluation)
    assert [row.return_mean for row in repeated] == [row.return_mean for row in rows]
    assert again.reached
