"""The hosts of a command that are nodes of Ray clusters.

All of them that are in one cluster are placed together by one driver, so that no two are on one
node. Whoever comes to a host again, since its connection broke or since it belongs to a run of
another command, comes as a visitor, who reserves nothing.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Sequence

import msgspec

from engine.errors import ConfigError, HostUnreachableError, TianJiError
from tianji_cli.config.inventory import Host
from tianji_cli.config.inventory_checks import check_cluster
from tianji_cli.connectors.base import AccessFacts
from tianji_cli.connectors.piped.link import KeeperLink, KeeperNotStartedError, start_keeper
from tianji_cli.connectors.piped.node import PipedNode
from tianji_cli.connectors.ray_cluster.connection import RayChannel, RayDriver
from tianji_cli.connectors.ray_cluster.orders import Reservation

VARIABLE = "RAY_ADDRESS"


class RayHosts:
    """See the module's first lines.

    Args:
        hosts: Those that the command reserves.
    """

    def __init__(self, hosts: Sequence[Host] = ()) -> None:
        self._reserved = [host for host in hosts if host.connection == "ray"]
        self._lock = threading.Lock()
        self._seats: dict[str, tuple[RayChannel, str]] = {}
        """Of hosts that were placed and not yet connected: channel, and address of the node."""
        self._failures: dict[str, TianJiError] = {}

    def connect(self, host: Host, cancel: threading.Event) -> PipedNode:
        """A host, with a keeper that runs.

        Raises:
            ConfigError: Ray is not installed, or nothing says where the cluster is.
            TianJiError: As the driver says; or there is no answer in time, or no keeper starts.
        """
        require_ray(host)
        address = address_of(host)
        with self._lock:
            if host in self._reserved:
                self._place(address, cancel)
            seat = self._seats.pop(host.name, None)
        if seat is None:
            seat = _visit(host, address, cancel)
        return _begin(host, address, *seat)

    def _place(self, address: str, cancel: threading.Event) -> None:
        """Places all reserved hosts of a cluster; they are then not reserved any more."""
        if address in self._failures:
            raise self._failures[address]
        hosts = [host for host in self._reserved if address_of(host) == address]
        reservations = [reservation_of(host) for host in hosts]
        driver = RayDriver(address, reservations, is_open=all(map(_is_open, hosts)))
        try:
            addresses = driver.await_nodes(cancel)
        except TianJiError as error:
            self._failures[address] = error
            raise
        for host, channel, found in zip(hosts, driver.channels, addresses, strict=True):
            self._seats[host.name] = channel, found
        self._reserved = [host for host in self._reserved if host not in hosts]


def _begin(host: Host, cluster: str, channel: RayChannel, address: str) -> PipedNode:
    """A host that was placed, once its keeper answers."""
    endpoint = f"node {address} of Ray cluster {cluster}"

    def start() -> KeeperLink:
        try:
            return start_keeper(host.name, channel.begin)
        except KeeperNotStartedError as error:
            raise HostUnreachableError(
                f"no keeper started on {endpoint}: {error.said or 'it said nothing'}",
                where=host.name,
                fix="see `ray status`",
            ) from error

    node = PipedNode(host.name, start, AccessFacts(user="", endpoint=endpoint, address=address))
    node.access = msgspec.structs.replace(node.access, user=str(node.link.facts["user"]))
    return node


def reservation_of(host: Host) -> Reservation:
    """What a host of an inventory asks for: its cores, and GPUs up to the highest number."""
    return Reservation(
        host=host.name,
        num_cpus=host.cores or 1,
        num_gpus=max(host.gpus or (), default=-1) + 1,
        address=host.address,
    )


def address_of(host: Host) -> str:
    """`HOST:PORT` of the cluster that a host is in.

    Raises:
        ConfigError: Neither the inventory nor Ray's own variable says it.
    """
    address = (host.ray.address if host.ray else None) or os.environ.get(VARIABLE, "")
    if not address:
        raise ConfigError(
            "nothing says where the Ray cluster is",
            where=host.name,
            fix=f"write `ray: {{address: HOST:6379}}` into the inventory, or set {VARIABLE}",
        )
    check_cluster(address, host.name)
    return address


def _is_open(host: Host) -> bool:
    return host.ray is not None and host.ray.without_token


def _visit(host: Host, address: str, cancel: threading.Event) -> tuple[RayChannel, str]:
    if not host.address:
        raise HostUnreachableError("nothing says which node of the Ray cluster it was")
    reservation = Reservation(host=host.name, address=host.address)
    driver = RayDriver(address, [reservation], is_open=_is_open(host), is_visit=True)
    return driver.channels[0], driver.await_nodes(cancel)[0]


def require_ray(host: Host) -> None:
    """Raises ConfigError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "`connection: ray` needs ray, which is not installed",
            where=host.name,
            fix="pip install 'tianji-rl[ray]', with the release of ray that the cluster runs",
        )
