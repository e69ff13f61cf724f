"""Compute groups: one may die, the others go on, and the books balance all the same."""

from __future__ import annotations

from engine.graph.cut import Cut
from engine.messages import (
    BatchArrived,
    Counters,
    GroupLost,
    ModelMerged,
    ModelOffered,
    Start,
    Stop,
    source_of,
)
from engine.roles.commands import BlendModel, Command, ExportModel
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.totals import RunTotals
from engine.roles.events import ModelExported, Updated
from engine.roles.learner import LearnerRole
from engine.spec import StalenessSpec
from engine.testing import has, make_experiment, make_rollout, make_weights, only, sent
from engine.trace.records import Ledger
from tests.helpers.engine.coordinator_scenes import consumption, production


def cut(groups: int = 3, merge: str = "average") -> Cut:
    return Cut(
        policy="tianji",
        actors=groups,
        groups=groups,
        merge=merge,  # type: ignore[arg-type]
        staleness=StalenessSpec(),
    )


def test_a_learner_s_death_loses_its_group_only():
    groups = Groups(cut(), {})
    assert groups.lose(["learner-1"]) == [1]
    commands = groups.part_with(1, RunTotals(make_experiment()), 1.0)
    assert [command.to for command in commands] == ["actor-1", "reducer-0"]
    assert sent(commands, GroupLost, "reducer-0")[0].group == 1
    assert groups.dead == {"learner-1"}


def test_without_another_group_or_without_the_reducer_a_run_cannot_go_on():
    groups = Groups(cut(groups=2), {})
    assert groups.lose(["reducer-0"]) == []
    assert groups.lose(["learner-0"]) == [0]
    assert groups.lose(["learner-1"]) == [], "it was the last"
    assert Groups(cut(groups=1, merge="none"), {}).lose(["learner-0"]) == []


def test_learners_that_update_together_die_together():
    assert Groups(cut(merge="all_reduce"), {}).lose(["learner-0"]) == []


def test_a_process_with_a_whole_group_loses_it():
    names = {f"{role}-1": "worker-1" for role in ("actor", "buffer", "learner")}
    groups = Groups(cut(), names)
    roles = groups.roles_in("worker-1")
    assert sorted(roles) == ["actor-1", "buffer-1", "learner-1"]
    assert groups.lose(roles) == [1]
    assert not sent(groups.part_with(1, RunTotals(make_experiment()), 1.0), Stop), (
        "nobody is left to be stopped"
    )


def test_the_buffer_of_a_lost_group_is_stopped_once_its_actor_has_spoken():
    groups, totals = Groups(cut(), {}), RunTotals(make_experiment())
    totals.add(consumption(1, 40), 1.0)
    groups.lose(["learner-1"])
    assert groups.settle({}, totals, set()) == []
    said = {"actor-1": Counters(collected=100, unsent=10, sent_rollouts=9)}
    (stop,) = sent(groups.settle(said, totals, set()), Stop, "buffer-1")
    assert stop.sent_rollouts == {"actor-1": 9}
    assert stop.consumed_env_steps == 40
    assert groups.settle({}, totals, {"actor-1"}), "an actor that is gone itself is not waited for"


def test_the_ledger_balances_with_a_lost_group_in_it():
    groups, totals = Groups(cut(groups=2), {}), RunTotals(make_experiment(groups=2))
    for row in (production(1, 100), consumption(1, 40)):
        totals.add(row, 1.0)
    groups.lose(["learner-1"])
    counters = {
        "actor-0": Counters(collected=50, unsent=5),
        "learner-0": Counters(consumed=30),
        "buffer-0": Counters(queued=15),
        "actor-1": Counters(collected=100, unsent=10),
        "buffer-1": Counters(queued=20, staged=30),
    }
    ledger = groups.final_ledger(counters, totals, set(), 2.0)
    assert (ledger.collected, ledger.consumed, ledger.dropped) == (150, 70, 0)
    assert ledger.in_flight == 15 + 5 + 60


def test_what_a_lost_actor_s_report_says_after_its_buffer_has_counted_is_in_flight():
    groups, totals = Groups(cut(groups=1, merge="none"), {}), RunTotals(make_experiment())
    totals.add(production(0, 100), 1.0)
    counters = {
        "learner-0": Counters(consumed=30),
        "buffer-0": Counters(queued=15, lost_collected={source_of(0, 0): 45}),
    }
    ledger = groups.final_ledger(counters, totals, {"actor-0"}, 2.0)
    assert (ledger.collected, ledger.consumed, ledger.in_flight) == (100, 30, 70)


def test_each_group_counts_the_most_that_is_known_of_what_its_own_buffer_dropped():
    """One has said its last word and had reported less before; the other was lost."""
    groups, totals = Groups(cut(groups=2), {}), RunTotals(make_experiment(groups=2))
    for number, dropped in ((0, 1), (1, 4)):
        totals.add(production(number, 50), 1.0)
        totals.add(
            Ledger(
                t_s=1.0,
                collected=50,
                consumed=0,
                dropped=dropped,
                in_flight=50 - dropped,
                buffer=number,
            ),
            1.0,
        )
    counters = {"buffer-0": Counters(dropped=3)}
    assert groups.final_ledger(counters, totals, set(), 2.0).dropped == 7


def test_rows_of_several_buffers_are_added_up():
    totals = RunTotals(make_experiment())
    for told in (consumption(0, 4), consumption(1, 6)):
        totals.add(told, 1.0)
    row = Ledger(t_s=1.0, collected=8, consumed=4, dropped=1, in_flight=3, buffer=0)
    totals.add(row, 1.0)
    other = Ledger(t_s=2.0, collected=6, consumed=6, dropped=0, in_flight=0, buffer=1)
    written = totals.add(other, 2.0)
    assert isinstance(written, Ledger)
    assert (written.collected, written.consumed, written.dropped, written.in_flight) == (
        *(14, 10, 1),
        3,
    )
    assert totals.ledger_of(0).dropped == 1


def after_update(role: LearnerRole, version: int) -> list[Command]:
    """What the learner does when its batch has made this version, the first or the next."""
    if version == 1:
        role.handle(Start(origin_ns=0), 0.0)
    role.handle(BatchArrived(version - 1, (make_rollout(),)), 1.0)
    return role.handle(Updated(make_weights(version), 8, version, 0.1, {}), 1.0)


def test_a_learner_offers_its_model_and_goes_on_while_it_is_away():
    role = LearnerRole(1, make_experiment(groups=2), "buffer-1", cut(groups=2))
    assert has(after_update(role, 1), ExportModel)
    offered = role.handle(ModelExported(make_weights(1)), 1.0)
    assert sent(offered, ModelOffered, "reducer-0")[0].group == 1
    assert not has(after_update(role, 2), ExportModel), "one at a time"
    blend = role.handle(ModelMerged(make_weights(1)), 1.0)
    assert only(blend, BlendModel).merged.version == 1
    assert has(after_update(role, 3), ExportModel)


def test_one_group_offers_nothing():
    role = LearnerRole(0, make_experiment(), "buffer-0")
    assert not has(after_update(role, 1), ExportModel)
