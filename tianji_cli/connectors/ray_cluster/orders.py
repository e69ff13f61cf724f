"""What the command asks of the driver on its standard input, and what it hears: lines of JSON."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from engine.errors import (
    ConfigError,
    DeadlineError,
    HostUnreachableError,
    PreflightError,
    TianJiError,
    VersionMismatchError,
)

_KINDS = {
    kind.__name__: kind
    for kind in (
        ConfigError,
        DeadlineError,
        HostUnreachableError,
        PreflightError,
        VersionMismatchError,
    )
}


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for on one node.

    Attributes:
        host: Name of the host in the inventory.
        num_cpus, num_gpus: Reserved there for this driver alone.
        address: The node's own address; empty for any node.
    """

    host: str
    num_cpus: int = 0
    num_gpus: int = 0
    address: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's first line.

    Attributes:
        address: Of the cluster, `HOST:PORT`.
        is_open: Whether a cluster without a token is accepted.
        reservations: One for each host.
        is_visit: Whether nothing is reserved: an actor goes to the node of each address, beside
            whatever is there.
        sockets: For each reservation, a descriptor that the driver inherits. The first line on it
            is a list of arguments for Python there, which is then started; the rest are its bytes.
    """

    address: str
    is_open: bool
    reservations: tuple[Reservation, ...]
    is_visit: bool
    sockets: tuple[int, ...]


class Placed(msgspec.Struct, frozen=True, kw_only=True, tag="placed"):
    """All nodes are there.

    Attributes:
        addresses: Their own addresses, in the order of the reservations.
    """

    addresses: tuple[str, ...]


class DriverFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Nothing was started, or all of it has ended; the fields of a `TianJiError`."""

    kind: str
    what: str
    fix: str = ""

    @classmethod
    def of(cls, error: TianJiError) -> DriverFailed:
        return cls(kind=type(error).__name__, what=error.what, fix=error.fix)

    def error(self, where: str) -> TianJiError:
        return _KINDS.get(self.kind, TianJiError)(self.what, where=where, fix=self.fix)


class StreamEnded(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The bytes of one host have ended.

    Attributes:
        number: Of its reservation.
        words: What its program said on standard error, or why Ray lost it.
    """

    number: int
    words: str


Report: TypeAlias = Placed | DriverFailed | StreamEnded
_DECODER: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def decode(line: bytes) -> Report:
    """What one line says."""
    return _DECODER.decode(line)
