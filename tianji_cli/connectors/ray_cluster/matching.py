"""Which hosts fit on which nodes of a cluster, each on a node of its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.wording import plural
from tianji_cli.connectors.ray_cluster.orders import Reservation

MAX_SHOWN = 8


@dataclass(frozen=True)
class ClusterNode:
    """A node that is alive.

    Attributes:
        id: Ray's own name for it.
        address: Its own address.
        num_cpus, num_gpus: All that it has.
    """

    id: str
    address: str
    num_cpus: int
    num_gpus: int

    def holds(self, reservation: Reservation) -> bool:
        """Whether the reservation could be on it if nothing else were."""
        is_asked = reservation.address in ("", self.address)
        return is_asked and (
            reservation.num_cpus <= self.num_cpus and reservation.num_gpus <= self.num_gpus
        )


def node_of(record: Mapping[str, Any]) -> ClusterNode:
    """A node from Ray's record of it."""
    resources = record["Resources"]
    return ClusterNode(
        id=record["NodeID"],
        address=record["NodeManagerAddress"],
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
    )


def unplaced(
    reservations: Sequence[Reservation], nodes: Sequence[ClusterNode]
) -> list[Reservation]:
    """The reservations for which no node is left, each on a node of its own.

    A largest matching by augmenting paths (Kuhn), so that a small one never takes the only node of
    a large one.
    """
    taken: dict[str, Reservation] = {}

    def find(reservation: Reservation, tried: set[str]) -> bool:
        for node in nodes:
            if node.id in tried or not node.holds(reservation):
                continue
            tried.add(node.id)
            if node.id not in taken or find(taken[node.id], tried):
                taken[node.id] = reservation
                return True
        return False

    return [reservation for reservation in reservations if not find(reservation, set())]


def words_of(reservation: Reservation) -> str:
    """
    >>> words_of(Reservation(host="a", num_cpus=2, num_gpus=1, address="10.0.0.7"))
    '2 CPUs, 1 GPU at 10.0.0.7'
    """
    place = f" at {reservation.address}" if reservation.address else ""
    return _words(reservation.num_cpus, reservation.num_gpus) + place


def _words(num_cpus: int, num_gpus: int) -> str:
    return plural(num_cpus, "CPU") + (f", {plural(num_gpus, 'GPU')}" if num_gpus else "")


def words_of_nodes(nodes: Sequence[ClusterNode]) -> str:
    """The nodes of a cluster, for errors."""
    shown = [
        f"{node.address} ({_words(node.num_cpus, node.num_gpus)})" for node in nodes[:MAX_SHOWN]
    ]
    rest = [f"and {len(nodes) - MAX_SHOWN} more"] if len(nodes) > MAX_SHOWN else []
    return ", ".join([*shown, *rest]) or "none"


def resources_of(reservation: Reservation) -> dict[str, float]:
    """A reservation as Ray writes it; every node has a resource that is named by its address."""
    wanted: dict[str, float] = {"CPU": reservation.num_cpus, "GPU": reservation.num_gpus}
    if reservation.address:
        wanted[f"node:{reservation.address}"] = 0.001
    return {name: amount for name, amount in wanted.items() if amount}
