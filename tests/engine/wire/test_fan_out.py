"""One encoded buffer of weights is on its way to many processes, and each of them gets it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from engine.messages import TAKERS, AnyMessage, Exit, WeightsArrived, WeightsRequested
from engine.roles.commands import Command, Quit
from engine.roles.events import Event
from engine.rollout import Weights
from engine.runtime.loop import Executor, Loop, LoopClock, RoleInstance
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.frames import allocate_framed
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import LAYOUT, link, receive

NUM_BYTES = 2**20
"""More than ZeroMQ copies: such a frame stays where it is until it has left."""
SUBSCRIBERS = ("actor-0", "actor-1", "actor-2", "evaluator-0")


def make_codec() -> Codec:
    return Codec(LAYOUT, WeightsLayout(NUM_BYTES, 7))


def make_message() -> WeightsArrived:
    buffer = allocate_framed(NUM_BYTES)
    buffer[:] = np.arange(NUM_BYTES) % 251
    return WeightsArrived(Weights(3, buffer))


def test_a_queued_frame_of_weights_does_not_change_when_it_is_sent_to_others():
    codec, message = make_codec(), make_message()
    (queued,) = codec.encode(message, SUBSCRIBERS[0])
    before = bytes(queued)
    for name in SUBSCRIBERS[1:]:
        (frame,) = codec.encode(message, name)
        assert np.shares_memory(np.asarray(frame), message.weights.buffer), "nothing is copied"
        assert bytes(queued) == before


def test_actors_and_evaluator_all_get_the_weights_that_are_sent_to_them_at_once(tmp_path: Path):
    endpoint = f"ipc://{tmp_path}/s"
    with ExitStack() as stack:
        learner = stack.enter_context(Sockets("learner-0", Wiring(bind=endpoint), make_codec()))
        wiring = Wiring(links=(link("learner-0", endpoint, latest_only=True),))
        takers = {
            name: stack.enter_context(Sockets(name, wiring, make_codec())) for name in SUBSCRIBERS
        }
        for name, taker in takers.items():
            taker.send("learner-0", WeightsRequested(actor=name, held_version=-1))
            receive(learner)
        message = make_message()
        for name in SUBSCRIBERS:
            assert learner.send(name, message)
        for name, taker in takers.items():
            role = Noting(name)
            run_loop({name: role}, *receive(taker))
            (arrived,) = role.heard
            assert isinstance(arrived, WeightsArrived)
            assert np.array_equal(arrived.weights.buffer, message.weights.buffer)


def test_weights_are_for_all_roles_of_a_process_that_take_any_and_for_no_other():
    roles = {name: Noting(name) for name in ("actor-0", "actor-2", "evaluator-0", "buffer-0")}
    message = make_message()
    run_loop(roles, TAKERS, message)
    assert {name: role.heard for name, role in roles.items()} == {
        "actor-0": [message],
        "actor-2": [message],
        "evaluator-0": [message],
        "buffer-0": [],
    }


@pytest.mark.parametrize("to", ["actor", "actor-1", ""])
def test_what_is_for_nobody_here_is_given_to_nobody(to: str):
    roles = {"actor-0": Noting("actor-0")}
    run_loop(roles, to, make_message())
    assert roles["actor-0"].heard == []


@dataclass
class Noting:
    """A role that notes what it hears, until it is told to exit."""

    address: str
    heard: list[Event] = field(default_factory=list)

    def handle(self, event: Event, now_s: float) -> list[Command]:
        if isinstance(event, Exit):
            return [Quit()]
        self.heard.append(event)
        return []


class Idle:
    """A body that is never asked to do anything."""

    is_busy = False

    def perform(self, command: Command) -> list[Event]:
        raise AssertionError(command)

    def advance(self, budget_s: float) -> list[Event]:
        raise AssertionError(budget_s)

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class Scripted:
    """Sockets from which one message comes, and then everyone's end."""

    script: list[tuple[str, AnyMessage]]

    def send(self, to: str, message: AnyMessage) -> bool:
        raise AssertionError(to)

    def receive(self, timeout_s: float | None) -> Iterator[tuple[str, AnyMessage]]:
        script, self.script = self.script, []
        yield from script


def run_loop(roles: dict[str, Noting], to: str, message: object) -> None:
    """Gives the roles of a process one message, as its loop does."""
    ends = [(name, Exit()) for name in roles]
    sockets = Scripted([(to, cast("AnyMessage", message)), *ends])
    executor: Executor = Idle()
    hosted = {name: RoleInstance(role, executor) for name, role in roles.items()}
    Loop(hosted, LoopClock(), cast("Sockets", sockets)).run()
