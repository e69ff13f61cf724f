"""When a cell ends, and what its traces say."""

from __future__ import annotations

import msgspec
import pytest

from engine.trace.records import Consumption, Episode, Event, Production
from tests.helpers.bench.bench_fakes import make_task
from tianji_cli.bench.comparison.measure import measure
from tianji_cli.bench.comparison.stop_rule import StopRule
from tianji_cli.bench.systems.convert import to_trace
from tianji_cli.bench.systems.raw import Claimed, EpisodeEnd, Phase, Steps, TrainedTotals
from tianji_cli.bench.tasks.work import Judging

TASK = make_task(budget_s=60.0, min_s=10.0, start_s=30.0, stall_s=5.0)


def episodes(at_s, value, count):
    return [EpisodeEnd(t=at_s, episode_return=value, length=10) for _ in range(count)]


def started(launched_s=100.0, first_s=104.0):
    judge = StopRule(TASK, launched_s)
    judge.hear([Steps(t=first_s, source="a", total=1)], first_s)
    return judge


def test_launching_takes_as_long_as_start_s():
    judge = StopRule(TASK, 100.0)
    assert judge.verdict(129.0) is None
    assert judge.verdict(131.0).outcome == "hung"


def test_the_budget_counts_from_the_first_sample():
    judge = started()
    judge.hear([Steps(t=163.0, source="a", total=500)], 163.0)
    assert judge.verdict(163.9) is None
    assert judge.verdict(164.0).outcome == "censored"


def test_the_threshold_needs_a_full_window():
    judge = started()
    judge.hear(episodes(110.0, 500.0, 9), 110.0)
    assert judge.reached_s is None
    judge.hear(episodes(111.0, 500.0, 1), 111.0)
    assert judge.reached_s == 111.0


def test_with_env_steps_a_cell_ends_there_and_not_at_the_threshold():
    rule = StopRule(msgspec.structs.replace(TASK, env_steps=1000, min_s=0.0), 100.0)
    rule.hear([Steps(t=104.0, source="a", total=999), *episodes(105.0, 500.0, 20)], 105.0)
    assert rule.reached_s is not None
    assert rule.verdict(106.0) is None
    rule.hear([Steps(t=106.0, source="b", total=1)], 106.0)
    assert "1,000 env steps" in rule.verdict(106.0).detail


def test_returns_and_rates_at_equal_env_steps():
    """Episodes beyond them do not count; env steps trained are samples over the replay ratio."""
    task = make_task(judge=Judging(window=2), env_steps=200)
    records = [
        Steps(t=100.0, source="a", total=1),
        *(
            record
            for second in range(1, 41)
            for record in (
                EpisodeEnd(t=100.0 + second, source="a", episode_return=float(second), length=10),
                TrainedTotals(
                    t=100.0 + second, env_steps=10 * second, samples=80 * second, updates=second
                ),
                Steps(t=100.0 + second, source="a", total=10 * second),
            )
        ),
    ]
    figures = measure(to_trace(records, 100.0), task, stop_s=40.0)
    assert figures.return_mean == 20.5  # of episodes 20 and 21, which end at 190 and 200
    assert figures.trained_per_s == pytest.approx(10.0, rel=0.05)  # 80 samples, 8 epochs
    assert measure(to_trace(records, 100.0), make_task(), stop_s=40.0).trained_per_s is None


def test_the_threshold_must_be_held():
    """One lucky window is not enough, and harness and report say so alike."""
    task = make_task(judge=Judging(window=2, sustained_episodes=3))
    values = [300.0, 300.0, 0.0, 0.0, 300.0, 300.0, 300.0, 300.0, 0.0]
    records = [Steps(t=100.0, source="a", total=1)]
    for second, value in enumerate(values, start=101):
        records.append(EpisodeEnd(t=float(second), source="a", episode_return=value, length=10))
    judge = StopRule(task, 100.0)
    judge.hear(records, 110.0)
    # means of 2: 300 after 102, 150 after 103, 0, 150 after 105, then 300; three in a row at 107
    assert judge.reached_s == 107.0
    assert measure(to_trace(records, 100.0), task, stop_s=10.0).reached_s == 7.0


def test_a_reached_threshold_ends_the_cell_only_after_min_s():
    judge = started()
    judge.hear([*episodes(106.0, 500.0, 10), Steps(t=112.0, source="a", total=9)], 112.0)
    assert judge.verdict(112.0) is None
    assert judge.verdict(114.1).outcome == "reached"


def test_what_is_heard_late_counts_at_its_time_as_it_does_in_the_traces():
    """Two actors report whole rollouts, one after the other: their episodes lay in between."""
    task = make_task(judge=Judging(window=4, sustained_episodes=2), stall_s=60.0, budget_s=60.0)
    judge = StopRule(task, 100.0)
    begin = [Steps(t=101.0, source=name, total=1) for name in "ab"]
    ours = [EpisodeEnd(t=102.0 + i, source="a", episode_return=200.0, length=1) for i in range(5)]
    theirs = [EpisodeEnd(t=102.5 + i, source="b", episode_return=-9.0, length=1) for i in range(5)]
    later = [EpisodeEnd(t=110.0 + i, source="a", episode_return=200.0, length=1) for i in range(5)]
    for heard, now_s in ((begin, 101.0), (theirs, 107.0), (ours, 107.1)):
        judge.hear(heard, now_s)
        assert judge.verdict(now_s) is None
    assert measure(to_trace([*begin, *theirs, *ours], 100.0), task, 8.0).reached_s is None
    judge.hear(later, 115.0)
    assert judge.verdict(115.0).outcome == "reached"
    figures = measure(to_trace([*begin, *theirs, *ours, *later], 100.0), task, 15.0)
    assert judge.reached_s == pytest.approx(100.0 + figures.reached_s)


