"""The learner: one batch in training, one on its way, every result offered to all actors."""

from __future__ import annotations

import pytest

from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    Exit,
    Report,
    Start,
    StepLimitReached,
    Stop,
    Stopped,
    TicketRequested,
    WeightsArrived,
    WeightsRequested,
)
from engine.roles.commands import Command, ExportWeights, Quit, SaveCheckpoint, Send, Update
from engine.roles.events import TimerFired, Updated, WeightsExported
from engine.roles.learner import LearnerRole
from engine.spec import CheckpointSpec, StopSpec
from engine.testing import has, make_experiment, make_rollout, make_weights, only, sent
from engine.trace.records import Consumption, Record, Staleness, WeightsPublished

STEPS = 16


def make_learner(env_steps: int | None = None, every_s: float | None = None) -> LearnerRole:
    experiment = make_experiment(
        stop=StopSpec(env_steps=env_steps, return_threshold=1e9),
        checkpoint=CheckpointSpec(every_s=every_s),
    )
    return LearnerRole(0, experiment, "buffer-0")


def started(env_steps: int | None = None, every_s: float | None = None) -> LearnerRole:
    learner = make_learner(env_steps, every_s)
    learner.handle(Start(origin_ns=0), 0.0)
    learner.handle(WeightsExported(make_weights(0)), 0.0)
    return learner


def deliver(learner: LearnerRole, number: int, *versions: int, now_s: float = 1.0) -> list[Command]:
    """A batch of two rollouts of 8 steps, of these behaviour versions."""
    rollouts = tuple(make_rollout(version=version) for version in versions or (number, number))
    return learner.handle(BatchArrived(number, rollouts), now_s)


def finish(learner: LearnerRole, version: int, now_s: float = 2.0) -> list[Command]:
    """The update that makes `version` is done; each sample was used twice."""
    event = Updated(
        weights=make_weights(version),
        samples_trained=2 * STEPS,
        num_updates=4 * version,
        update_s=0.5,
        metrics={"loss": 1.0},
    )
    return learner.handle(event, now_s)


def requests(commands: list[Command]) -> list[tuple[int, int]]:
    return [(m.batch, m.consumed_env_steps) for m in sent(commands, BatchRequested, to="buffer-0")]


def records(commands: list[Command]) -> list[Record]:
    return [row for report in sent(commands, Report, to=COORDINATOR) for row in report.records]


def test_at_the_start_it_exports_its_weights_and_asks_for_a_batch():
    commands = make_learner().handle(Start(origin_ns=0), 0.0)
    assert only(commands, ExportWeights).version == 0
    assert requests(commands) == [(0, 0)]


def test_the_first_weights_go_to_those_who_have_asked():
    learner = make_learner()
    learner.handle(Start(origin_ns=0), 0.0)
    assert learner.handle(WeightsRequested(actor="actor-1", held_version=-1), 0.0) == []
    commands = learner.handle(WeightsExported(make_weights(0)), 0.5)
    assert len(sent(commands, WeightsArrived, to="actor-1")) == 1
    (row,) = records(commands)
    assert isinstance(row, WeightsPublished)
    assert (row.version, row.num_subscribers, row.num_bytes) == (0, 1, 8)


def test_whoever_asks_later_gets_them_at_once_unless_it_has_them():
    learner = started()
    commands = learner.handle(WeightsRequested(actor="actor-0", held_version=-1), 1.0)
    assert [m.weights.version for m in sent(commands, WeightsArrived, to="actor-0")] == [0]
    assert learner.handle(WeightsRequested(actor="actor-0", held_version=0), 1.0) == []


def test_while_one_batch_trains_exactly_one_other_is_on_its_way():
    learner = started()
    commands = deliver(learner, 0)
    assert requests(commands) == [(1, 0)]
    assert len(only(commands, Update).rollouts) == 2
    commands = deliver(learner, 1)
    assert commands == [], "staged; nothing more is asked for"
    commands = finish(learner, 1)
    assert requests(commands) == [(2, STEPS)]
    assert has(commands, Update)


def test_a_batch_that_comes_after_the_update_trains_at_once():
    learner = started()
    deliver(learner, 0)
    commands = finish(learner, 1)
    assert requests(commands) == []
    assert not has(commands, Update)
    commands = deliver(learner, 1, now_s=3.5)
    assert requests(commands) == [(2, STEPS)]
    assert has(commands, Update)
    (row, *_) = records(finish(learner, 2, now_s=4.0))
    assert isinstance(row, Consumption)
    assert row.wait_s == 1.5


def test_every_update_is_published_to_all_subscribers():
    learner = started()
    for actor in ("actor-1", "actor-0"):
        learner.handle(WeightsRequested(actor=actor, held_version=0), 0.5)
    deliver(learner, 0)
    commands = finish(learner, 1)
    for actor in ("actor-0", "actor-1"):
        (message,) = sent(commands, WeightsArrived, to=actor)
        assert message.weights.version == 1
    assert len(sent(commands, WeightsArrived)) == 2


