"""Seals what goes between hosts: authenticated encryption, by the process that sends.

ZeroMQ's own encryption (CURVE: XSalsa20 and Poly1305) costs more processor time than everything
else that a connection does. Processors have instructions for AES-GCM, which then costs next to
nothing. So messages travel sealed, and of ZeroMQ's mechanisms only a password is used, which
decides who may send at all.

Two processes share a secret that is never sent: X25519 of one's secret key and the other's public
key, which are new for each run. HKDF (RFC 5869) derives from it a key for each direction of each
connection and each *stream*: 15 random bytes of the sender, so that no two lives of a process share
a key. A message is sealed under its number in the stream:

    segment 0   cipher  stream  number  nonce   ciphertext  tag
                B       15s     Q       16s     (as long)   16s
    segment i                                   ciphertext  tag

Frames are sealed in segments. A frame ends with the first one that is not full, which can be empty:
so lengths, which nobody can change, say where frames begin. The nonce of a segment is the number,
its index in the message, and whether it is the last one; so none can be cut off, joined or
exchanged. Each segment is a part of ZeroMQ's message, because a heartbeat waits for no more than
the next part, however slow the link is; a connection that keeps the latest carries one part.

Numbers only grow, so no message arrives twice; those that are lost with a connection leave gaps.
A connection has the name of its client and a nonce, which that has chosen: when its life began, on
its host's clock, and random bytes. So nothing that was sealed for an earlier life opens in a later
one, and once a later one was heard, nothing that an earlier one had sealed opens. A server has one
life in a run: only actors are started again, and they are clients.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Collection, Sequence

import numpy as np
import zmq.utils.z85 as z85
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from engine.ciphers import (
    CIPHERS,
    KEY_BYTES,
    Cipher,
    cipher_of,
    derive,
    fastest_cipher,
    nonce_of,
)
from engine.errors import WireError
from engine.wire.frames import SEGMENT_BYTES, TAG_BYTES
from engine.wire.header import Buffer
from engine.wire.keys import Keyring

_STREAM_BYTES = 15
_BEGUN = struct.Struct(">Q")
"""When a life began, in nanoseconds. As bytes they have the same order."""
_NONCE_BYTES = 16
_PREFIX = struct.Struct(f"<B{_STREAM_BYTES}sQ{_NONCE_BYTES}s")


class Seals:
    """Seals and opens the messages of one process, for and from every other one.

    Args:
        address: Of this process.
        keyring: Its keys, and the public ones of all members.
    """

    def __init__(self, address: str, keyring: Keyring) -> None:
        self._address = address
        self._keyring = keyring
        self._secrets: dict[str, bytes] = {}
        self._sealers: dict[tuple[str, bytes], _Sealer] = {}
        self._openers: dict[tuple[str, bytes], _Opener] = {}
        self._begun = _BEGUN.pack(time.monotonic_ns())
        self._heard: dict[str, bytes] = {}
        """When the latest life of each peer began that has sealed anything."""

    @property
    def members(self) -> Collection[str]:
        """All processes of the run."""
        return self._keyring.members.keys()

    def connection(self, name: str) -> bytes:
        """A connection of this process as a client: its name, and the nonce of this life."""
        return name.encode() + self._begun + os.urandom(_NONCE_BYTES - _BEGUN.size)

    @staticmethod
    def said_in(sealed: Sequence[Buffer], name: str) -> bytes:
        """The connection of this name that a message says it came by: proved once it opens.

        Raises:
            WireError: It says none.
        """
        if not sealed or len(sealed[0]) < _PREFIX.size:
            raise WireError("it is not sealed")
        return name.encode() + bytes(sealed[0][_PREFIX.size - _NONCE_BYTES : _PREFIX.size])

    def password(self, peer: str, *, is_client: bool) -> str:
        """What the client of a connection between this process and `peer` must say to be heard."""
        ends = (self._address, peer) if is_client else (peer, self._address)
        return derive(self._secret(peer), "password", *map(str.encode, ends)).hex()

    def seal(
        self, peer: str, connection: bytes, frames: Sequence[Buffer], *, as_one: bool = False
    ) -> list[Buffer]:
        """The parts of a message, sealed for `peer`.

        Args:
            peer: The process that they are for.
            connection: As its client has named it, at least 16 bytes.
            frames: Left as they are.
            as_one: Each frame is one part, however many segments it has.
        """
        place = (peer, connection)
        sealer = self._sealers.get(place)
        if sealer is None:
            names = (self._address.encode(), peer.encode(), connection)
            sealer = self._sealers[place] = _Sealer(self._secret(peer), names)
        return sealer.seal(frames, as_one=as_one)

    def open(self, peer: str, connection: bytes, sealed: Sequence[Buffer]) -> list[Buffer]:
        """The frames of a message that `peer` has sealed for this process.

        Raises:
            WireError: Someone else has, or changed it, or it arrived before, or a later life of
                `peer` was heard.
        """
        begun = _begun_of(connection)
        if begun < self._heard.get(peer, b""):
            raise WireError("it is of an earlier life")
        place = (peer, connection)
        opener = self._openers.get(place)
        if opener is None:
            names = (peer.encode(), self._address.encode(), connection)
            opener = _Opener(self._secret(peer), names)
        frames = opener.open(sealed)
        # nothing is kept before something has proved to be of a member
        if self._heard.get(peer, begun) < begun:
            self._forget(peer)
        self._heard[peer] = begun
        self._openers[place] = opener
        return frames

    def _forget(self, peer: str) -> None:
        """The keys of a peer's earlier life."""
        for kept in (self._sealers, self._openers):
            for place in [place for place in kept if place[0] == peer]:
                del kept[place]

    def _secret(self, peer: str) -> bytes:
        if peer not in self._keyring.members:
            raise WireError("it is no member of this run", where=peer)
        if peer not in self._secrets:
            own = X25519PrivateKey.from_private_bytes(z85.decode(self._keyring.own.secret))
            try:
                other = X25519PublicKey.from_public_bytes(z85.decode(self._keyring.members[peer]))
                self._secrets[peer] = own.exchange(other)
            except (ValueError, struct.error, KeyError) as error:
                raise WireError("its public key is none", where=peer) from error
        return self._secrets[peer]


