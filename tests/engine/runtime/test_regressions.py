"""Each of these once failed: the bug it describes is mended."""

from __future__ import annotations

import pytest

from engine.admission.bounded import Admission
from engine.algorithms.registry import read_config
from engine.config.config_file import apply_settings, convert, parse_yaml
from engine.errors import ConfigError, WireError
from engine.executors import env_split as env_parts
from engine.messages import (
    ActorLost,
    BatchArrived,
    Start,
    StopRequested,
    TicketGranted,
    TicketRequested,
)
from engine.roles.actor import ActorRole
from engine.roles.commands import AbandonRollout, CollectRollout
from engine.roles.events import TimerFired
from engine.spec import EnvSpec, Experiment, StalenessSpec
from engine.testing import (
    ScriptedVectorEnv,
    has,
    make_experiment,
    sent,
)
from engine.trace.reader import read_table
from engine.trace.records import Production
from engine.wire.codec import Codec
from tests.helpers.engine import actor_scenes as ta
from tests.helpers.engine import buffer_scenes as tb
from tests.helpers.engine.actor_bench import make_bench
from tests.helpers.engine.inline_runs import run


@pytest.mark.parametrize("rollouts", [0, 1])
def test_giving_up_before_the_first_step_loses_nothing(rollouts: int):
    bench = make_bench()
    for _ in range(rollouts):
        bench.collect()
    bench.begin()
    (event,) = bench.executor.perform(AbandonRollout())
    assert event.num_env_steps == 0
    assert event.collect_s == 0.0


def test_what_is_reported_as_collected_is_what_the_environments_did(tmp_path, monkeypatch):
    made = []

    def make(spec: EnvSpec) -> ScriptedVectorEnv:
        made.append(ScriptedVectorEnv(spec.num_envs))
        return made[-1]

    monkeypatch.setattr(env_parts, "make_vector_env", make)
    result = run(tmp_path / "run", make_experiment(actors=3))
    assert result.summary.env_steps_collected == sum(env.num_env_steps for env in made)


@pytest.mark.parametrize("mode", ["drop", "unbounded"])
def test_every_actor_of_an_inline_run_gets_its_turn(tmp_path, mode):
    experiment = make_experiment(actors=3, staleness=StalenessSpec(mode=mode))
    result = run(tmp_path / "run", experiment)
    rows = [row for row in read_table(result.trace, Production) if row.sent]
    counts = [sum(row.actor == actor for row in rows) for actor in range(3)]
    assert min(counts) > 0, counts


def test_text_that_is_not_utf_8_is_refused():
    codec = Codec.for_messages()
    frame = bytes(codec.encode(StopRequested(reason="interrupted"), "coordinator")[0])
    with pytest.raises(WireError):
        codec.decode([frame.replace(b"interrupted", b"\xffnterrupted")])


@pytest.mark.parametrize("setting", ["name=!!binary x", "name=" + "[" * 3000])
def test_a_setting_that_yaml_cannot_make_a_value_of_is_refused(setting):
    with pytest.raises(ConfigError):
        apply_settings(parse_yaml("name: x", source="f"), [setting])


def test_a_key_given_twice_within_a_setting_is_refused():
    with pytest.raises(ConfigError):
        apply_settings(parse_yaml("name: x", source="f"), ["env={id: a, id: b}"])


def test_a_duplicate_does_not_upset_the_books():
    buffer = tb.make_buffer()
    tb.ask(buffer, 0)
    tb.ask(buffer, 1)
    tb.arrive(buffer, actor=0, ticket=0)
    tb.arrive(buffer, actor=0, ticket=0)
    tb.arrive(buffer, actor=1, ticket=1)
    (row,) = tb.ledgers(tb.want_batch(buffer))  # asserts the balance
    assert row.collected == 16
    assert row.dropped == 0


def test_the_late_answer_to_a_repeated_request_does_not_start_a_second_rollout():
    actor = ta.collecting()  # under ticket 0
    ta.finish(actor)  # sent under ticket 0
    assert not has(actor.handle(ta.ticket(0), 2.0), CollectRollout)


