"""Free ports for tests."""

from __future__ import annotations

from engine.host.ports import listen_on

ANY_PORT = range(1)
"""Any port, chosen by the kernel."""


def find_free_ports(address: str, ports: range, count: int) -> list[int]:
    """The first `count` free ports of a range.

    Raises:
        PreflightError: As of `listen_on`.
    """
    listeners = listen_on(address, ports, count)
    found = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return found
