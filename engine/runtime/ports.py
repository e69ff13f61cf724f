"""TCP ports of this host that a run may listen on."""

from __future__ import annotations

import contextlib
import errno
import socket

import psutil

from engine.errors import PreflightError


def find_free_ports(address: str, ports: range, count: int) -> list[int]:
    """The first `count` ports of a range on which nobody listens at `address`.

    Raises:
        PreflightError: There are not so many, and the owner of a taken one is named where it can
            be; or the address is not this host's.
    """
    free: list[int] = []
    for port in ports:
        if len(free) == count:
            break
        with contextlib.closing(socket.socket(_family(address), socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OverflowError:
                break
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise _not_here(address) from error
                continue
            free.append(port)
    if len(free) == count:
        return free
    span = f"{ports.start}-{ports.stop - 1}"
    raise PreflightError(
        f"the run listens on {count} ports, but of {span} only {len(free)} are free"
        f"{_owners(ports)}",
        where=address,
        fix="end that process or give a wider range with `ports:` in the inventory",
    )


def _not_here(address: str) -> PreflightError:
    return PreflightError(
        "the run cannot listen there, as no network of this host has that address",
        where=address,
        fix="give one of its own with `address:` in the inventory",
    )


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _owners(ports: range) -> str:
    """Who listens there, as far as this user may know."""
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