def test_the_traces_tell_version_counts_and_lag_at_consumption():
    learner = started()
    deliver(learner, 0)
    finish(learner, 1)
    deliver(learner, 1, 0, 1)
    consumption, staleness, published = records(finish(learner, 2))
    assert isinstance(consumption, Consumption)
    assert (consumption.version, consumption.env_steps) == (1, STEPS)
    assert consumption.env_steps_total == 2 * STEPS
    assert consumption.samples_trained_total == 4 * STEPS
    assert consumption.updates_total == 8
    assert isinstance(staleness, Staleness)
    assert staleness.steps_by_lag == {1: 8, 0: 8}
    assert (staleness.lag_min, staleness.lag_mean, staleness.lag_max) == (0, 0.5, 1)
    assert staleness.lag_p95 == 1.0
    assert isinstance(published, WeightsPublished)
    assert published.version == 2


def test_age_is_measured_from_collection_to_the_beginning_of_training():
    learner = started()
    deliver(learner, 0, now_s=2.5)
    (_, staleness, _) = records(finish(learner, 1, now_s=9.0))
    assert isinstance(staleness, Staleness)
    assert staleness.age_mean_s == staleness.age_max_s == 0.5


def test_it_asks_for_nothing_beyond_the_step_limit():
    learner = started(env_steps=2 * STEPS)
    assert requests(deliver(learner, 0)) == [(1, 0)]
    deliver(learner, 1)
    commands = finish(learner, 1)
    assert requests(commands) == [], "the batch that trains now is the last"
    assert has(commands, Update)
    assert sent(commands, StepLimitReached) == []
    assert len(sent(finish(learner, 2), StepLimitReached, to=COORDINATOR)) == 1


def test_a_limit_within_a_batch_is_reached_by_the_whole_batch():
    learner = started(env_steps=STEPS + 1)
    assert requests(deliver(learner, 0)) == [(1, 0)]
    assert sent(finish(learner, 1), StepLimitReached) == []
    assert requests(deliver(learner, 1)) == []
    assert len(sent(finish(learner, 2), StepLimitReached)) == 1


def last_word(commands: list[Command]) -> int:
    (answer,) = sent(commands, Stopped, to=COORDINATOR)
    assert answer.address == "learner-0"
    return answer.counters.consumed


def test_stopped_while_idle_it_saves_and_answers_at_once():
    learner = started()
    commands = learner.handle(Stop(), 3.0)
    assert last_word(commands) == 0
    saved = only(commands, SaveCheckpoint)
    assert saved.version == 0
    assert saved.counters == {"env_steps_consumed": 0, "samples_trained": 0, "updates": 0}


def test_stopped_while_training_it_finishes_that_update_and_leaves_the_staged_batch():
    learner = started()
    deliver(learner, 0)
    deliver(learner, 1)
    assert learner.handle(Stop(), 3.0) == []
    commands = finish(learner, 1)
    assert last_word(commands) == STEPS
    assert not has(commands, Update)
    assert requests(commands) == []
    saved = only(commands, SaveCheckpoint)
    assert saved.version == 1
    assert saved.counters["env_steps_consumed"] == STEPS
    assert saved.counters["samples_trained"] == 2 * STEPS
    assert saved.counters["updates"] == 4


def test_the_checkpoint_is_durable_before_the_last_word_is_said():
    commands = started().handle(Stop(), 3.0)
    assert [type(c) for c in commands] == [SaveCheckpoint, Send]


def test_a_batch_that_comes_after_the_stop_is_not_trained():
    learner = started()
    learner.handle(Stop(), 3.0)
    assert deliver(learner, 0) == []


def test_periodic_checkpoints_come_between_updates():
    learner = started(every_s=10.0)
    saved_at = []
    for version in range(1, 8):
        deliver(learner, version - 1, now_s=4.0 * version - 1)
        if has(finish(learner, version, now_s=4.0 * version), SaveCheckpoint):
            saved_at.append(4.0 * version)
    assert saved_at == [12.0, 24.0]


def test_without_a_period_there_is_none_before_the_end():
    learner = started(every_s=None)
    deliver(learner, 0)
    assert not has(finish(learner, 1, now_s=1e6), SaveCheckpoint)


def test_exit_ends_it_and_a_timer_means_nothing():
    learner = started()
    assert learner.handle(TimerFired(), 1.0) == []
    assert learner.handle(Exit(), 1.0) == [Quit()]


def test_what_is_not_meant_for_it_shows_that_the_program_is_wrong():
    request = TicketRequested(actor="actor-0", held_version=0)
    with pytest.raises(RuntimeError, match="learner-0 cannot handle TicketRequested"):
        started().handle(request, 0.0)
