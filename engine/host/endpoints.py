"""The endpoints of a run's servers on this host: Unix sockets, or TCP ports."""

from __future__ import annotations

import os
from pathlib import Path

from engine.host.ports import listen_on
from engine.host.socket_dir import PREFIX, make_socket_dir, remove_socket_dir, sweep_stale

__all__ = ["PREFIX", "Endpoints", "sweep_stale"]


class Endpoints:
    """Endpoints of one supervisor; its Unix sockets are in a directory that only its user can read.

    TCP ports have listening sockets from the start, which the servers inherit: a port that was
    only found free could be taken by the time its server starts.

    Attributes:
        directory: Of the Unix sockets, None if there are none.
        listeners: By endpoint, the listening descriptors of TCP endpoints.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.listeners: dict[str, int] = {}

    def reserve(self, count: int, listen: tuple[str, int, int] | None) -> list[str]:
        """Takes `count` endpoints for exclusive use.

        Args:
            count: How many.
            listen: Address and half-open range of TCP ports; None for Unix sockets.

        Raises:
            PreflightError: Too few ports are free, or no directory for sockets can be made.
        """
        if count == 0:
            return []
        if listen is None:
            self.directory = make_socket_dir()
            return [f"ipc://{self.directory}/s{number}" for number in range(count)]
        address, first, end = listen
        text = f"[{address}]" if ":" in address else address
        found = []
        for listener in listen_on(address, range(first, end), count):
            found.append(f"tcp://{text}:{listener.getsockname()[1]}")
            self.listeners[found[-1]] = listener.detach()
        return found

    def release(self) -> None:
        """Closes the ports and removes the directory."""
        self.let_go()
        if self.directory is not None:
            remove_socket_dir(self.directory)
            self.directory = None

    def let_go(self) -> None:
        """Closes the ports here; the processes that inherited them keep listening."""
        for listener in self.listeners.values():
            os.close(listener)
        self.listeners.clear()
