"""What command, supervisor and forkserver can say to each other at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args, get_type_hints

import msgspec

from engine.control_protocol import FromForkserver, FromSupervisor, ToForkserver, ToSupervisor
from engine.wire.keys import KeyPair, make_pair

PROTOCOL = ToSupervisor | FromSupervisor | ToForkserver | FromForkserver


def structs_in(annotation: object, seen: set[object]) -> Iterator[type[msgspec.Struct]]:
    """Every struct that a value of this type can hold, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        if annotation in seen:
            return
        seen.add(annotation)
        yield annotation
        for inner in get_type_hints(annotation).values():
            yield from structs_in(inner, seen)
    for argument in get_args(annotation):
        yield from structs_in(argument, seen)


def test_no_message_has_a_place_for_a_secret():
    """Checked on types: a secret key is a `KeyPair`, or a field of this name."""
    found = list(structs_in(PROTOCOL, set()))
    assert {"Launch", "WorkerSpec", "CommonSpec", "Prepared", "Link"} <= {
        struct.__name__ for struct in found
    }
    assert KeyPair not in found
    assert not [
        (struct.__name__, name)
        for struct in found
        for name in get_type_hints(struct)
        if "secret" in name or name in ("keyring", "keys")
    ]


def test_a_key_pair_shows_only_its_public_half():
    pair = make_pair()
    assert pair.public in repr(pair)
    assert pair.secret not in repr(pair)
