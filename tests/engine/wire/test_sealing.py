"""Sealed messages: a member opens what was sealed for it, once, and nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import zmq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given
from hypothesis import strategies as st
from zmq.auth.thread import ThreadAuthenticator

from engine import ciphers
from engine.ciphers import fastest_cipher
from engine.errors import WireError
from engine.messages import Start
from engine.wire import sealing
from engine.wire.frames import SEGMENT_BYTES
from engine.wire.header import Buffer
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.sealing import Seals
from engine.wire.socket_factory import SEAL_BYTES, seals_of
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import (
    HELLO,
    PATIENCE_S,
    link,
    make_codec,
    receive,
    tcp_server,
    wear,
)
from tests.helpers.paths import REPOSITORY

KEYRINGS = make_keyrings(["buffer-0", "actor-0", "actor-1"])
CONNECTION = b"actor-0" + b"\1" * 16
FRAMES: list[Buffer] = [b"header", b"", bytes(range(256)) * 40]


def both(connection: str = "actor-0") -> tuple[Seals, Seals]:
    """An actor and a buffer in new lives."""
    return seals_of(connection, KEYRINGS[connection]), seals_of("buffer-0", KEYRINGS["buffer-0"])


def opened(seals: Seals, parts: list[Buffer], sender: str = "actor-0") -> list[bytes]:
    return [bytes(frame) for frame in seals.open(sender, CONNECTION, parts)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_what_is_sealed_comes_back_both_ways(frames: list[bytes]):
    actor, buffer = both()
    for _ in range(2):
        assert opened(buffer, actor.seal("buffer-0", CONNECTION, frames)) == frames
        assert opened(actor, buffer.seal("actor-0", CONNECTION, frames), "buffer-0") == frames


@pytest.mark.parametrize("as_one", [False, True])
@given(frames=st.lists(st.binary(max_size=50), min_size=1, max_size=5))
@example(frames=[bytes(16)])
@example(frames=[bytes(range(32)), b"", b"x"])
def test_frames_of_any_number_of_segments_come_back(as_one: bool, frames: list[bytes]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "SEGMENT_BYTES", 16)
        actor, buffer = both()
        sealed = actor.seal("buffer-0", CONNECTION, frames, as_one=as_one)
        assert len(sealed) == sum(1 if as_one else len(frame) // 16 + 1 for frame in frames)
        assert opened(buffer, sealed) == frames


@pytest.mark.parametrize("as_one", [False, True])
def test_large_frames_are_cut_into_parts_that_heartbeats_can_wait_for(as_one: bool):
    actor, buffer = both()
    frame = np.arange(3 * SEGMENT_BYTES // 4, dtype=np.uint32).data.cast("B")
    sealed = actor.seal("buffer-0", CONNECTION, [b"header", frame], as_one=as_one)
    sizes = [len(part) - SEAL_BYTES for part in sealed]
    assert max(sizes) <= SEGMENT_BYTES or as_one
    assert buffer.open("actor-0", CONNECTION, sealed) == [b"header", frame]


@pytest.mark.parametrize(
    "key", ["", "x" * 39, "0" * 40, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 40]
)
def test_what_is_no_public_key_is_refused_by_name(key: str):
    members = KEYRINGS["buffer-0"].members | {"actor-9": key}
    with pytest.raises(WireError, match="public key") as caught:
        seals_of("buffer-0", Keyring(KEYRINGS["buffer-0"].own, members)).password(
            "actor-9", is_client=False
        )
    assert caught.value.where == "actor-9"
    assert not sealing.is_public_key(key)
    assert sealing.is_public_key(KEYRINGS["actor-0"].members["actor-0"])


@pytest.mark.parametrize("choice", range(len(ciphers.CIPHERS)))
def test_every_cipher_is_taken_and_leaves_room_on_the_wire(
    choice: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sealing, "fastest_cipher", lambda: choice)
    actor, buffer = both()
    sealed = actor.seal("buffer-0", CONNECTION, FRAMES)
    assert sealed[0][0] == choice
    assert (
        max(len(part) - len(frame) for part, frame in zip(sealed, FRAMES, strict=True))
        <= SEAL_BYTES
    )
    assert opened(buffer, sealed) == FRAMES


def test_a_processor_with_instructions_for_aes_uses_it():
    with open("/proc/cpuinfo") as file:
        has_aes = " aes " in file.read()
    assert ciphers.CIPHERS[fastest_cipher()] is AESGCM or not has_aes


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "nothing": lambda parts: [],
    "no prefix": lambda parts: [b"\0" * 8],
    "only a prefix": lambda parts: [parts[0][:24]],
    "another cipher": lambda parts: [b"\1" + parts[0][1:], *parts[1:]],
    "an unknown cipher": lambda parts: [b"\xff" + parts[0][1:], *parts[1:]],
    "another stream": lambda parts: [parts[0][:1] + b"\0" * 15 + parts[0][16:], *parts[1:]],
    "a later number": lambda parts: [parts[0][:16] + b"\7" + parts[0][17:], *parts[1:]],
    "its last frame cut off": lambda parts: parts[:-1],
    "a frame left out": lambda parts: [parts[0], parts[2]],
    "frames exchanged": lambda parts: [parts[0], parts[2], parts[1]],
    "a frame twice": lambda parts: [*parts, parts[2]],
    "a short frame": lambda parts: [parts[0], b"\0" * 15, parts[2]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_is_changed_is_refused_and_the_original_still_opens(
    change: Callable[[list[bytes]], list[bytes]],
):
    actor, buffer = both()
    sealed = [bytes(part) for part in actor.seal("buffer-0", CONNECTION, FRAMES)]
    with pytest.raises(WireError):
        buffer.open("actor-0", CONNECTION, change(sealed))
    assert opened(buffer, list(sealed)) == FRAMES


@given(st.data())
def test_no_flipped_bit_passes(data: st.DataObject):
    actor, buffer = both()
    sealed = [bytearray(part) for part in actor.seal("buffer-0", CONNECTION, FRAMES)]
    part = data.draw(st.sampled_from(sealed))
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        buffer.open("actor-0", CONNECTION, sealed)


def test_nothing_arrives_twice_and_gaps_are_allowed():
    actor, buffer = both()
    messages = [actor.seal("buffer-0", CONNECTION, [bytes([number])]) for number in range(5)]
    assert opened(buffer, messages[0]) == [b"\0"]
    assert opened(buffer, messages[3]) == [b"\3"]
    for late in messages[:4]:
        with pytest.raises(WireError, match="arrived before"):
            buffer.open("actor-0", CONNECTION, late)
    assert opened(buffer, messages[4]) == [b"\4"]


def test_what_is_for_another_process_connection_or_direction_does_not_open():
    actor, buffer = both()
    other = seals_of("actor-1", KEYRINGS["actor-1"])
    sealed = actor.seal("buffer-0", CONNECTION, FRAMES)
    for reader, sender, connection in (
        (buffer, "actor-0", b"actor-0" + b"\2" * 16),  # such as that of its next life
        (buffer, "actor-1", CONNECTION),
        (other, "actor-0", CONNECTION),
        (actor, "buffer-0", CONNECTION),
    ):
        with pytest.raises(WireError, match=r"not sealed by that member|another connection"):
            reader.open(sender, connection, sealed)
    with pytest.raises(WireError, match="no member"):
        buffer.open("actor-9", CONNECTION, sealed)


def test_no_two_lives_and_no_two_directions_share_a_key():
    """The same number under the same key would give both messages away."""
    first, buffer = both()
    second, _ = both()
    sealed = [
        bytes(seals.seal(peer, connection, [b"\0" * 64])[0])[24:]
        for seals, peer, connection in (
            (first, "buffer-0", CONNECTION),
            (first, "buffer-0", b"actor-0~latest" + b"\1" * 16),
            (second, "buffer-0", CONNECTION),
            (buffer, "actor-0", CONNECTION),
            (buffer, "actor-1", CONNECTION),
        )
    ]
    assert len(set(sealed)) == len(sealed)


def test_once_a_later_life_was_heard_nothing_of_an_earlier_one_opens():
    """Such as what was held back by whoever can, or was still queued when it was killed."""
    first, buffer = both()
    second, _ = both()
    before, after = first.connection("actor-0"), second.connection("actor-0")
    held_back = [first.seal("buffer-0", before, [b"x"]) for _ in range(2)]
    buffer.open("actor-0", before, held_back[0])
    buffer.seal("actor-0", before, [b"x"])
    buffer.open("actor-0", after, second.seal("buffer-0", after, [b"y"]))
    with pytest.raises(WireError, match="earlier life"):
        buffer.open("actor-0", before, held_back[1])
    assert len(buffer._openers) == 1
    assert not buffer._sealers


def test_what_is_garbage_keeps_no_state():
    _, buffer = both()
    for number in range(20):
        with pytest.raises(WireError):
            buffer.open("actor-0", b"actor-0%016d" % number, [np.random.bytes(100)])
    assert not buffer._openers


def test_a_password_differs_by_pair_and_direction():
    seals = {name: seals_of(name, keys) for name, keys in KEYRINGS.items()}
    said = {
        (client, server): seals[client].password(server, is_client=True)
        for client, server in itertools.permutations(seals, 2)
    }
    assert len(set(said.values())) == len(said)
    for (client, server), password in said.items():
        assert seals[server].password(client, is_client=False) == password


def test_who_has_listened_is_admitted_but_neither_believed_nor_answered():
    """It knows the password and what was sent, both as they are on the wire, but no key."""
    with tcp_server(KEYRINGS["buffer-0"]) as (server, endpoint, codec):
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=KEYRINGS["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as member:
            own, seals = member._out.own["buffer-0"], member._seals
            assert seals is not None
            heard = seals.seal("buffer-0", own, make_codec().encode(HELLO, "buffer-0"))
            assert member.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
            with zmq.Context() as context, context.socket(zmq.DEALER) as listener:
                listener.set(zmq.LINGER, 0)
                wear(listener, "actor-0", KEYRINGS["actor-0"])  # the password is on the wire
                listener.connect(endpoint)
                for words in ([b"anything"], heard, make_codec().encode(HELLO, "buffer-0")):
                    listener.send_multipart(words)
                    assert isinstance(receive(server)[1], WireError)
                assert server.send("actor-0", HELLO)
                assert receive(member) == ("actor-0", HELLO)
                assert not listener.poll(100)
        assert codec.num_decoded == 1
        assert server.num_refused == 3


def test_whoever_poses_as_the_server_reads_nothing_and_is_not_believed():
    """It takes the password, as a stranger's server can."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as posing:
        posing.set(zmq.LINGER, 0)
        admission = ThreadAuthenticator(context)
        admission.start()
        password = both()[0].password("buffer-0", is_client=True)
        admission.configure_plain("any", {"actor-0": password})
        posing.set(zmq.PLAIN_SERVER, 1)
        posing.set(zmq.ZAP_DOMAIN, b"any")
        posing.bind("tcp://127.0.0.1:*")
        endpoint = posing.get_string(zmq.LAST_ENDPOINT)
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=KEYRINGS["actor-0"])
        codec = make_codec()
        with Sockets("actor-0", wiring, codec) as member:
            assert member.send("buffer-0", HELLO)
            assert posing.poll(PATIENCE_S * 1000)
            identity, sealed = posing.recv_multipart()
            assert b"actor-0" not in sealed
            own = make_codec().encode(Start(origin_ns=666), "actor-0")
            for words in (own, [sealed]):
                posing.send_multipart([identity, *words])
                assert isinstance(receive(member)[1], WireError)
        assert codec.num_decoded == 0
        admission.stop()


def test_a_run_on_one_host_reads_nothing_of_it():
    check = "import sys, engine.wire.sockets, engine.wire.learner_ring; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert "zmq" in done.stdout.split()
    assert not {"cryptography", "engine.ciphers", "engine.wire.sealing"} & set(done.stdout.split())