def _begun_of(connection: bytes) -> bytes:
    return connection[-_NONCE_BYTES:][: _BEGUN.size]


def is_public_key(text: str) -> bool:
    """Whether a secret can be shared with the owner of this key, Z85 text of any kind."""
    try:
        key = X25519PublicKey.from_public_bytes(z85.decode(text))
        X25519PrivateKey.from_private_bytes(bytes(range(KEY_BYTES))).exchange(key)
    except (ValueError, KeyError, struct.error):
        return False
    return True


class _Sealer:
    """One direction of a connection: what this life of the process sends.

    Args:
        secret: Shared by both ends.
        names: Of the sender, the receiver and the connection.
    """

    def __init__(self, secret: bytes, names: Sequence[bytes]) -> None:
        self._number = 0
        self._nonce = names[-1][-_NONCE_BYTES:]
        self._choice = fastest_cipher()
        self._stream = os.urandom(_STREAM_BYTES)
        self._cipher = cipher_of(secret, names, self._choice, self._stream)

    def seal(self, frames: Sequence[Buffer], *, as_one: bool) -> list[Buffer]:
        number, self._number = self._number, self._number + 1
        count = sum(len(frame) // SEGMENT_BYTES + 1 for frame in frames)
        parts: list[Buffer] = []
        index = 0
        for frame in frames:
            skip = 0 if index else _PREFIX.size
            num_segments = len(frame) // SEGMENT_BYTES + 1
            out = np.empty(skip + len(frame) + num_segments * TAG_BYTES, np.uint8).data
            if skip:
                _PREFIX.pack_into(out, 0, self._choice, self._stream, number, self._nonce)
            view, begin, end = memoryview(frame), 0, skip
            for at in range(0, num_segments * SEGMENT_BYTES, SEGMENT_BYTES):
                piece = view[at : at + SEGMENT_BYTES]
                start, end = end, end + len(piece) + TAG_BYTES
                nonce = nonce_of(number, index, count)
                self._cipher.encrypt_into(nonce, piece, None, out[start:end])
                index += 1
                if not as_one:
                    parts.append(out[begin:end])
                    begin = end
            if as_one:
                parts.append(out)
        return parts


class _Opener:
    """One direction of a connection: what one peer sends, whichever of its lives."""

    def __init__(self, secret: bytes, names: Sequence[bytes]) -> None:
        self._secret = secret
        self._names = names
        self._nonce = names[-1][-_NONCE_BYTES:]
        self._ciphers: dict[tuple[int, bytes], Cipher] = {}
        self._next: dict[tuple[int, bytes], int] = {}

    def open(self, sealed: Sequence[Buffer]) -> list[Buffer]:
        if not sealed or len(sealed[0]) < _PREFIX.size:
            raise WireError("it is not sealed")
        choice, stream, number, nonce = _PREFIX.unpack_from(sealed[0])
        if nonce != self._nonce:
            raise WireError("it is for another connection")
        if choice >= len(CIPHERS):
            raise WireError(f"it is sealed by the unknown cipher {choice}")
        place = (choice, stream)
        if number < self._next.get(place, 0):
            raise WireError("it arrived before")
        cipher = self._ciphers.get(place)
        if cipher is None:
            cipher = cipher_of(self._secret, self._names, choice, stream)
        frames = _open(cipher, number, _segments_of(sealed))
        self._ciphers[place], self._next[place] = cipher, number + 1
        return frames


def _segments_of(parts: Sequence[Buffer]) -> list[memoryview]:
    """In order; which part they came in does not matter."""
    segments = []
    for index, part in enumerate(parts):
        view = memoryview(part)[0 if index else _PREFIX.size :]
        starts = range(0, max(1, len(view)), SEGMENT_BYTES + TAG_BYTES)
        segments += [view[at : at + SEGMENT_BYTES + TAG_BYTES] for at in starts]
    if any(len(segment) < TAG_BYTES for segment in segments):
        raise WireError("it is not sealed")
    return segments


def _open(cipher: Cipher, number: int, segments: Sequence[memoryview]) -> list[Buffer]:
    """The frames, each opened to where it belongs in memory."""
    frames: list[Buffer] = []
    first = 0
    while first < len(segments):
        last = first
        while last < len(segments) and len(segments[last]) == SEGMENT_BYTES + TAG_BYTES:
            last += 1
        own = segments[first : last + 1]
        frame = np.empty(sum(map(len, own)) - TAG_BYTES * len(own), np.uint8).data
        for place, segment in enumerate(own):
            nonce = nonce_of(number, first + place, len(segments))
            target = frame[place * SEGMENT_BYTES : (place + 1) * SEGMENT_BYTES]
            try:
                cipher.decrypt_into(nonce, segment, None, target)
            except InvalidTag:
                raise WireError("it was not sealed by that member, or was changed") from None
        frames.append(frame)
        first = last + 1
    return frames
