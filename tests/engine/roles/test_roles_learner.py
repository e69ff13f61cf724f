"""The learner: one batch in training, one on its way, every result offered to all actors."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from engine.graph.cut import MergeRule, single_cut
from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    CheckpointDue,
    Exit,
    Report,
    SamplesArrived,
    Start,
    StepLimitReached,
    Stop,
    Stopped,
    TicketRequested,
    WeightsArrived,
    WeightsRequested,
)
from engine.progress import MeanReturn, Resumed, RunCounters, Standing
from engine.roles.commands import (
    Command,
    ExportWeights,
    Quit,
    SaveCheckpoint,
    StageAhead,
    Update,
    UpdateFromSamples,
    Withdraw,
)
from engine.roles.events import CheckpointWritten, Updated, WeightsExported, WeightsPending
from engine.roles.learner import LearnerRole
from engine.rollout import Samples, SamplesInfo
from engine.spec import StopSpec
from engine.testing import has, make_experiment, make_rollout, make_weights, only, sent
from engine.trace.records import Consumption, Record, Staleness, WeightsPublished
from engine.trace.records import Event as TraceEvent

STEPS = 16


def make_learner(
    env_steps: int | None = None, resumed: Resumed | None = None, merge: MergeRule | None = None
) -> LearnerRole:
    """With `merge`, one of two learners."""
    experiment = make_experiment(stop=StopSpec(env_steps=env_steps, return_threshold=1e9))
    cut = single_cut(experiment)
    if merge is not None:
        cut = msgspec.structs.replace(cut, groups=2, merge=merge)
    return LearnerRole(0, experiment, "buffer-0", cut, resumed)


def started(env_steps: int | None = None, merge: MergeRule | None = None) -> LearnerRole:
    learner = make_learner(env_steps, merge=merge)
    learner.handle(Start(origin_ns=0), 0.0)
    learner.handle(WeightsExported(make_weights(0)), 0.0)
    return learner


def deliver(learner: LearnerRole, number: int, *versions: int, now_s: float = 1.0) -> list[Command]:
    """A batch of two rollouts of 8 steps, of these behaviour versions."""
    rollouts = tuple(make_rollout(version=version) for version in versions or (number, number))
    return learner.handle(BatchArrived(number, rollouts), now_s)


def finish(
    learner: LearnerRole, version: int, now_s: float = 2.0, of_others: int = 0
) -> list[Command]:
    """The update that makes `version` is done; each sample was used twice."""
    event = Updated(
        weights=make_weights(version),
        samples_trained=2 * STEPS,
        num_updates=4 * version,
        update_s=0.5,
        metrics={"loss": 1.0},
        env_steps_of_others=of_others,
        samples_of_others=2 * of_others,
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


def progress(commands: list[Command]) -> float:
    return only(commands, Update).progress


def test_an_update_is_told_the_share_of_env_steps_that_was_consumed_before():
    learner = started(env_steps=64)
    assert progress(deliver(learner, 0)) == 0.0
    deliver(learner, 1)
    assert progress(finish(learner, 1)) == 16 / 64
    endless = started(None)
    deliver(endless, 0)
    finish(endless, 1)
    assert progress(deliver(endless, 1)) == 0.0, "no limit, no share"


RESUMED = Resumed(
    run_id="r",
    checkpoint="c",
    version=3,
    updates=9,
    counters=RunCounters(env_steps_collected=48, env_steps_consumed=48),
    resumes=1,
)


def test_a_resumed_run_goes_on_with_the_share_that_it_had():
    learner = make_learner(96, RESUMED)
    learner.handle(Start(origin_ns=0), 0.0)
    learner.handle(WeightsExported(make_weights(3)), 0.0)
    assert progress(deliver(learner, 3)) == 0.5


@pytest.mark.parametrize(
    ("merge", "of_others", "share"), [("average", 0, 2 * 16), ("all_reduce", 24, 16 + 24)]
)
def test_learners_count_for_all_of_them(merge: MergeRule, of_others: int, share: int):
    """With a reducer each multiplies its own; those that update together know what others have."""
    learner = started(64, merge=merge)
    deliver(learner, 0)
    finish(learner, 1, of_others=of_others)
    assert progress(deliver(learner, 1)) == share / 64
    finish(learner, 2, of_others=of_others)
    if merge == "average":
        deliver(learner, 2)
        finish(learner, 3)
        assert progress(deliver(learner, 3)) == 1.0, "never more"


@pytest.mark.parametrize(("merge", "share"), [(None, 0.25), ("average", 0.5)])
@pytest.mark.parametrize("resumed", [None, RESUMED])
def test_with_replay_the_store_says_what_was_consumed(
    merge: MergeRule | None, share: float, resumed: Resumed | None
):
    """Before the run was resumed, too."""
    info = SamplesInfo(env_steps=16, drawn_s=0.0, age_mean_s=0.0, age_max_s=0.0)
    learner = make_learner(
        64, msgspec.structs.replace(resumed, version=0) if resumed else None, merge
    )
    learner.handle(Start(origin_ns=0), 0.0)
    learner.handle(WeightsExported(make_weights(0)), 0.0)
    commands = learner.handle(SamplesArrived(0, Samples(info, np.zeros(8, np.uint8))), 1.0)
    assert only(commands, UpdateFromSamples).progress == share


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


def standing(consumed: int = 0, trained: int = 0) -> Standing:
    """What a coordinator knows of a run that was at 1000 env steps before this learner began."""
    counters = RunCounters(
        elapsed_s=1.0,
        env_steps_collected=1000 + consumed,
        env_steps_consumed=1000 + consumed,
        samples_trained=5000 + trained,
        episodes=7,
    )
    known = MeanReturn(mean=2.5, judge="evaluation", version=0)
    return Standing(counters=counters, known_return=known, consumed=consumed, trained=trained)


def written(learner: LearnerRole, commands: list[Command], error: str = "") -> list[Command]:
    """The checkpoint that the commands ask for is there, or could not be written."""
    saved = only(commands, SaveCheckpoint)
    return learner.handle(CheckpointWritten("v1.json", error, saved.is_final), 4.0)


def test_stopped_while_idle_it_saves_and_then_says_its_last_word():
    learner = started()
    commands = learner.handle(Stop(standing=standing()), 3.0)
    saved = only(commands, SaveCheckpoint)
    assert saved.version == 0
    assert saved.known_return == standing().known_return
    assert saved.counters == msgspec.structs.replace(standing().counters, elapsed_s=3.0)
    assert commands == [saved], "nothing is said before it is durable"
    assert last_word(written(learner, commands)) == 0


def test_stopped_while_training_it_finishes_that_update_and_leaves_the_staged_batch():
    learner = started()
    deliver(learner, 0)
    deliver(learner, 1)
    assert learner.handle(Stop(standing=standing()), 3.0) == []
    commands = finish(learner, 1)
    assert not has(commands, Update)
    assert requests(commands) == []
    saved = only(commands, SaveCheckpoint)
    assert saved.version == 1
    assert saved.counters.env_steps_consumed == 1000 + STEPS, "what nobody was told of yet, too"
    assert saved.counters.env_steps_collected == 1000 + STEPS
    assert saved.counters.samples_trained == 5000 + 2 * STEPS
    assert last_word(written(learner, commands)) == STEPS


def test_what_the_coordinator_has_counted_already_is_not_counted_twice():
    learner = started()
    for number in range(3):
        deliver(learner, number)
        finish(learner, number + 1)
    due = CheckpointDue(standing=standing(consumed=2 * STEPS, trained=4 * STEPS))
    saved = only(learner.handle(due, 3.0), SaveCheckpoint)
    assert saved.counters.env_steps_consumed == 1000 + 3 * STEPS
    assert saved.counters.samples_trained == 5000 + 6 * STEPS


def test_of_learners_that_update_together_a_checkpoint_counts_the_shares_of_all():
    """Its weights have learnt from them, whether the others have reported so or not."""
    learner = started(merge="all_reduce")
    for number in range(3):
        deliver(learner, number)
        finish(learner, number + 1, of_others=3 * STEPS)
    due = CheckpointDue(standing=standing(consumed=6 * STEPS, trained=12 * STEPS))
    saved = only(learner.handle(due, 3.0), SaveCheckpoint)
    assert saved.counters.env_steps_consumed == 1000 + 12 * STEPS
    assert saved.counters.env_steps_collected == 1000 + 12 * STEPS
    assert saved.counters.samples_trained == 5000 + 24 * STEPS


def test_a_last_checkpoint_that_cannot_be_written_is_in_the_last_word():
    learner = started()
    commands = written(learner, learner.handle(Stop(), 3.0), "No space left")
    (stopped,) = sent(commands, Stopped)
    assert "No space left" in stopped.error
    assert [row.kind for row in events(commands)] == ["checkpoint-failed"]


def test_of_learners_that_update_together_none_begins_an_update_beyond_the_limit_of_all():
    learner = started(env_steps=4 * STEPS, merge="all_reduce")
    deliver(learner, 0)
    deliver(learner, 1)
    assert has(finish(learner, 1, of_others=STEPS), Update)
    deliver(learner, 2)
    commands = finish(learner, 2, of_others=STEPS)
    assert not has(commands, Update), "it is staged, but both have had enough"
    assert len(sent(commands, StepLimitReached, to=COORDINATOR)) == 1
    assert requests(commands) == []
    assert has(learner.handle(Stop(standing=standing()), 3.0), Withdraw)


def test_of_shares_that_differ_all_count():
    learner = started(env_steps=4 * STEPS, merge="all_reduce")
    deliver(learner, 0)
    assert sent(finish(learner, 1, of_others=3 * STEPS - 1), StepLimitReached) == []
    assert has(deliver(learner, 1), Update), "one env step is missing"


def test_learners_that_a_reducer_merges_do_not_know_what_all_have_consumed():
    learner = started(env_steps=STEPS, merge="average")
    deliver(learner, 0)
    assert sent(finish(learner, 1), StepLimitReached) == []


def events(commands: list[Command]) -> list[TraceEvent]:
    rows = [row for report in sent(commands, Report) for row in report.records]
    return [row for row in rows if isinstance(row, TraceEvent)]


def test_a_batch_that_comes_after_the_stop_is_not_trained():
    learner = started()
    learner.handle(Stop(), 3.0)
    assert deliver(learner, 0) == []


def test_a_checkpoint_that_becomes_due_during_an_update_waits_for_its_end():
    learner = started()
    deliver(learner, 0)
    assert learner.handle(CheckpointDue(standing=standing()), 1.5) == []
    saved = only(finish(learner, 1), SaveCheckpoint)
    assert (saved.version, saved.is_final) == (1, False)
    assert saved.known_return == standing().known_return
    deliver(learner, 1)
    assert not has(finish(learner, 2), SaveCheckpoint), "it was due once"
    assert sent(written(learner, [saved]), Stopped) == []


def test_a_resumed_learner_counts_on_from_its_checkpoint():
    resumed = Resumed(
        run_id="before",
        checkpoint="v0000000040.json",
        version=40,
        updates=80,
        counters=RunCounters(env_steps_collected=1000, env_steps_consumed=1000),
        resumes=1,
    )
    learner = make_learner(1000 + 2 * STEPS, resumed)
    commands = learner.handle(Start(origin_ns=0), 0.0)
    assert only(commands, ExportWeights).version == 40
    assert [r.batch for r in sent(commands, BatchRequested)] == [40]
    learner.handle(WeightsExported(make_weights(40)), 0.0)
    deliver(learner, 40)
    assert sent(finish(learner, 41), StepLimitReached) == []
    deliver(learner, 41)
    assert sent(finish(learner, 42), StepLimitReached), "what was left of the limit"


def test_exit_ends_it():
    assert started().handle(Exit(), 1.0) == [Quit()]


def test_what_is_not_meant_for_it_shows_that_the_program_is_wrong():
    request = TicketRequested(actor="actor-0", held_version=0)
    with pytest.raises(RuntimeError, match="learner-0 cannot handle TicketRequested"):
        started().handle(request, 0.0)


def test_the_batch_after_the_one_in_training_is_staged_ahead_if_its_executor_can():
    learner = LearnerRole(0, make_experiment(), "buffer-0", stages_ahead=True)
    learner.handle(Start(origin_ns=0), 0.0)
    learner.handle(WeightsExported(make_weights(0)), 0.0)
    assert not has(deliver(learner, 0), StageAhead), "it is trained at once"
    ahead = only(deliver(learner, 1), StageAhead)
    assert only(finish(learner, 1), Update).rollouts is ahead.batch


def test_weights_on_their_way_are_sent_when_they_are_there():
    learner = started()
    learner.handle(WeightsRequested(actor="actor-0", held_version=0), 0.0)
    deliver(learner, 0)
    event = Updated(WeightsPending(1), STEPS, 1, 0.1, {})
    commands = learner.handle(event, 2.0)
    assert sent(commands, WeightsArrived) == []
    assert [type(row) for row in records(commands)] == [Consumption, Staleness]
    commands = learner.handle(WeightsExported(make_weights(1)), 2.5)
    (told,) = sent(commands, WeightsArrived, to="actor-0")
    assert told.weights.version == 1
    assert [type(row) for row in records(commands)] == [WeightsPublished]
