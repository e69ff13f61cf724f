"""Hosts of a Ray cluster, with a driver that has no cluster."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.errors import (
    ConfigError,
    DeadlineError,
    HostUnreachableError,
    PreflightError,
    TianJiError,
)
from tests.helpers.fake_ray_driver import EXCUSE
from tianji_cli.config.inventory import Host
from tianji_cli.config.inventory_schema import RaySpec
from tianji_cli.connectors.ray_cluster import connection, hosts
from tianji_cli.connectors.ray_cluster.hosts import RayHosts, address_of, reservation_of
from tianji_cli.connectors.ray_cluster.orders import Order, Reservation

CLUSTER = "192.0.2.1:6379"


def host(name: str = "ray1", **more: object) -> Host:
    known: dict[str, object] = {"address": "", "ports": None, "ray": RaySpec(address=CLUSTER)}
    return msgspec.convert({"name": name, "connection": "ray", **known, **more}, Host)


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[Order]]:
    """The orders that drivers were given, which do as they are told."""
    log = tmp_path / "orders"
    monkeypatch.setattr(connection, "DRIVER", "tests.helpers.fake_ray_driver")
    monkeypatch.setattr(hosts, "require_ray", lambda host: None)
    monkeypatch.setenv("FAKE_RAY_LOG", str(log))
    monkeypatch.setenv("FAKE_RAY", "run")
    return lambda: [msgspec.json.decode(line, type=Order) for line in log.read_bytes().splitlines()]


def refused(reach: RayHosts, wanted: Host, kind: type[TianJiError]) -> TianJiError:
    with pytest.raises(kind) as caught:
        reach.connect(wanted, threading.Event())
    return caught.value


def test_hosts_of_a_cluster_are_placed_together_and_visited_afterwards(
    orders: Callable[[], list[Order]],
) -> None:
    one, two = host("a", cores=3, gpus=[0, 2]), host("b")
    reach = RayHosts([one, two])
    nodes = [reach.connect(item, threading.Event()) for item in (one, two)]
    assert [node.access.address for node in nodes] == ["192.0.2.10", "192.0.2.11"]
    (order,) = orders()
    assert order.reservations == (
        Reservation(host="a", num_cpus=3, num_gpus=3),
        Reservation(host="b", num_cpus=1),
    )
    assert (order.address, order.is_open, order.is_visit) == (CLUSTER, False, False)
    assert nodes[0].run(["printf", "%s", "said"], 10).stdout == "said"
    again = msgspec.structs.replace(one, address="192.0.2.10")
    visitor = reach.connect(again, threading.Event())
    assert orders()[1].reservations == (Reservation(host="a", address="192.0.2.10"),)
    assert orders()[1].is_visit
    for node in (*nodes, visitor):
        node.close()


def test_a_keeper_that_ends_tells_why(orders: Callable[[], list[Order]]) -> None:
    wanted = host()
    node = RayHosts([wanted]).connect(wanted, threading.Event())
    connected = node.spawn(["sh", "-c", "kill -KILL $PPID; cat"], {})
    assert os.read(connected.from_supervisor, 100) == b""
    with pytest.raises(HostUnreachableError, match="its keeper ended"):
        node.run(["true"], 5)
    node.close()


def test_what_the_driver_says_is_the_error_of_every_host(
    orders: Callable[[], list[Order]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_RAY", "refuse")
    one, two = host("a"), host("b")
    reach = RayHosts([one, two])
    for item in (one, two):
        error = refused(reach, item, PreflightError)
        assert (error.what, error.fix) == ("no token", "get one")
        assert CLUSTER in error.where
    assert len(orders()) == 1


def test_a_driver_that_dies_or_says_nothing_is_an_error(
    orders: Callable[[], list[Order]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_RAY", "die")
    assert EXCUSE in refused(RayHosts([host()]), host(), HostUnreachableError).what
    monkeypatch.setenv("FAKE_RAY", "silent")
    monkeypatch.setattr(connection, "ANSWER_S", 0.2)
    assert "did not answer" in refused(RayHosts([host()]), host(), DeadlineError).what
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(PreflightError, match="another host failed"):
        RayHosts([host()]).connect(host(), cancel)


def test_where_the_cluster_is_comes_from_the_inventory_or_from_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(hosts.VARIABLE, "192.0.2.7:6379")
    assert address_of(host()) == CLUSTER
    assert address_of(host(ray=None)) == "192.0.2.7:6379"
    for text in ("http://192.0.2.7:8265", "ray://192.0.2.7:10001", "192.0.2.7", "head:http"):
        monkeypatch.setenv(hosts.VARIABLE, text)
        with pytest.raises(ConfigError, match="is not HOST:PORT"):
            address_of(host(ray=None))
    monkeypatch.delenv(hosts.VARIABLE)
    with pytest.raises(ConfigError, match="nothing says where"):
        address_of(host(ray=None))


def test_an_address_asks_for_that_node() -> None:
    assert reservation_of(host(address="192.0.2.9", gpus=[])) == Reservation(
        host="ray1", num_cpus=1, address="192.0.2.9"
    )


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = refused(RayHosts([host()]), host(), ConfigError)
    assert "tianji-rl[ray]" in error.fix
