"""Rollouts over a real connection: its time is the kernel's, and `on` and `off` are obeyed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import zmq

from engine.messages import RolloutArrived
from engine.rollout import Field, Layout, Rollout
from engine.spec import Compression
from engine.testing import make_rollout
from engine.wire import header, link_meter, rollout_link
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.keys import make_keyrings
from engine.wire.link_meter import LinkMeter
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import PATIENCE_S, link, receive

LAYOUT = Layout((Field("observation", "uint8", (84, 84), 1),), 20, 1)


class WatchingCodec(Codec):
    """Keeps the kinds of frames that arrived."""

    def __init__(self) -> None:
        super().__init__(LAYOUT, WeightsLayout(16, 7))
        self.kinds: list[int] = []

    def _decode_one(self, kind, frame):  # type: ignore[no-untyped-def]
        self.kinds.append(kind)
        return super()._decode_one(kind, frame)


@contextmanager
def both(compression: Compression) -> Iterator[tuple[Sockets, Sockets, WatchingCodec]]:
    keys, codec = make_keyrings(["buffer-0", "actor-0"]), WatchingCodec()
    wiring = Wiring(bind="tcp://127.0.0.1:*", keyring=keys["buffer-0"])
    with Sockets("buffer-0", wiring, codec) as buffer:
        assert buffer._out.server is not None
        endpoint = buffer._out.server.get_string(zmq.LAST_ENDPOINT)
        wiring = Wiring(
            links=(link("buffer-0", endpoint),), keyring=keys["actor-0"], compression=compression
        )
        with Sockets("actor-0", wiring, WatchingCodec()) as actor:
            yield buffer, actor, codec


def exchange(buffer: Sockets, actor: Sockets, count: int) -> None:
    """Sends rollouts that shrink, and compares what arrives."""
    for number in range(count):
        rollout = Rollout(make_rollout(layout=LAYOUT).info, LAYOUT.allocate())
        rollout.buffer[number * 100] = 7
        assert actor.send("buffer-0", RolloutArrived(rollout, number))
        _, message = receive(buffer)
        assert isinstance(message, RolloutArrived)
        assert message.held_version == number
        assert np.array_equal(message.rollout.buffer, rollout.buffer)


@pytest.mark.parametrize(
    ("compression", "kind"), [("on", header.KIND_PACKED), ("off", header.KIND_ROLLOUT)]
)
def test_the_key_is_obeyed(compression: Compression, kind: int):
    with both(compression) as (buffer, actor, codec):
        exchange(buffer, actor, 3)
    assert codec.kinds == [kind] * 3


def test_where_the_link_is_the_limit_rollouts_are_packed_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """The loopback is never the limit, so its time is played: nine tenths of a second for each
    rollout as it is, and one second from one to the next."""
    with both("auto") as (buffer, actor, codec):
        meter = actor._rollout_links["buffer-0"]._meter
        taken_s = {header.KIND_ROLLOUT: 0.9, header.KIND_PACKED: 0.05}
        monkeypatch.setattr(meter, "busy_s", lambda: sum(taken_s[kind] for kind in codec.kinds))
        clock = SimpleNamespace(perf_counter=lambda: float(len(codec.kinds)))
        monkeypatch.setattr(rollout_link, "time", clock)
        exchange(buffer, actor, 40)
    assert codec.kinds[0] == header.KIND_ROLLOUT
    assert codec.kinds[-10:] == [header.KIND_PACKED] * 10
    assert "rollouts to buffer-0 are packed, since the link was the limit" in capfd.readouterr().err


def test_the_kernel_tells_how_long_a_connection_was_busy():
    data = bytes(2**20)
    with zmq.Context() as context, context.socket(zmq.PULL) as server:
        server.bind("tcp://127.0.0.1:*")
        with context.socket(zmq.PUSH) as client:
            client.set(zmq.LINGER, 0)
            meter = LinkMeter(client)
            assert meter.busy_s() is None, "it is not connected yet"
            client.connect(server.get_string(zmq.LAST_ENDPOINT))
            for _ in range(100):  # at once: the kernel counts in ticks of some milliseconds
                client.send(data, copy=False)
            for _ in range(100):
                assert server.poll(PATIENCE_S * 1000)
                server.recv(copy=False)
            meter.heed()
            busy_s = meter.busy_s()
            assert busy_s is not None
            assert busy_s > 0.0, "it had 100 MB to send"
            assert (meter.busy_s() or 0.0) >= busy_s
            server.unbind(server.get_string(zmq.LAST_ENDPOINT))
            meter.close()


def test_a_number_that_is_no_connection_any_more_is_no_measurement():
    with zmq.Context() as context, context.socket(zmq.PUSH) as client:
        meter = LinkMeter(client)
        meter._fd = 10**6
        assert meter.busy_s() is None
        with open("/dev/null") as file:
            meter._fd = file.fileno()
            assert meter.busy_s() is None
        meter.close()
    assert link_meter._BUSY_AT + link_meter._TIMES.size <= link_meter._INFO_BYTES


def test_a_port_that_refuses_connections_leaves_no_news_to_pile_up():
    """ZeroMQ tries again for ever; with some thousand events that nobody takes it stands still."""
    with socket.socket() as taken:  # it does not listen
        taken.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with zmq.Context() as context, context.socket(zmq.PUSH) as client:
            client.set(zmq.LINGER, 0)
            client.set(zmq.RECONNECT_IVL, 1)
            meter = LinkMeter(client)
            client.connect(endpoint)
            assert not meter.monitor.poll(300)
            meter.close()


def test_news_of_a_connection_is_taken_while_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch,
):
    with both("auto") as (_, actor, _):
        announced: list[str] = []
        monkeypatch.setattr(actor._out, "announce", announced.append)
        meter = actor._rollout_links["buffer-0"]._meter
        give_up_s = time.monotonic() + PATIENCE_S
        while "buffer-0" not in announced and time.monotonic() < give_up_s:
            assert list(actor.receive(PATIENCE_S)) == []
        assert announced == ["buffer-0"]
        assert not meter.monitor.poll(0)
        assert meter._fd is not None
