"""Asks the cluster for one node per host, and puts the actor on each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from engine.errors import DeadlineError, HostUnreachableError, PreflightError
from engine.wording import plural
from tianji_cli.connectors.ray_cluster import carrier
from tianji_cli.connectors.ray_cluster.identity import first_line
from tianji_cli.connectors.ray_cluster.matching import (
    MAX_SHOWN,
    ClusterNode,
    node_of,
    resources_of,
    unplaced,
    words_of,
    words_of_nodes,
)
from tianji_cli.connectors.ray_cluster.orders import Order, Reservation

FREE_S = 20.0
"""How long to wait for nodes that others use now."""
COME_S = 3.0
"""How long to wait for nodes that the cluster does not have: one can just be joining."""
START_S = 30.0
LOOK_S = 0.5
NUM_THREADS = 4
"""Of an actor: one carries output, one input, and one is asked for last words."""


def read_nodes() -> list[ClusterNode]:
    """The nodes of the cluster that are alive."""
    return [node_of(record) for record in ray.nodes() if record["Alive"]]


def place(order: Order) -> tuple[list[Any], tuple[str, ...]]:
    """An actor on each node.

    Returns:
        The actors' handles, and the nodes' addresses.

    Raises:
        PreflightError: There are not enough nodes, or not enough free ones.
        HostUnreachableError: A node is gone.
        DeadlineError: An actor does not start in time.
    """
    ray.cloudpickle.register_pickle_by_value(carrier)
    actors = _visitors(order.reservations) if order.is_visit else _residents(order.reservations)
    try:
        addresses = ray.get([actor.where.remote() for actor in actors], timeout=START_S)
    except ray.exceptions.GetTimeoutError as error:
        raise DeadlineError(
            f"Ray has started no worker within {START_S:.0f} s", fix="see `ray status`"
        ) from error
    except ray.exceptions.RayError as error:
        raise HostUnreachableError(f"Ray lost a worker: {first_line(error)}") from error
    return actors, tuple(addresses)


def _actor(strategy: object, reservation: Reservation) -> Any:  # noqa: ANN401 - a handle of Ray
    kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=NUM_THREADS)(
        carrier.Carrier
    )
    return kind.options(
        num_cpus=reservation.num_cpus, num_gpus=reservation.num_gpus, scheduling_strategy=strategy
    ).remote()


def _residents(reservations: Sequence[Reservation]) -> list[Any]:
    """Actors on nodes that are reserved, no two on one."""
    group = placement_group(
        [resources_of(reservation) for reservation in reservations], "STRICT_SPREAD"
    )
    began_s = time.monotonic()
    while not group.wait(LOOK_S):
        waited_s = time.monotonic() - began_s
        nodes = read_nodes()
        if left := unplaced(reservations, nodes):
            if waited_s > COME_S:
                raise _too_few(left, reservations, nodes)
        elif waited_s > FREE_S:
            raise _in_use(reservations)
    return [
        _actor(PlacementGroupSchedulingStrategy(group, number), reservation)
        for number, reservation in enumerate(reservations)
    ]


def _visitors(reservations: Sequence[Reservation]) -> list[Any]:
    """Actors that reserve nothing, on the nodes of these addresses."""
    ids = {node.address: node.id for node in read_nodes()}
    for reservation in reservations:
        if reservation.address not in ids:
            raise HostUnreachableError(
                f"the Ray cluster has no node {reservation.address} any more",
                fix="see `ray status`",
            )
    return [
        _actor(
            NodeAffinitySchedulingStrategy(ids[reservation.address], soft=False),
            Reservation(host=reservation.host),
        )
        for reservation in reservations
    ]


def _too_few(
    left: Sequence[Reservation], reservations: Sequence[Reservation], nodes: Sequence[ClusterNode]
) -> PreflightError:
    lacking = "; ".join(
        f"{reservation.host} wants {words_of(reservation)}" for reservation in left[:MAX_SHOWN]
    )
    return PreflightError(
        f"the Ray cluster has no node for {len(left)} of {plural(len(reservations), 'host')}, each"
        f" of which needs one of its own: {lacking}; alive: {words_of_nodes(nodes)}",
        fix="start more nodes (ray start --address ...), or ask for fewer hosts, `cores` or `gpus`",
    )


def _in_use(reservations: Sequence[Reservation]) -> PreflightError:
    free, total = ray.available_resources(), ray.cluster_resources()
    words = ", ".join(
        f"{free.get(name, 0):.0f} of {total[name]:.0f} {name}s"
        for name in ("CPU", "GPU")
        if total.get(name)
    )
    return PreflightError(
        f"the Ray cluster did not get {plural(len(reservations), 'node')} free within"
        f" {FREE_S:.0f} s: {words} are free",
        fix="see `ray status`; wait until others are done, or ask for fewer `cores`",
    )
