"""CURVE keys: every TCP socket of a run authenticates itself, and admits only members of the run.

Each run has new keys, kept in memory and passed over standard input. They are never written to
disk, to a command line or to an environment variable.
"""

from __future__ import annotations

import msgspec
import zmq


class KeyPair(msgspec.Struct, frozen=True):
    """Z85 text, 40 characters each."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=<hidden>)"


class Keyring(msgspec.Struct, frozen=True):
    """The keys for one process: its own pair, and the public keys of all members by address."""

    own: KeyPair
    members: dict[str, str]


def make_keyrings(addresses: list[str]) -> dict[str, Keyring]:
    """A new pair for each address, and all public keys for every address."""
    pairs = {}
    for address in addresses:
        public, secret = zmq.curve_keypair()
        pairs[address] = KeyPair(public.decode(), secret.decode())
    members = {address: pair.public for address, pair in pairs.items()}
    return {address: Keyring(pair, members) for address, pair in pairs.items()}
