"""Importance ratios by lag, what learners found to be off, and who was dropped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from msgspec.structs import replace

from engine.trace.records import Episode, Event, Production, Staleness
from tianji_cli.analysis.old_samples.dropped import (
    dropped_by_actor,
    dropped_by_length,
    dropped_rollouts,
    uneven,
)
from tianji_cli.analysis.old_samples.ratios import (
    num_ratio_batches,
    off_policy_warnings,
    ratios_by_lag,
)
from tianji_cli.analysis.run import RunData
from tianji_cli.analysis.tables import to_frame
from tianji_cli.render.run.staleness import staleness_tables

PLAIN = {
    **{"t_s": 1.0, "learner": 0, "version": 3, "env_steps": 10, "lag_min": 0, "lag_mean": 0.5},
    **{"lag_p95": 1.0, "lag_max": 1, "steps_by_lag": {0: 5, 1: 5}},
    **{"age_mean_s": 0.1, "age_max_s": 0.2},
}


def batch(**by_lag: dict[int, float]) -> Staleness:
    return Staleness(**PLAIN, **{f"{name}_by_lag": values for name, values in by_lag.items()})  # type: ignore[arg-type]


def test_ratios_of_batches_are_averaged_over_their_samples():
    rows = [
        batch(ratios={0: 10.0, 1: 30.0}, ess={0: 1.0, 1: 0.5}, ratio_max={0: 1.0, 1: 3.0}),
        Staleness(**PLAIN),  # type: ignore[arg-type]
        batch(
            **{"ratios": {1: 10.0}, "ess": {1: 0.9}, "ratio_max": {1: 2.0}},
            **{"behaviour_kl": {1: 0.4}, "log_ratio_first": {1: 0.3}},
        ),
    ]
    found = ratios_by_lag(rows)
    assert list(found) == [0, 1]
    assert (found[0].ratios, found[0].ess, found[0].ratio_max) == (10.0, 1.0, 1.0)
    assert found[1].ess == pytest.approx((30 * 0.5 + 10 * 0.9) / 40)
    assert (found[1].ratio_max, found[1].log_ratio_first) == (3.0, 0.3)
    assert found[0].clip_fraction is None
    merged = replace(rows[0], ratio_batches=5)
    assert [num_ratio_batches(of) for of in (rows, [*rows, merged], [])] == [2, 7, 0]
    assert ratios_by_lag([Staleness(**PLAIN)]) == {}  # type: ignore[arg-type]


def test_the_table_says_how_many_batches_it_is_of():
    rows = [batch(ratios={0: 10.0}, ess={0: 1.0}), Staleness(**PLAIN)]  # type: ignore[arg-type]
    for of, words in ((rows, "Of 1 batch:"), ([*rows, rows[0]], "Of 2 batches:")):
        run = cast("RunData", SimpleNamespace(staleness=of, events=[]))
        (table,) = staleness_tables(run)
        assert table.note.startswith(words)


def test_traces_from_before_there_were_ratios_are_read():
    row = batch(ratios={0: 10.0}, ess={0: 1.0})
    new = msgspec.json.encode(row)
    assert msgspec.json.decode(new, type=Staleness) == row
    old = msgspec.to_builtins(row)
    kept = {name: value for name, value in old.items() if name in {*PLAIN, "table"}}
    read = msgspec.json.decode(msgspec.json.encode(kept), type=Staleness)
    assert read == Staleness(**PLAIN)  # type: ignore[arg-type]
    assert "ess_by_lag.0" in to_frame([row], Staleness)
    assert not [name for name in to_frame([read], Staleness) if "by_lag" in name]


def event(kind: str, role: str, detail: str = "", **more: int) -> Event:
    return Event(t_s=1.0, kind=kind, host="", role=role, detail=detail, **more)  # type: ignore[arg-type]


def test_the_last_finding_of_each_learner_is_warned_about():
    events = [
        event("off-policy", "learner-0", "update 3: first"),
        event("started", "coordinator"),
        event("off-policy", "learner-0", "update 9: second"),
        event("off-policy", "learner-1", "update 5: other"),
    ]
    assert off_policy_warnings(events) == [
        "Off-policy training, learner-0, update 9: second.",
        "Off-policy training, learner-1, update 5: other.",
    ]
    assert off_policy_warnings(events[1:2]) == []


def rollout(actor: int, sequence: int, t_s: float, *, sent: bool = True) -> Production:
    return Production(
        **{"t_s": t_s, "actor": actor, "epoch": 0, "sequence": sequence, "env_steps": 10},
        **{"env_steps_total": 10 * (sequence + 1), "version_min": 0, "version_max": 0},
        **{"collect_s": 1.0, "wait_s": 0.0, "sent": sent},
    )  # type: ignore[arg-type]


def episode(actor: int, length: int, t_s: float) -> Episode:
    return Episode(t_s=t_s, actor=actor, episode_return=0.0, length_env_steps=length, version=0)


def test_who_was_dropped_by_actor_and_by_length():
    """Actor 1 is slow: two of its three rollouts were dropped, and long episodes end in them."""
    production = [rollout(0, n, 1.0 + n) for n in range(6)]
    production += [rollout(1, n, 2.0 + 2 * n) for n in range(3)]
    production.append(rollout(1, 3, 9.0, sent=False))
    episodes = [episode(0, 5, 0.5 + n) for n in range(6)]
    episodes += [episode(1, 40, 1.5), episode(1, 42, 3.9), episode(1, 44, 4.5), episode(1, 9, 8.0)]
    events = [
        event("drop", "actor-1", epoch=0, sequence=0, env_steps=10),
        event("drop", "actor-1", epoch=0, sequence=2, env_steps=10),
        event("drop", "actor-0", "of an older version, which says no more"),
        event("loss", "actor-0"),
    ]
    dropped = dropped_rollouts(events)
    assert len(dropped) == 2
    table = to_frame(production, Production)
    by_actor = dropped_by_actor(table, dropped)
    assert by_actor.to_numpy().tolist() == [[0, 60, 0, 0.0], [1, 30, 20, pytest.approx(2 / 3)]]
    assert uneven(by_actor, "env_steps").tolist() == [False, True]
    by_length = dropped_by_length(table, to_frame(episodes, Episode), dropped)
    assert by_length["episodes"].sum() == 9, "all but the one of the unfinished rollout"
    assert by_length["dropped"].sum() == 2
    assert by_length["longest"].iloc[0] == 5
    assert by_length["dropped"].iloc[0] == 0
    assert by_length["share"].iloc[-1] == pytest.approx(2 / 3)
    assert dropped_by_length(table, to_frame([], Episode), dropped).empty
