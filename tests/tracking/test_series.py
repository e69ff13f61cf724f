"""Rows of trace tables become named values at env steps."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import msgspec
import pytest

from engine.trace.records import (
    Consumption,
    Episode,
    Evaluation,
    Ledger,
    Merge,
    Record,
    Replay,
    Resources,
    WeightsPublished,
)
from tests.helpers.synthetic_run import make_trace
from tianji_cli.tracking.series import Sample, SampleStream

UPDATE = Consumption(
    t_s=1.5,
    learner=0,
    version=4,
    env_steps=8,
    env_steps_total=8,
    samples_trained=8,
    samples_trained_total=8,
    updates_total=20,
    wait_s=0.25,
    update_s=0.5,
    metrics={"policy_loss": -0.5, "approximate_kl": 0.125, "learning_rate": 3e-4, "own": 2.0},
)


def ledger(t_s: float, collected: int) -> Ledger:
    return Ledger(t_s=t_s, collected=collected, consumed=collected, dropped=0, in_flight=0)


def samples(*rows: Record, is_complete: bool = False, **replicas: int) -> list[Sample]:
    stream = SampleStream(replicas)
    for row in rows:
        stream.take(row)
    return list(stream.ready(is_complete=is_complete))


def test_an_episode_has_its_own_env_steps():
    row = Episode(
        t_s=2.0,
        actor=1,
        episode_return=21.0,
        length_env_steps=20,
        version=3,
        env_steps_collected=99,
    )
    assert samples(row) == [
        Sample(
            table="episodes",
            row=1,
            t_s=2.0,
            env_steps=99,
            values={"charts/episodic_return": 21.0, "charts/episodic_length": 20.0},
        )
    ]


def test_an_update_is_named_as_in_cleanrl_and_waits_for_the_ledger():
    assert samples(UPDATE) == []
    found = {s.table: s for s in samples(ledger(1.0, 100), UPDATE, ledger(1.75, 200))}
    update = found["consumption"]
    assert (update.env_steps, update.t_s) == (200, 1.5)
    assert update.values == {
        "losses/policy_loss": -0.5,
        "losses/approx_kl": 0.125,
        "charts/learning_rate": 3e-4,
        "losses/own": 2.0,
        "charts/updates": 20.0,
        "charts/weights_version": 5.0,
        "time/update_s": 0.5,
        "time/learner_wait_s": 0.25,
    }


def test_what_waits_at_the_end_of_a_run_takes_the_last_count():
    assert samples(ledger(1.0, 100), UPDATE)[-1].table == "ledger"
    last = samples(ledger(1.0, 100), UPDATE, is_complete=True)[-1]
    assert (last.table, last.env_steps) == ("consumption", 100)


def test_one_of_several_learners_is_named():
    (found,) = (s for s in samples(UPDATE, ledger(2.0, 7), learner=2) if s.table == "consumption")
    assert found.values["losses/own/learner-0"] == 2.0
    assert "losses/own" not in found.values


def test_rates_are_over_a_second_at_least():
    rows = [ledger(0.25 * i, 10 * i) for i in range(11)]
    found = [(s.row, s.t_s, s.values.get("charts/SPS")) for s in samples(*rows)]
    assert found == [(1, 0.0, None), (5, 1.0, 40.0), (9, 2.0, 40.0)]


def test_what_is_unknown_is_left_out():
    drawn = Replay(
        t_s=1.0,
        buffer=0,
        env_steps=4,
        env_steps_total=4,
        samples=0,
        samples_total=0,
        size_env_steps=4,
        replay_ratio=0.0,
        sample_age_mean_s=math.nan,
        sample_age_max_s=math.nan,
    )
    (found,) = (s for s in samples(drawn, ledger(1.0, 4)) if s.table == "replay")
    assert found.values == {"replay/replay_ratio": 0.0, "replay/size_env_steps": 4.0}


def test_cores_are_those_of_one_process_between_two_rows():
    first = Resources(
        t_s=1.0, host="box", process="actor-0", pid=7, cpu_s=2.0, rss_bytes=2**20, num_threads=1
    )
    later = msgspec.structs.replace(first, t_s=3.0, cpu_s=3.0)
    restarted = msgspec.structs.replace(first, t_s=4.0, pid=8, cpu_s=0.1)
    found = [
        s.values for s in samples(first, later, restarted, ledger(9.0, 1)) if s.table == "resources"
    ]
    assert [values.get("resources/actor-0/cores") for values in found] == [None, 0.5, None]
    assert found[0] == {"resources/actor-0/rss_mib": 1.0}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (
            Evaluation(
                t_s=1.0,
                evaluator=0,
                version=1,
                episodes=2,
                return_mean=3.0,
                return_min=2.0,
                return_max=4.0,
                length_mean_env_steps=9.0,
                evaluate_s=0.5,
            ),
            "eval/episodic_return",
        ),
        (
            Merge(
                t_s=1.0,
                group=1,
                version=2,
                lag=3,
                lag_max=4,
                versions={},
                shares={},
                merges_total=1,
            ),
            "merges/lag",
        ),
    ],
)
def test_other_tables_are_shown_too(row: Record, name: str):
    assert any(s.values.get(name) == 3.0 for s in samples(row, ledger(1.0, 1)))


def test_what_no_tracker_draws_makes_nothing():
    row = WeightsPublished(t_s=0.0, learner=0, version=1, num_bytes=8, num_subscribers=1)
    assert samples(row, is_complete=True) == []


@pytest.mark.parametrize("seed", range(5))
def test_tables_read_as_they_grow_give_the_same_values_as_at_the_end(seed: int):
    """Each table is read in parts of any length, in any order of tables."""
    rng = random.Random(seed)
    tables = defaultdict[type[Record], list[Record]](list)
    for row in make_trace(1.0, None, 40).rows:
        tables[type(row)].append(row)
    at_once = SampleStream({})
    for rows in tables.values():
        for row in rows:
            at_once.take(row)
    expected = list(at_once.ready(is_complete=True))
    growing, found = SampleStream({}), []
    while tables:
        kind = rng.choice(list(tables))
        part, tables[kind] = tables[kind][: (n := rng.randint(1, 30))], tables[kind][n:]
        for row in part:
            growing.take(row)
        if not tables[kind]:
            del tables[kind]
        found += growing.ready()
    found += growing.ready(is_complete=True)
    assert by_table(found) == by_table(expected)
    assert len({s.env_steps for s in found}) > 40


def by_table(found: list[Sample]) -> dict[str, list[Sample]]:
    tables = defaultdict[str, list[Sample]](list)
    for sample in found:
        tables[sample.table].append(sample)
    assert all([s.row for s in rows] == sorted(s.row for s in rows) for rows in tables.values())
    return dict(tables)


def test_returns_within_a_team_have_names_of_their_own():
    row = Episode(
        t_s=2.0,
        actor=1,
        episode_return=1.0,
        length_env_steps=20,
        version=3,
        agent_returns={"hunter_0": 2.0, "prey": -1.0},
        policy_returns={"hunters": 2.0, "prey": -1.0},
    )
    (sample,) = samples(row)
    assert sample.values == {
        "charts/episodic_return": 1.0,
        "charts/episodic_length": 20.0,
        "charts/agent_return/hunter_0": 2.0,
        "charts/agent_return/prey": -1.0,
        "charts/policy_return/hunters": 2.0,
        "charts/policy_return/prey": -1.0,
    }
