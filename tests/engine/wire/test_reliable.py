"""Sequenced messages arrive once and in order, whatever becomes of the connection."""

from __future__ import annotations

import math
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq

from engine.errors import WireError
from engine.messages import COORDINATOR, Alive, AnyMessage, Report, Start, Stop
from engine.trace.records import Event
from engine.wire.keys import make_keyrings
from engine.wire.reliable import (
    ACK_S,
    RECONNECT_S,
    REPEAT_S,
    WINDOW,
    ReliableReceiver,
    ReliableSender,
)
from engine.wire.socket_factory import Link
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import HELLO, make_codec

NUM_LETTERS = 200


class Line:
    """A sender, acks, and a connection that keeps the order and breaks now and then.

    Args:
        seed: Of what happens.
        breaks: How probable it is at each turn that the connection breaks.
    """

    def __init__(self, seed: int, breaks: float) -> None:
        self.choose, self.breaks = random.Random(seed), breaks
        self.now_s = 0.0
        self.sender, self.receiver = ReliableSender(session=7), ReliableReceiver()
        self.messages: deque[bytes] = deque()
        self.answers: deque[tuple[int, int]] = deque()
        self.num_sent = self.num_lost = 0
        self.arrived: list[int] = []

    def run(self) -> None:
        for number in range(NUM_LETTERS):
            assert self.sender.next_number == number
            self.sender.put(str(number).encode())
            for _ in range(self.choose.randint(0, 3)):
                self.turn()
        while self.sender.wait_s(self.now_s) is not None:
            self.turn()
            assert self.now_s < 10_000, "it does not get on"

    def turn(self) -> None:
        self.now_s += 0.1
        due = [bytes(message) for message in self.sender.due(self.now_s)]
        self.num_sent += len(due)
        self.messages += due
        self.answers += [(s, n) for _, s, n in self.receiver.due(self.now_s)]
        if self.choose.random() < self.breaks:
            for queue in (self.messages, self.answers):
                for _ in range(self.choose.randint(0, len(queue))):
                    queue.popleft()
                    self.num_lost += 1
        for _ in range(self.choose.randint(0, 3)):
            if self.messages:
                number = int(self.messages.popleft())
                if self.receiver.take("actor-0", 7, number, self.now_s):
                    self.arrived.append(number)
        if self.answers:
            self.sender.ack(*self.answers.popleft(), self.now_s)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_lost_is_sent_again_until_all_has_come_once_and_in_order(seed: int):
    line = Line(seed, breaks=0.05)
    line.run()
    assert line.num_lost > 0
    assert line.arrived == list(range(NUM_LETTERS))


def test_without_a_break_each_is_sent_once():
    line = Line(0, breaks=0.0)
    line.run()
    assert line.arrived == list(range(NUM_LETTERS))
    assert line.num_sent == NUM_LETTERS


def test_no_more_than_a_window_is_with_the_connection():
    sender = ReliableSender(session=1)
    for _ in range(WINDOW + 10):
        sender.put(b"")
    assert len(sender.due(0.0)) == WINDOW
    assert sender.due(1.0) == []
    assert len(sender.due(REPEAT_S)) == 1, "the oldest once more, and only that"
    assert sender.due(REPEAT_S + 1) == []
    sender.ack(1, WINDOW, REPEAT_S + 1)
    assert len(sender.due(REPEAT_S + 1)) == 10


def test_without_a_connection_nothing_counts_as_sent():
    sender = ReliableSender(session=1)
    for number in range(3):
        sender.put(str(number).encode())
    assert sender.due(0.0) == [b"0", b"1", b"2"]
    sender.defer(0.0)
    assert sender.wait_s(0.0) == RECONNECT_S
    assert sender.due(0.1) == [b"0", b"1", b"2"], "at once, not after a while"


def test_a_new_incarnation_begins_anew_and_the_old_one_is_not_heard_again():
    receiver = ReliableReceiver()
    assert receiver.take("actor-0", 1, 0, 0.0)
    assert receiver.take("actor-0", 2, 0, 0.0)
    assert not receiver.take("actor-0", 1, 1, 0.0)
    assert receiver.take("actor-0", 2, 1, 0.0)
    assert receiver.due(ACK_S) == [("actor-0", 2, 2)]
    assert receiver.due(ACK_S) == []


def test_receipts_wait_for_more_unless_something_is_missing():
    receiver = ReliableReceiver()
    assert receiver.take("actor-0", 1, 0, 0.0)
    assert receiver.due(0.0) == []
    assert not receiver.take("actor-0", 1, 2, 0.1)
    assert receiver.due(0.1) == [("actor-0", 1, 1)]


def test_nobody_waits_for_a_receipt_while_many_letters_come():
    sender, receiver = ReliableSender(session=1), ReliableReceiver()
    for number in range(10 * WINDOW):
        sender.put(str(number).encode())
        for message in sender.due(0.0):
            assert receiver.take("actor-0", 1, int(bytes(message)), 0.0)
        for _, session, next_number in receiver.due(0.0):
            sender.ack(session, next_number, 0.0)
    assert receiver.next_s > 0
    assert len(sender._kept) < WINDOW, "no time has passed, and all but the last have acks"


