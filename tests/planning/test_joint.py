"""Where learners of one update meet: on one host, in a ring, or in a trusted network."""

from __future__ import annotations

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.wire.socket_factory import Link
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.inventory_file import as_file
from tianji_cli.config.inventory_schema import Network
from tianji_cli.config.lookup import find_file
from tianji_cli.planning.joint import ring_of, store_of, words_of_joint
from tianji_cli.planning.plan import Plan, make_plan
from tianji_cli.planning.wiring import HostSetup, most_connections, servers_on, ways_of, wire

THREE = ("a", "b", "c")


def joint_plan(
    *names: str,
    actors: int | None = 5,
    network: Network = "encrypted",
    policy: str = "multi-learner",
) -> Plan:
    settings = [f"policy={policy}", *([] if actors is None else [f"actors={actors}"])]
    experiment, _ = load_experiment(find_file("experiments", "cartpole_ppo"), settings)
    hosts = tuple(
        Host(
            name=name,
            connection="ssh",
            ssh_host=name,
            address=f"192.0.2.{number}",
            ports=(29500, 29600),
        )
        for number, name in enumerate(names, start=1)
    )
    inventory = Inventory(source="hosts.yaml", hosts=hosts, network=network)
    return make_plan(experiment, inventory, has_actors_stated=actors is not None)


def setups_of(plan: Plan) -> dict[str, HostSetup]:
    return {
        each.name: HostSetup(
            endpoints=tuple(
                f"tcp://{each.address}:{29500 + n}" for n in range(len(servers_on(plan, each.name)))
            ),
            run_dir="/shared/runs/r",
            address=each.address,
            public_keys={
                name: "k" * 40
                for name, on in (plan.host_of | {s: h for h, s in plan.supervisors.items()}).items()
                if on == each.name
            },
        )
        for each in plan.hosts
    }


def test_one_learner_of_each_host_is_in_the_ring_and_listens_for_the_one_before() -> None:
    plan = joint_plan(*THREE)
    assert ring_of(plan) == ("worker-0", "worker-1", "worker-2")
    assert store_of(plan) is None
    assert servers_on(plan, "a") == ["coordinator", "worker-0~meeting"]
    assert servers_on(plan, "b") == ["worker-1~meeting"]
    assert most_connections(plan, "b") >= 1
    assert ways_of(plan) == {"a": ["b"], "b": ["a", "c"], "c": ["a"]}
    launches = wire(plan, setups_of(plan), "r")
    workers = {worker.address: worker for name in THREE for worker in launches[name].workers}
    seat = workers["worker-1"].ring
    assert seat is not None
    assert (seat.position, seat.count, seat.left) == (1, 3, "worker-0")
    assert seat.bind == "tcp://192.0.2.2:29500"
    assert seat.right == Link(peer="worker-2", endpoint="tcp://192.0.2.3:29500")
    assert seat.hosts == {"worker-0": "a", "worker-2": "c"}
    assert workers["worker-1"].endpoints == (seat.bind,)
    assert workers["worker-3"].ring is None, "it is beside worker-0"
    meetings = [launches[name].common.rendezvous for name in THREE]
    assert [place.learners for place in meetings if place] == [(0, 3), (1, 4), (2,)]
    files = {place.file for place in meetings if place}
    assert len(files) == 3, "hosts can share a disk"


def test_on_one_host_nothing_listens_for_learners() -> None:
    plan = joint_plan("a", actors=3)
    assert ring_of(plan) == ()
    assert servers_on(plan, "a") == ["coordinator"]
    launch = wire(plan, setups_of(plan), "r")["a"]
    assert all(worker.ring is None and not worker.store for worker in launch.workers)
    place = launch.common.rendezvous
    assert place is not None
    assert (place.learners, place.store) == ((0, 1, 2), "")


def test_in_a_trusted_network_the_first_learner_serves_the_store() -> None:
    plan = joint_plan(*THREE, network="trusted")
    assert ring_of(plan) == ()
    assert servers_on(plan, "a") == ["coordinator", "worker-0~meeting"]
    assert servers_on(plan, "b") == []
    launches = wire(plan, setups_of(plan), "r")
    place = launches["b"].common.rendezvous
    assert place is not None
    assert (place.store, place.address) == ("tcp://192.0.2.1:29501", "192.0.2.2")
    served = [w.address for name in THREE for w in launches[name].workers if w.store]
    assert served == ["worker-0"]


def test_learners_that_update_alone_do_not_meet() -> None:
    plan = joint_plan(*THREE, policy="tianji")
    assert (ring_of(plan), store_of(plan), words_of_joint(plan)) == ((), None, [])
    assert all(item.common.rendezvous is None for item in wire(plan, setups_of(plan), "r").values())


@pytest.mark.parametrize(
    ("hosts", "network", "lines"),
    [
        (
            ("a", "b"),
            "encrypted",
            [
                "encrypted ring: worker-0 (a) -> worker-1 (b) -> worker-0 (a)",
                "loopback of a: worker-0, worker-2, worker-4",
                "loopback of b: worker-1, worker-3",
            ],
        ),
        (("a",), "encrypted", ["loopback of a: worker-0, worker-1, worker-2, worker-3, worker-4"]),
        (("a", "b"), "trusted", ["torch.distributed, not encrypted: a, b; they meet at a"]),
    ],
)
def test_who_meets_whom_is_said(hosts: tuple[str, ...], network: Network, lines: list[str]) -> None:
    assert words_of_joint(joint_plan(*hosts, network=network)) == lines


def test_without_a_number_of_actors_every_host_has_a_learner() -> None:
    plan = joint_plan("a", "b", "c", "d", actors=None)
    assert plan.experiment.actors == 4
    assert len({plan.host_of[f"worker-{number}"] for number in range(4)}) == 4


def test_a_written_inventory_keeps_its_network() -> None:
    plan = joint_plan("a", "b", network="trusted")
    assert msgspec.to_builtins(as_file(plan.inventory))["network"] == "trusted"
