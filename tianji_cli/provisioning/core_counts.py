"""Asks the hosts of an inventory how many cores a run may use there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.host.host_probe import num_cores
from tianji_cli.config.inventory import Host
from tianji_cli.provisioning.bundle import pinned_constraints
from tianji_cli.provisioning.environment import find_interpreter
from tianji_cli.provisioning.reaching import Connect


def core_counts(hosts: Sequence[Host], reach: Connect) -> dict[str, int]:
    """The cores of each host, at most those that the inventory states; 1 if `are_unknown`.

    Hosts of a cluster's manager have what it gives; others that are not this machine are connected
    to, all at once.

    Args:
        hosts: Of one inventory.
        reach: Makes a connection.

    Raises:
        TianJiError: A host cannot be reached, or has no Python that a run could use.
    """
    asked = [host for host in hosts if host.connection == "ssh" and host.cores is None]
    with ThreadPoolExecutor(max_workers=max(len(asked), 1)) as pool:
        counts = list(pool.map(partial(_ask, reach), asked))
    answers = {host.name: count for host, count in zip(asked, counts, strict=True)}
    return {
        host.name: _least(
            host.cores, num_cores() if host.connection == "local" else answers.get(host.name)
        )
        for host in hosts
    }


def are_unknown(host: Host) -> bool:
    """Whether nobody says how many cores a host has: not it, before a run, nor its inventory."""
    return host.cores is None and host.connection not in ("local", "ssh")


def _ask(reach: Connect, host: Host) -> int:
    node = reach(host, threading.Event())
    try:
        return find_interpreter(node, host, pinned_constraints()).facts.num_cores
    finally:
        node.close()


def _least(stated: int | None, found: int | None) -> int:
    """The smaller number of those that are known; 1 if none is."""
    return max(min((count for count in (stated, found) if count is not None), default=1), 1)