def test_a_rollout_lost_on_its_way_is_no_dead_end_for_its_actor():
    """The buffer gave it the same ticket again and again, which it had used."""
    buffer, actor = tb.make_buffer(), ta.collecting()  # under ticket 0
    tb.ask(buffer, 0)
    ta.finish(actor)  # sent, and lost
    (request,) = sent(actor.handle(TimerFired(), 9.0), TicketRequested)
    (granted,) = sent(buffer.handle(request, 9.0), TicketGranted)
    assert has(actor.handle(granted, 9.0), CollectRollout)
    late = tb.arrive(buffer, actor=0, ticket=0)
    assert tb.notes(late) == [("drop", "actor-0")], "if it was not lost after all, it counts once"


def test_a_ticket_whose_rollout_was_lost_holds_up_nobody():
    buffer = tb.make_buffer(max_lag=0)
    for actor in range(3):
        tb.ask(buffer, actor)
    tb.want_batch(buffer)
    for number in range(2):
        for actor in range(2):
            ticket = 3 * number + actor
            tb.arrive(buffer, actor=actor, ticket=ticket, sequence=number, version=number)
    assert sent(tb.want_batch(buffer, 1, consumed=16), BatchArrived) == []
    request = TicketRequested(actor="actor-2", held_version=1, last_ticket=2)
    assert sent(buffer.handle(request, 5.0), BatchArrived)


def test_losing_actors_for_good_is_no_dead_end():
    """B = 2, bound 0: tickets ask for versions 0, 0, 1, 1; the first two actors die."""
    admission = Admission(StalenessSpec(max_lag=0), 2)
    for i in range(4):
        admission.admit(f"actor-{i}", 0)
    admission.lose("actor-0")
    admission.lose("actor-1")
    assert any(admission.admit(f"actor-{i}", 0).min_version <= admission.next_batch for i in (2, 3))


@pytest.mark.parametrize("mode", ["block", "drop"])
def test_an_actor_with_a_ticket_for_weights_that_will_never_come_is_told_so(mode):
    """B = 2, bound 0: its ticket asks for version 1, to be made of a rollout of one that dies."""
    buffer, actor = tb.make_buffer(mode, max_lag=0), ActorRole(2, 0, "buffer-0", "learner-0")
    for other in range(2):
        tb.ask(buffer, other)
    (request,) = sent(actor.handle(Start(origin_ns=0), 0.0), TicketRequested)
    (granted,) = sent(buffer.handle(request, 0.0), TicketGranted)
    actor.handle(granted, 0.0)
    assert not has(actor.handle(ta.weights(0), 0.0), CollectRollout)
    buffer.handle(ActorLost(actor="actor-0", epoch=0, collected=0), 1.0)
    (request,) = sent(actor.handle(TimerFired(), 2.0), TicketRequested)
    (granted,) = sent(buffer.handle(request, 2.0), TicketGranted)
    assert has(actor.handle(granted, 2.0), CollectRollout)


def test_after_its_last_word_a_buffer_hands_out_nothing():
    buffer = tb.make_buffer()
    tb.ask(buffer, 0)
    tb.ask(buffer, 1)
    tb.want_batch(buffer)
    tb.arrive(buffer, actor=0, ticket=0)
    tb.stop(buffer, actor_0=1, actor_1=1)
    buffer.handle(TimerFired(), 20.0)
    commands = tb.arrive(buffer, actor=1, ticket=1)
    assert sent(commands, BatchArrived) == []
    assert sent(commands, TicketGranted) == []


@pytest.mark.parametrize("seed", [2**63, 10**30])
def test_a_seed_too_large_for_torch_is_a_configuration_error(seed):
    text = f"{{name: x, seed: {seed}, env: {{id: E}}, algorithm: {{}}}}"
    with pytest.raises(ConfigError, match=r"<=|64 bits"):
        convert(parse_yaml(text, source="f"), Experiment)


def test_infinite_hyperparameters_are_refused():
    with pytest.raises(ConfigError):
        read_config(make_experiment(learning_rate=float("inf")))


def test_a_restarted_actor_without_weights_is_asked_for_the_present_version():
    admission = Admission(StalenessSpec(), 2, next_batch=1_000_000)
    for i in range(8):
        admission.admit(f"actor-{i}", 1_000_000)
    assert admission.admit("restarted", -1).min_version >= 999_999
