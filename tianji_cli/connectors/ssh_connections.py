"""Sessions on connections to one host, with as many connections as sessions need."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import PreflightError
from engine.wording import plural
from tianji_cli.connectors.ssh_connect import open_client
from tianji_cli.connectors.target import Target

MAX_CONNECTIONS = 8
"""Connections to one host. sshd limits sessions per connection (MaxSessions), possibly to one."""
FREED_S = 0.2
"""Delay for sshd to notice the end of a session, if sessions are few."""
FULL_S = 5.0
"""Time-out for a session if no connection can be added."""
T = TypeVar("T")


class Connections:
    """Connections to one host: another is opened when none has room for a session.

    Args:
        name: The host's, for errors.
        target: Where it is reached.
        cancel: Ends waits.
    """

    def __init__(self, name: str, target: Target, cancel: threading.Event) -> None:
        self._name, self._target, self._cancel = name, target, cancel
        self._way: list[paramiko.SSHClient] = []
        self._clients: list[paramiko.SSHClient] = []
        self._opening = threading.Lock()

    def open(self) -> None:
        """Connects to the jump hosts and to the host.

        Raises:
            HostUnreachableError: No connection in time.
            PreflightError: Its key is unknown or has changed, or the login is refused.
        """
        for hop in self._target.jumps:
            self._way.append(open_client(hop, self._way, self._cancel))
        self._clients.append(open_client(self._target, self._way, self._cancel))

    @property
    def transport(self) -> paramiko.Transport | None:
        """Of the first connection, over which files go."""
        return self._clients[0].get_transport() if self._clients else None

    def are_alive(self) -> bool:
        """Whether the first connection is."""
        transport = self.transport
        return transport is not None and transport.is_active()

    def close(self) -> None:
        for client in reversed([*self._way, *self._clients]):
            client.close()

    def use(self, action: Callable[[paramiko.SSHClient], T]) -> T:
        """Opens a session on a connection with room for one; else opens another connection.

        Raises:
            PreflightError: The host allows no sessions at all, or too few.
        """
        with self._opening:  # one at a time, or each would open a connection
            clients, is_full = self._clients, len(self._clients) == MAX_CONNECTIONS
            patience_s = FULL_S if is_full else FREED_S if len(clients) > 1 else 0.0
            give_up_s = time.monotonic() + patience_s
            while True:
                for client in clients:
                    with contextlib.suppress(paramiko.ChannelException):
                        return action(client)
                if time.monotonic() >= give_up_s:
                    break
                self._cancel.wait(0.02)
            if not is_full:
                clients.append(open_client(self._target, self._way, self._cancel))
                with contextlib.suppress(paramiko.ChannelException):
                    return action(clients[-1])
        raise PreflightError(
            f"sshd there refuses another session, on each of {plural(len(clients), 'connection')}",
            where=self._name,
            fix="raise MaxSessions in its sshd_config (10 is usual)",
        )
