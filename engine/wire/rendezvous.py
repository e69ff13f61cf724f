"""The rendezvous of learners that update together; plain data, part of a launch."""

from __future__ import annotations

import msgspec


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """A rendezvous on one host.

    Attributes:
        address: Address at which the learners connect to each other: the loopback.
        secret: Prefix of all keys in the store; without it a process cannot take part.
        file: Path of the store.
    """

    address: str
    secret: str
    file: str

    def __repr__(self) -> str:
        return f"Rendezvous(address={self.address!r}, file={self.file!r}, secret=<hidden>)"
