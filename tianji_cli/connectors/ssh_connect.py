"""Opens SSH connections: keys or agent only, jump hosts, deadlines, retries where they can help.

paramiko's own keepalive sends but never checks, so a dead peer is noticed by TCP: keepalive probes
and TCP_USER_TIMEOUT on the underlying socket.
"""

from __future__ import annotations

import random
import socket
import threading
from pathlib import Path
from typing import Any

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import HostUnreachableError
from tianji_cli.connectors.host_keys import (
    RefuseUnknown,
    changed_key,
    load_host_keys,
    refused_login,
)
from tianji_cli.connectors.target import Target

CONNECT_S = 10.0
"""For each step of each hop: TCP, banner, authentication, channel."""
ATTEMPTS = 4
"""sshd turns some of many simultaneous connections away (MaxStartups); those come back."""
KEEPALIVE_S = 2
USER_TIMEOUT_MS = 12_000
"""Longer than the cuts that a run survives, with the last retransmission before it."""


def open_client(
    target: Target, earlier: list[paramiko.SSHClient], cancel: threading.Event
) -> paramiko.SSHClient:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _connect_once(target, earlier)
        except (paramiko.SSHException, EOFError, ConnectionResetError) as error:
            is_known = isinstance(error, (paramiko.BadHostKeyException, RefuseUnknown.Error))
            if isinstance(error, paramiko.BadHostKeyException):
                raise changed_key(target, error) from None
            if isinstance(error, RefuseUnknown.Error):
                raise error.explanation from None
            if isinstance(error, paramiko.AuthenticationException):
                raise refused_login(target, error) from None
            if is_known or attempt == ATTEMPTS or cancel.is_set():
                raise _unreachable(target, error) from error
            cancel.wait(attempt * random.uniform(0.2, 0.6))
        except OSError as error:
            raise _unreachable(target, error) from error
    raise AssertionError("the last attempt returns or raises")


def _unreachable(target: Target, error: Exception) -> HostUnreachableError:
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    text = f"no answer within {CONNECT_S:.0f} s" if isinstance(error, TimeoutError) else str(error)
    return HostUnreachableError(
        f"{target.endpoint} cannot be reached: {text or type(error).__name__}",
        where=target.alias,
        fix=f"ssh {target.alias} must work; is the host up, and are name and port right?",
    )


def _connect_once(target: Target, earlier: list[paramiko.SSHClient]) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    load_host_keys(client, target)
    client.set_missing_host_key_policy(RefuseUnknown(target))
    keys = [key for key in target.keys if Path(key).exists()]
    try:
        client.connect(
            target.hostname,
            target.port,
            target.user,
            key_filename=keys or None,  # type: ignore[arg-type]  # a list is documented
            allow_agent=target.uses_agent,
            look_for_keys=not target.keys,
            sock=_way_to(target, earlier),
            timeout=CONNECT_S,
            banner_timeout=CONNECT_S,
            auth_timeout=CONNECT_S,
            channel_timeout=CONNECT_S,
        )
        _notice_dead_peers(client)
    except BaseException:
        client.close()
        raise
    return client


def _way_to(target: Target, earlier: list[paramiko.SSHClient]) -> Any:  # noqa: ANN401
    """What the connection runs over: a jump host's channel, a proxy command, or None for TCP."""
    if earlier:
        transport = earlier[-1].get_transport()
        assert transport is not None
        there = (target.hostname, target.port)
        return transport.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=CONNECT_S)
    return paramiko.ProxyCommand(target.proxy_command) if target.proxy_command else None


def _notice_dead_peers(client: paramiko.SSHClient) -> None:
    transport = client.get_transport()
    sock = transport.sock if transport else None
    if not isinstance(sock, socket.socket):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S),
        ("TCP_KEEPCNT", USER_TIMEOUT_MS // 1000 // KEEPALIVE_S),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