def test_no_new_env_step_is_a_hang():
    judge = started()
    judge.hear([Steps(t=106.0, source="a", total=1)], 106.0)
    assert judge.verdict(108.0) is None
    assert judge.verdict(109.1).outcome == "hung"


def test_records_become_trace_rows_since_launch():
    records = [
        Phase(t=101.0, name="imported"),
        Steps(t=102.0, source="b", total=10),
        Steps(t=103.0, source="a", total=20),
        EpisodeEnd(t=103.5, source="a", episode_return=5.0, length=5),
        Steps(t=104.0, source="b", total=40),
        TrainedTotals(t=105.0, env_steps=50, samples=400, updates=2),
        TrainedTotals(t=106.0, env_steps=60, samples=480, updates=3),
        Claimed(t=106.0, env_steps=60),
    ]
    rows = to_trace(records, 100.0)
    production = [row for row in rows if isinstance(row, Production)]
    assert [(row.t_s, row.env_steps, row.actor) for row in production] == [
        (2.0, 10, 0),
        (3.0, 20, 1),
        (4.0, 30, 0),
    ]
    (episode,) = (row for row in rows if isinstance(row, Episode))
    assert episode.env_steps_collected == 30
    consumption = [row for row in rows if isinstance(row, Consumption)]
    assert [(row.env_steps, row.samples_trained) for row in consumption] == [(50, 400), (10, 80)]
    assert [row.detail for row in rows if isinstance(row, Event)] == ["imported", "60"]


def steady_records(rate=100, seconds=50):
    """One env step record a second from 104 s on, a return of 10 before 120 s and 200 after."""
    records = []
    for second in range(seconds):
        t = 104.0 + second
        records.append(Steps(t=t, source="a", total=1 + rate * second))
        value = 10.0 if t < 120 else 200.0
        records.append(EpisodeEnd(t=t, source="a", episode_return=value, length=rate))
    return records


def test_the_figures_of_a_cell():
    figures = measure(to_trace(steady_records(), 100.0), TASK)
    assert figures.first_sample_s == pytest.approx(4.0)
    # 10 episodes to the window: the mean reaches 100 with the fifth high one, at 124 s
    assert figures.reached_s == pytest.approx(24.0)
    assert figures.time_to_threshold_s == pytest.approx(20.0)
    assert figures.steps_to_threshold == 2001
    assert figures.collect_per_s == pytest.approx(100.0)
    assert figures.env_steps == 4901
    assert figures.return_mean == 200.0


def test_a_rate_has_the_pauses_in_it_and_nothing_after_the_stop():
    """1000 env steps in the first second of each ten, as a system does that learns in between."""
    records = [Steps(t=104.0, source="a", total=0)]
    for burst in range(5):
        t = 104.0 + 10 * burst
        records += [Steps(t=t, source="a", total=1000 * burst)]
        records += [Steps(t=t + 1, source="a", total=1000 * (burst + 1))]
    records.append(Steps(t=170.0, source="a", total=9000))
    figures = measure(to_trace(records, 100.0), TASK, stop_s=54.0)
    assert figures.trained_s == pytest.approx(50.0)
    # from 14 to 54 s: four whole bursts, and a share of what came while it was stopping
    assert figures.collect_per_s == pytest.approx((4000 + 4000 * 9 / 25) / 40)


def test_two_rows_at_almost_the_same_time_are_no_rate():
    records = [
        Steps(t=104.0, source="a", total=0),
        Steps(t=104.0, source="b", total=0),
        Steps(t=114.0, source="a", total=512),
        Steps(t=114.01, source="b", total=512),
    ]
    assert measure(to_trace(records, 100.0), TASK).collect_per_s == pytest.approx(102.4, rel=0.01)


def test_a_threshold_reached_after_the_stop_is_not_reached():
    figures = measure(to_trace(steady_records(), 100.0), TASK, stop_s=22.0)
    assert figures.reached_s is None


@pytest.mark.parametrize(("claim", "is_wrong"), [(4901, False), (4200, False), (9000, True)])
def test_counts_are_reconciled(claim, is_wrong):
    records = [*steady_records(), Claimed(t=153.0, env_steps=claim)]
    figures = measure(to_trace(records, 100.0), TASK)
    assert figures.claimed_env_steps == claim
    assert (figures.miscount > 0.01) == is_wrong


@pytest.mark.parametrize(("claim", "is_wrong"), [(3, False), (4901, False), (9000, True)])
def test_what_is_counted_on_arrival_may_be_late_by_anything(claim, is_wrong):
    records = [*steady_records(), Claimed(t=153.0, env_steps=claim, is_received=True)]
    figures = measure(to_trace(records, 100.0), TASK)
    assert (figures.miscount > 0.01) == is_wrong


def test_a_cell_without_a_sample_has_no_figures():
    assert measure([], TASK).collect_per_s is None
