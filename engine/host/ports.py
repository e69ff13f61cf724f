"""TCP ports of this host that a run can listen on."""

from __future__ import annotations

import errno
import socket
from typing import Any

import psutil

from engine.errors import PreflightError
from engine.wording import is_or_are, plural

BACKLOG = 1024
"""Connections that can wait for their server to start: up to all roles of a host."""


def listen_on(address: str, ports: range, count: int) -> list[socket.socket]:
    """Listens on the first `count` ports of a range that are free at `address`.

    A port is claimed by listening on it: of two runs that try the same one at the same moment, one
    takes the next.

    Returns:
        Non-blocking sockets; the caller closes them.

    Raises:
        PreflightError: Too few are free, with the owner of a taken one if it is known; or the
            address is not this host's.
    """
    found: list[socket.socket] = []
    try:
        for port in ports:
            if len(found) == count:
                break
            if (listener := _listen(address, port)) is not None:
                found.append(listener)
        if len(found) < count:
            raise _too_few(address, ports, count, len(found))
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def _listen(address: str, port: int) -> socket.socket | None:
    """A socket that listens there; None if another process does, or this user may not.

    Raises:
        PreflightError: The address is not this host's, or there is no such port.
    """
    family, where = _resolve(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((where[0], port, *where[2:]))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OverflowError:
        listener.close()
        return None
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _not_here(address) from error
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise PreflightError(
                f"the run cannot listen there: {error.strerror or error}", where=address
            ) from error
        return None
    return listener


def _too_few(address: str, ports: range, count: int, num_free: int) -> PreflightError:
    span = f"{ports.start}-{ports.stop - 1}"
    return PreflightError(
        f"the run listens on {plural(count, 'port')}, but of {span} only {num_free}"
        f" {is_or_are(num_free)} free{_owners(ports)}",
        where=address,
        fix="end that process, or set a wider range with `ports:` in the inventory",
    )


def _not_here(address: str) -> PreflightError:
    return PreflightError(
        "the run cannot listen there, as no network of this host has that address",
        where=address,
        fix="set one that it has with `address:` in the inventory",
    )


def _resolve(address: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Family and socket address; that of `fe80::1%eth0` has the number of its network in it."""
    try:
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM, flags=numeric)
    except OSError as error:
        raise _not_here(address) from error
    return found[0][0], found[0][4]


def _owners(ports: range) -> str:
    """The process that listens there, as far as this user can see it."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.AccessDenied, OSError):
        return ""
    owners = sorted(
        {
            (item.laddr.port, item.pid)
            for item in connections
            if item.status == psutil.CONN_LISTEN
            and item.laddr
            and item.laddr.port in ports
            and item.pid
        }
    )
    named = [f"{port} is held by process {pid} ({_name(pid)})" for port, pid in owners[:3]]
    return f" ({'; '.join(named)})" if named else ""


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "unknown"
