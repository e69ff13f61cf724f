"""Opens SSH connections: keys or agent only, jump hosts, time-outs, retries if they can help.

paramiko's own keepalive sends but never checks, so a dead peer is noticed by TCP: keepalive probes
and TCP_USER_TIMEOUT on the underlying socket.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import tempfile
import threading
from typing import IO, Any

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import HostUnreachableError
from tianji_cli.connectors.host_keys import VerifyHostKey, key_types, read_trust
from tianji_cli.connectors.known_hosts import Trust
from tianji_cli.connectors.ssh_keys import Login, LoginRefusedError
from tianji_cli.connectors.target import Target


class ProxyCommand(socket.socket):
    """The local end; the user's shell runs the command, as with `ssh`.

    It has its own session: Ctrl-C in the terminal is for this program, which needs the connection
    to stop a run gracefully.
    """

    _process: subprocess.Popen[bytes]
    _errors: IO[bytes]
    _closing: threading.Lock
    last_words = ""
    """The command's last line on standard error; known once this is closed."""

    @classmethod
    def start(cls, command: str) -> ProxyCommand:
        """Starts the command."""
        near, far = socket.socketpair()
        proxy = cls(fileno=near.detach())
        proxy._closing = threading.Lock()
        proxy._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        shell = os.environ.get("SHELL") or "/bin/sh"
        with far:
            proxy._process = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=proxy._errors,
                start_new_session=True,
            )
        return proxy

    def close(self) -> None:
        """Ends the command. paramiko's thread calls this too, possibly at the same time."""
        with self._closing:
            if self._process.poll() is None:
                self._process.terminate()
                self._process.wait()
            if not self._errors.closed:
                with self._errors as file:
                    file.seek(0)
                    lines = file.read().decode("utf-8", "replace").strip().splitlines()
                self.last_words = lines[-1] if lines else ""
            super().close()


CONNECT_S = 10.0
"""Time-out of each step of each hop: TCP, banner, authentication, channel."""
MAX_CONNECT_S = 50.0
"""A longer `ConnectTimeout` is reduced to this: provisioning has a deadline as well."""
ATTEMPTS = 6
"""Attempts: sshd refuses some of many simultaneous connections (MaxStartups)."""
KEEPALIVE_S = 2
USER_TIMEOUT_MS = 12_000
"""Longer than network cuts that a run survives, including the last retransmission."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_NO_ROUTE = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors for an address family that this machine's network does not have."""


def open_client(
    target: Target, earlier: list[paramiko.SSHClient], cancel: threading.Event
) -> paramiko.SSHClient:
    """Connects to a host and logs in.

    Args:
        target: The host.
        earlier: Connections to the jump hosts, the last one next to it.
        cancel: Ends waiting between attempts.

    Raises:
        HostUnreachableError: No connection in time.
        PreflightError: Its key is not trusted, or it accepts none of ours.
        ConfigError: A file of the user's cannot be used.
    """
    trust = read_trust(target)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _connect_once(target, earlier, trust)
        except (VerifyHostKey.Error, LoginRefusedError) as error:
            raise error.explanation from None
        except (paramiko.SSHException, EOFError, ConnectionResetError) as error:
            if attempt == ATTEMPTS or cancel.is_set():
                raise _unreachable(target, error) from error
            cancel.wait(attempt * random.uniform(0.2, 0.6))
        except (OSError, UnicodeError) as error:
            raise _unreachable(target, error) from error
    raise AssertionError("the last attempt returns or raises")


def _unreachable(target: Target, error: Exception) -> HostUnreachableError:
    text = f"no answer within {_limit_s(target):.0f} s"
    if not isinstance(error, TimeoutError):
        text = getattr(error, "strerror", "") or str(error) or type(error).__name__
    return HostUnreachableError(
        f"{target.endpoint} cannot be reached: {text}",
        where=target.alias,
        fix=f"ssh {target.alias} must work; is the host up, and are name and port right?",
    )


def _limit_s(target: Target) -> float:
    return min(target.connect_s or CONNECT_S, MAX_CONNECT_S)


def _connect_once(
    target: Target, earlier: list[paramiko.SSHClient], trust: Trust
) -> paramiko.SSHClient:
    def transport(sock: Any, **options: Any) -> paramiko.Transport:  # noqa: ANN401
        return _Transport(sock, trust, **options)

    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(VerifyHostKey(target, trust))
    limit_s = _limit_s(target)
    way = _way_to(target, earlier)
    try:
        client.connect(
            target.hostname,
            target.port,
            target.user,
            sock=way,
            timeout=limit_s,
            banner_timeout=limit_s,
            auth_timeout=limit_s,
            channel_timeout=limit_s,
            transport_factory=transport,
            auth_strategy=Login(target),
        )
        _notice_dead_peers(client)
    except BaseException as error:
        client.close()
        way.close()
        is_explained = isinstance(error, (VerifyHostKey.Error, LoginRefusedError))
        said = way.last_words if isinstance(way, ProxyCommand) and not is_explained else ""
        if said and isinstance(error, Exception):
            raise paramiko.SSHException(f"its ProxyCommand said: {said}") from error
        raise
    return client


class _Transport(paramiko.Transport):
    """Requests host keys in order of possible trust, including certificates."""

    def __init__(self, sock: Any, trust: Trust, **options: Any) -> None:  # noqa: ANN401
        self._trust = trust
        super().__init__(sock, **options)

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return key_types(self._trust, tuple(super().preferred_keys))


def _way_to(target: Target, earlier: list[paramiko.SSHClient]) -> socket.socket | paramiko.Channel:
    """The transport of the connection: a jump host's channel, a proxy command, or TCP."""
    limit_s = _limit_s(target)
    if earlier:
        transport = earlier[-1].get_transport()
        assert transport is not None
        there = (target.hostname, target.port)
        return transport.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=limit_s)
    if target.proxy_command:
        return ProxyCommand.start(target.proxy_command)
    return _dial(target, limit_s)


def _dial(target: Target, limit_s: float) -> socket.socket:
    """A TCP connection to the first of the host's addresses that answers.

    Raises:
        OSError: None does; the error of the first address with a usable family.
    """
    family = _FAMILIES.get(target.family, socket.AF_UNSPEC)
    errors: list[OSError] = []
    found = socket.getaddrinfo(target.hostname, target.port, family, socket.SOCK_STREAM)
    for kind, _, _, _, address in found:
        sock = socket.socket(kind, socket.SOCK_STREAM)
        sock.settimeout(limit_s)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            errors.append(error)
        else:
            return sock
    raise next((error for error in errors if error.errno not in _NO_ROUTE), errors[0])


def _notice_dead_peers(client: paramiko.SSHClient) -> None:
    transport = client.get_transport()
    sock = transport.sock if transport else None
    if not isinstance(sock, socket.socket) or isinstance(sock, ProxyCommand):
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
