"""Where learners that update together find each other; plain data, part of a launch."""

from __future__ import annotations

import msgspec


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """A meeting place.

    Attributes:
        address: Of the host that a learner runs on; its own gloo connections are made there.
        secret: Prefix of all keys in the store; whoever does not know it cannot take part.
        file: On one host: path of the store.
        store_address, store_port: Between hosts: where the first learner serves the store.
    """

    address: str
    secret: str
    file: str = ""
    store_address: str = ""
    store_port: int = 0

    def __repr__(self) -> str:
        return f"Rendezvous(address={self.address!r}, secret=<hidden>)"