class Proxy:
    """Passes bytes on between one client at a time and a server, until it resets both.

    Args:
        port: Of the server, on this host.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return  # closed
            with self._lock:
                self._ends += [near, far]
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=pair, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return  # reset

    def reset(self) -> int:
        """Resets all connections; what lies in them is lost. Returns how many there were."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):  # the other side was faster
                end.shutdown(socket.SHUT_RD)
            end.close()
        return len(ends) // 2

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def through_a_proxy() -> Iterator[tuple[Sockets, Sockets, Proxy]]:
    """A coordinator, an actor on another host, and what lies between them."""
    keyrings = make_keyrings([COORDINATOR, "actor-0"])
    at_home = Wiring(bind="tcp://127.0.0.1:*", keyring=keyrings[COORDINATOR])
    with Sockets(COORDINATOR, at_home, make_codec()) as coordinator:
        assert coordinator._out.server is not None
        endpoint = coordinator._out.server.get_string(zmq.LAST_ENDPOINT)
        proxy = Proxy(int(endpoint.rpartition(":")[2]))
        link = Link(peer=COORDINATOR, endpoint=f"tcp://127.0.0.1:{proxy.port}")
        away = Wiring(links=(link,), keyring=keyrings["actor-0"])
        try:
            with Sockets("actor-0", away, make_codec()) as actor:
                yield coordinator, actor, proxy
        finally:
            proxy.close()


@contextmanager
def on_two_hosts() -> Iterator[tuple[Sockets, Callable[[], Sockets]]]:
    """A coordinator, and what begins an incarnation of an actor elsewhere."""
    keyrings = make_keyrings([COORDINATOR, "actor-0"])
    at_home = Wiring(bind="tcp://127.0.0.1:*", keyring=keyrings[COORDINATOR])
    with Sockets(COORDINATOR, at_home, make_codec()) as coordinator:
        assert coordinator._out.server is not None
        endpoint = coordinator._out.server.get_string(zmq.LAST_ENDPOINT)
        link = Link(peer=COORDINATOR, endpoint=endpoint)
        away = Wiring(links=(link,), keyring=keyrings["actor-0"])
        yield coordinator, lambda: Sockets("actor-0", away, make_codec())


def heard_by(listener: Sockets, other: Sockets) -> tuple[str, AnyMessage | WireError]:
    """The next message that it gets for a role; both go on meanwhile."""
    give_up_s = time.monotonic() + 20.0
    while time.monotonic() < give_up_s:
        assert list(other.receive(0.0)) == []
        for item in listener.receive(0.01):
            return item
    raise AssertionError("nothing came")


def test_what_the_coordinator_says_to_one_that_is_gone_does_not_reach_its_successor():
    with on_two_hosts() as (coordinator, begin):
        with begin() as first:
            first.send(COORDINATOR, HELLO)
            assert heard_by(coordinator, first) == (COORDINATOR, HELLO)
            coordinator.send("actor-0", Start(origin_ns=1))
            assert heard_by(first, coordinator) == ("actor-0", Start(origin_ns=1))
        coordinator.send("actor-0", Stop())
        with begin() as second:
            second.send(COORDINATOR, HELLO)
            assert heard_by(coordinator, second) == (COORDINATOR, HELLO)
            coordinator.send("actor-0", Start(origin_ns=2))
            assert heard_by(second, coordinator) == ("actor-0", Start(origin_ns=2))
            deadline_s = time.monotonic() + REPEAT_S + ACK_S
            while time.monotonic() < deadline_s:
                assert list(second.receive(0.05)) == []
                assert list(coordinator.receive(0.0)) == []
        assert coordinator._links is not None
        assert coordinator._links._due_s == math.inf, "nothing waits for an ack"


def test_what_is_said_before_there_is_a_connection_arrives_as_soon_as_there_is_one(monkeypatch):
    monkeypatch.setattr("engine.wire.reliable.REPEAT_S", math.inf)
    with on_two_hosts() as (coordinator, begin):
        coordinator.send("actor-0", Start(origin_ns=1))
        with begin() as actor:
            actor.send(COORDINATOR, Alive(address="actor-0", host="box"))
            began_s = time.monotonic()
            while not list(coordinator.receive(0.05)):
                assert time.monotonic() < began_s + 20.0
            heard = heard_by(actor, coordinator)
            assert heard == ("actor-0", Start(origin_ns=1)), "and not only when it is repeated"


NUM_REPORTS = WINDOW + 44


def report(number: int) -> Report:
    row = Event(t_s=float(number), kind="note", host="", role="actor-0", detail="x" * 20_000)
    return Report(address="actor-0", records=[row])


def test_no_report_is_missing_though_the_connection_is_reset_again_and_again():
    """Real sockets, encrypted; enough bytes for some to be under way whenever it breaks.

    What one connection can bring is less than all, so there is a second one to reset, and a third.
    """
    heard: list[float] = []
    reset_after = [50, 150]
    with through_a_proxy() as (coordinator, actor, proxy):
        give_up_s = time.monotonic() + 60.0
        for number in range(NUM_REPORTS):
            actor.send(COORDINATOR, report(number))
            if number % 60 == 59:
                proxy.reset()  # if there is a connection yet
        while len(heard) < NUM_REPORTS and time.monotonic() < give_up_s:
            list(actor.receive(0.01))
            for to, message in coordinator.receive(0.01):
                assert not isinstance(message, WireError), message
                assert isinstance(message, Report)
                assert to == COORDINATOR
                heard += [row.t_s for row in message.records if isinstance(row, Event)]
                is_due = bool(reset_after) and len(heard) >= reset_after[0]
                if is_due and proxy.reset():  # else what was heard had come over an earlier one
                    del reset_after[0]
        assert list(actor.receive(0.0)) == [], "acks are for nobody"
    assert not reset_after, "it was reset twice while messages were under way"
    assert heard == [float(number) for number in range(NUM_REPORTS)]


def test_what_is_said_again_and_again_needs_no_receipt():
    with through_a_proxy() as (coordinator, actor, _):
        actor.send(COORDINATOR, Alive(address="supervisor-0", host="box"))
        (item,) = coordinator.receive(20.0)
        assert item == (COORDINATOR, Alive(address="supervisor-0", host="box"))
        assert actor._links is not None
        assert actor._links._due_s == math.inf
