"""Connects to the hosts of an inventory, each with the connector that it names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from engine.errors import ConfigError
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Node
from tianji_cli.connectors.ray_cluster.hosts import RayHosts

Connect = Callable[[Host, threading.Event], Node]


class Reach:
    """Connects to hosts.

    Args:
        hosts: Those of a new run: the manager of a cluster is asked for all of them at once. Any
            other host is that of a run which is there already.
    """

    def __init__(self, hosts: Sequence[Host] = ()) -> None:
        self._ray = RayHosts(hosts)

    def __call__(self, host: Host, cancel: threading.Event) -> Node:
        """The host; `cancel` ends waits.

        Raises:
            TianJiError: As its connector says.
        """
        if host.connection == "local":
            from tianji_cli.connectors.local import LocalNode

            return LocalNode(host.name)
        if host.connection == "slurm":
            from tianji_cli.connectors.slurm import slurm_node

            return slurm_node(host)
        if host.connection == "ray":
            return self._ray.connect(host, cancel)
        from tianji_cli.connectors.ssh import SshNode

        return SshNode(host, cancel)


def connect(host: Host, cancel: threading.Event) -> Node:
    """Connects to a host of a run that is there already; see `Reach`."""
    return Reach()(host, cancel)


def place_of(host: Host) -> str:
    """Where a host is, for the user."""
    if host.connection == "ray":
        return "a node of Ray" + (f" {host.ray.address}" if host.ray and host.ray.address else "")
    return f"Slurm job {host.job}" if host.job else host.ssh_host or "this machine"


def with_address(host: Host, node: Node) -> Host:
    """Sets the data-plane address of a host if the inventory gives none."""
    if host.address or not node.is_remote:
        return host
    if node.access.jump:
        raise ConfigError(
            "behind a jump host, TianJi cannot guess how other hosts reach it",
            where=host.name,
            fix="add `address:` to the inventory",
        )
    return msgspec.structs.replace(host, address=node.access.address)
