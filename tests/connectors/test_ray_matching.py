"""Which hosts fit on which nodes, and who is let in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import VersionMismatchError
from tianji_cli.connectors.ray_cluster.identity import (
    Visit,
    check_releases,
    first_line,
    settle_mode,
)
from tianji_cli.connectors.ray_cluster.matching import (
    ClusterNode,
    node_of,
    resources_of,
    unplaced,
    words_of_nodes,
)
from tianji_cli.connectors.ray_cluster.orders import Reservation

SIZES = st.tuples(st.integers(0, 3), st.integers(0, 2))


def most_placed(reservations: list[Reservation], nodes: list[ClusterNode]) -> int:
    """By trying every assignment."""
    places = [*nodes, *[None] * len(reservations)]
    return max(
        sum(
            node is not None and node.holds(b)
            for b, node in zip(reservations, chosen, strict=False)
        )
        for chosen in itertools.permutations(places, len(reservations))
    )


@given(st.lists(SIZES, max_size=3), st.lists(SIZES, max_size=3))
def test_as_many_hosts_get_a_node_as_can(
    wanted: list[tuple[int, int]], there: list[tuple[int, int]]
) -> None:
    reservations = [
        Reservation(host=str(n), num_cpus=c, num_gpus=g) for n, (c, g) in enumerate(wanted)
    ]
    nodes = [ClusterNode(str(n), f"192.0.2.{n}", c, g) for n, (c, g) in enumerate(there)]
    assert len(reservations) - len(unplaced(reservations, nodes)) == most_placed(
        reservations, nodes
    )


def test_an_address_is_only_met_by_that_node() -> None:
    nodes = [ClusterNode("x", "192.0.2.1", 8, 0), ClusterNode("y", "192.0.2.2", 2, 1)]
    free, fixed = (
        Reservation(host="a", num_cpus=1),
        Reservation(host="b", num_cpus=1, address="192.0.2.1"),
    )
    assert unplaced([free, fixed], nodes) == []
    large = Reservation(host="b", num_cpus=4, address="192.0.2.2")
    assert unplaced([free, large], nodes) == [large]
    assert resources_of(fixed) == {"CPU": 1, "node:192.0.2.1": 0.001}
    assert words_of_nodes(nodes) == "192.0.2.1 (8 CPUs), 192.0.2.2 (2 CPUs, 1 GPU)"
    assert words_of_nodes(nodes * 5).endswith("and 2 more")


def test_a_node_without_cpus_has_none() -> None:
    record = {"NodeID": "x", "NodeManagerAddress": "192.0.2.1", "Resources": {"GPU": 2.0}}
    assert node_of(record) == ClusterNode("x", "192.0.2.1", 0, 2)


def test_a_token_is_shown_if_there_is_one() -> None:
    assert settle_mode({}, has_file=False) == "disabled"
    assert settle_mode({}, has_file=True) == "token"
    assert settle_mode({"RAY_AUTH_TOKEN_PATH": "/x"}, has_file=False) == "token"
    assert settle_mode({"RAY_AUTH_MODE": "disabled"}, has_file=True) == "disabled"


def test_another_release_of_ray_or_python_is_named() -> None:
    found = Visit(is_refused=False, ray_version="2.60.0", python_version="3.11.7")
    check_releases(found, "2.60.0", "3.11.7")
    for here in (("2.61.0", "3.11.7"), ("2.60.0", "3.11.8")):
        with pytest.raises(VersionMismatchError, match=r"2\.60\.0 on Python 3\.11\.7") as caught:
            check_releases(found, *here)
        assert "ray==2.60.0" in caught.value.fix


def test_of_a_page_of_errors_one_line_is_kept() -> None:
    assert first_line(ValueError("\n  what \nhow\n")) == "what"
    assert first_line(KeyError()) == "KeyError"
