"""Running totals stay small however long a run is, and their rates stay right."""

from __future__ import annotations

import math
import random
import tracemalloc

import msgspec
import pytest

from engine.progress import MeanReturn
from engine.roles.coordinator.totals import MAX_POINTS, RunTotals, Series
from engine.spec import EvaluationSpec, StopSpec
from engine.testing import make_experiment
from engine.trace.records import Consumption, Episode, Evaluation
from engine.trace.summary import steady_rate_per_s
from tianji_cli.analysis.check import RATE_TOLERANCE


def test_a_series_of_any_length_stays_small() -> None:
    tracemalloc.start()
    try:
        series = Series()
        for number in range(4 * MAX_POINTS):
            series.add(number * 0.01, 32)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2.5 * 2**20
    assert series.total == 32 * 4 * MAX_POINTS


def test_the_rate_of_a_thinned_series_is_that_of_all_its_points() -> None:
    rng = random.Random(7)
    series, points = Series(), []
    now_s, total = 0.0, 0
    for number in range(5 * MAX_POINTS):
        now_s += rng.expovariate(100 if number % 50_000 < 25_000 else 400)
        total += 32
        series.add(now_s, 32)
        points.append((now_s, total))
    exact, found = steady_rate_per_s(points), series.steady_per_s()
    assert exact is not None
    assert found is not None
    assert abs(found / exact - 1) < RATE_TOLERANCE / 2


@pytest.mark.parametrize(("is_joint", "known"), [(True, (96, 192)), (False, (32, 64))])
def test_a_checkpoint_is_told_what_its_own_learners_have_reported(
    is_joint: bool, known: tuple[int, int]
) -> None:
    totals = RunTotals(make_experiment(), is_joint=is_joint)
    for learner, updates in ((0, 1), (1, 2)):
        for number in range(1, updates + 1):
            row = Consumption(
                t_s=1.0,
                learner=learner,
                version=number,
                env_steps=32,
                env_steps_total=32 * number,
                samples_trained=64,
                samples_trained_total=64 * number,
                updates_total=number,
                wait_s=0.0,
                update_s=0.1,
                metrics={},
            )
            totals.add(row, 1.0)
    standing = totals.standing_of("learner-0", 2.0)
    assert (standing.consumed, standing.trained) == known
    assert standing.counters.env_steps_consumed == 96


def episode(episode_return: float, version: int = 0) -> Episode:
    return Episode(
        t_s=1.0, actor=0, episode_return=episode_return, length_env_steps=1, version=version
    )


def evaluation(return_mean: float, version: int) -> Evaluation:
    return Evaluation(
        t_s=1.0,
        evaluator=0,
        version=version,
        episodes=2,
        return_mean=return_mean,
        return_min=return_mean,
        return_max=return_mean,
        length_mean_env_steps=1.0,
        evaluate_s=0.1,
    )


def known(totals: RunTotals, learner: int = 0) -> MeanReturn | None:
    return totals.standing_of(f"learner-{learner}", 1.0).known_return


def test_without_evaluations_a_checkpoint_is_told_the_mean_of_the_window_of_episodes() -> None:
    totals = RunTotals(make_experiment(stop=StopSpec(env_steps=100, return_window=3)))
    assert known(totals) is None
    for number in range(5):
        totals.add(episode(float(number), version=10 + number), 1.0)
    wanted = MeanReturn(mean=3.0, judge="training", version=14)
    assert known(totals) == wanted
    assert known(totals, 1) == wanted, "groups are merged, so their episodes count together"
    assert totals.standing_of("actor-0", 1.0).known_return is None


@pytest.mark.parametrize("is_joint", [False, True])
def test_with_evaluations_the_newest_of_them_counts_for_the_learner_evaluated(
    is_joint: bool,
) -> None:
    experiment = msgspec.structs.replace(make_experiment(), evaluation=EvaluationSpec())
    totals = RunTotals(experiment, is_joint=is_joint)
    totals.add(episode(500.0), 1.0)
    assert known(totals) is None, "returns of two kinds are not compared with each other"
    totals.add(evaluation(9.0, version=4), 1.0)
    totals.add(evaluation(7.0, version=6), 1.0)
    wanted = MeanReturn(mean=7.0, judge="evaluation", version=6)
    assert known(totals) == wanted
    assert known(totals, 1) == (wanted if is_joint else None)


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_a_return_that_is_no_number_is_not_known(strange: float) -> None:
    totals = RunTotals(make_experiment())
    totals.add(episode(strange), 1.0)
    assert known(totals) is None


def team_episode(*returns: float) -> Episode:
    agents = dict(zip(("a", "b"), returns, strict=True))
    policies = {"both": sum(returns)}
    row = episode(sum(returns))
    return msgspec.structs.replace(row, agent_returns=agents, policy_returns=policies)


@pytest.mark.parametrize(
    ("return_of", "reached_by"), [(None, 4), ("a", 2), ("b", None), ("both", 4)]
)
def test_the_threshold_is_on_the_return_that_was_asked_for(
    return_of: str | None, reached_by: int | None
) -> None:
    stop = StopSpec(return_threshold=5.0, return_window=2, return_of=return_of)
    totals = RunTotals(make_experiment(stop=stop))
    for number, returns in enumerate([(5.0, -9.0), (5.0, -9.0), (6.0, 0.0), (7.0, 0.0)], start=1):
        totals.add(team_episode(*returns), float(number))
    assert totals.reached_at_s == reached_by
    assert totals.returns.mean == {None: 6.5, "a": 6.5, "b": 0.0, "both": 6.5}[return_of]
    assert totals.returns.team == 6.5
    assert totals.returns.agents == {"a": 6.5, "b": 0.0}
    assert totals.returns.policies == {"both": 6.5}


def test_an_evaluation_is_judged_by_the_return_that_was_asked_for() -> None:
    stop = StopSpec(return_threshold=5.0, judge="evaluation", return_of="a")
    totals = RunTotals(make_experiment(stop=stop))
    for own, at_s in ((4.0, 1.0), (5.0, 2.0)):
        row = evaluation(9.0, version=1)
        totals.add(msgspec.structs.replace(row, agent_returns={"a": own, "b": 9.0 - own}), at_s)
    assert totals.reached_at_s == 2.0
    assert totals.returns.evaluation_mean == 5.0
