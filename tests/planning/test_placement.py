"""Which process goes where, and how they are wired."""

from __future__ import annotations

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, PreflightError
from engine.wire.keys import make_pair
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.planning.plan import Plan, make_plan, notes_of
from tianji_cli.planning.wiring import HostSetup, servers_on, wire


def host(name: str, **more: object) -> Host:
    given = {"connection": "ssh", "ssh_host": name, "address": "192.0.2.1", "ports": (29500, 29600)}
    return msgspec.convert({"name": name, **given, **more}, Host)


def plan(*hosts: Host, actors: int = 3, policy: str = "tianji", more: tuple[str, ...] = ()) -> Plan:
    settings = [f"actors={actors}", f"policy={policy}", *more]
    experiment, _ = load_experiment(find_file("experiments", "cartpole_ppo"), settings)
    return make_plan(experiment, Inventory(source="hosts.yaml", hosts=hosts))


def where(made: Plan) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for placement in made.placements:
        found.setdefault(placement.host, []).append(placement.process)
    return found


def test_one_host_takes_everything() -> None:
    assert where(plan(host("a"))) == {
        "a": ["coordinator", "actor-0", "actor-1", "actor-2", "buffer-0", "learner-0"]
    }


def test_actors_spread_over_the_other_hosts() -> None:
    made = plan(host("a"), host("b"), host("c"), actors=3)
    assert where(made) == {
        "a": ["coordinator", "buffer-0", "learner-0"],
        "b": ["actor-0", "actor-2"],
        "c": ["actor-1"],
    }
    assert [item.name for item in made.hosts] == ["a", "b", "c"]


def test_a_host_with_gpus_takes_the_learner() -> None:
    made = plan(host("a"), host("b", gpus=(0,)), actors=1)
    assert where(made) == {"b": ["coordinator", "buffer-0", "learner-0"], "a": ["actor-0"]}
    assert made.hosts[0].name == "b"


def test_the_host_with_most_gpus_takes_the_learner() -> None:
    made = plan(host("a", gpus=(0,)), host("b", gpus=(0, 1)), actors=1)
    assert where(made)["b"] == ["coordinator", "buffer-0", "learner-0"]


def test_actors_and_groups_are_dealt_out_by_cores_where_all_are_stated() -> None:
    hosts = (host("a", cores=4), host("b", cores=2), host("c", cores=6))
    found = where(plan(*hosts, actors=8))
    assert (len(found["b"]), len(found["c"])) == (2, 6)
    groups = where(plan(host("a", cores=2), host("b", cores=4), actors=3, more=("groups=3",)))
    assert [len([p for p in groups[name] if "learner" in p]) for name in "ab"] == [1, 2]
    unknown = (host("a"), host("b", cores=2), host("c"))
    assert len(where(plan(*unknown, actors=8))["b"]) == 4, "in turn"


def test_an_evaluator_stays_with_the_learner_unless_it_is_named() -> None:
    evaluates = ("evaluation.episodes=3",)
    made = plan(host("a"), host("b"), actors=1, more=evaluates)
    assert where(made)["a"] == ["coordinator", "buffer-0", "learner-0", "evaluator-0"]
    made = plan(host("a"), host("b", roles={"evaluator": 1}), actors=1, more=evaluates)
    assert where(made)["b"] == ["evaluator-0"]


def test_named_roles_are_honoured_and_set_the_number_of_actors() -> None:
    made = plan(
        host("a", roles={"learner": 1, "buffer": 1, "actor": 1}),
        host("b", roles={"actor": 2}),
        host("c", roles={"coordinator": 1}),
        actors=7,
    )
    assert made.experiment.actors == 3
    assert where(made) == {
        "c": ["coordinator"],
        "a": ["actor-0", "buffer-0", "learner-0"],
        "b": ["actor-1", "actor-2"],
    }


def test_partly_named_roles_are_completed() -> None:
    made = plan(host("a"), host("b", roles={"learner": 1}), host("c"), actors=2)
    assert made.host_of["learner-0"] == "b"
    assert made.host_of["coordinator"] == "b"
    assert made.host_of["actor-0"] == "c"


def test_too_many_learners_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 learner roles are named"):
        plan(host("a", roles={"learner": 1}), host("b", roles={"learner": 1}))


def test_one_process_needs_no_other_host() -> None:
    with pytest.raises(ConfigError, match="one process"):
        plan(host("a"), policy="local")


def test_several_hosts_need_ports() -> None:
    made = plan(host("a", ports=None), host("b"))
    with pytest.raises(ConfigError, match="needs TCP ports"):
        made.listen_of(made.hosts[0])


def test_one_host_behind_ssh_uses_unix_sockets() -> None:
    made = plan(host("a"))
    assert made.listen_of(made.hosts[0]) is None


def test_wiring_has_keys_for_every_member_and_offsets_for_every_worker() -> None:
    made = plan(host("a"), host("b", address="192.0.2.2"), actors=1)
    assert servers_on(made, "a") == ["coordinator", "buffer-0", "learner-0"]
    assert servers_on(made, "b") == []
    setups = {
        "a": HostSetup(
            endpoints=tuple(f"tcp://192.0.2.1:{port}" for port in (29500, 29501, 29502)),
            run_dir="/home/x/.tianji/runs/r",
            public_keys=keys_of("coordinator", "buffer-0", "learner-0", "supervisor-0"),
        ),
        "b": HostSetup(
            endpoints=(),
            run_dir="/r",
            public_keys=keys_of("actor-0", "supervisor-1") | {"learner-0": "f" * 40},
            clock_offset_ns=5,
        ),
    }
    launches = wire(made, setups, "r")
    assert [w.address for w in launches["b"].workers] == ["actor-0"]
    (actor,) = launches["b"].workers
    common = launches["b"].common
    assert common.clock_offset_ns == 5
    assert common.log_of(actor.address) == "/r/logs/b/actor-0.log"
    assert common.supervisors == ("supervisor-0", "supervisor-1")
    assert common.host_of == {}, "the coordinator alone speaks of hosts"
    at_coordinator = launches["a"].common.host_of
    assert (at_coordinator["actor-0"], at_coordinator["supervisor-1"]) == ("b", "b")
    assert (at_coordinator["coordinator"], at_coordinator["supervisor-0"]) == ("a", "a")
    assert {link.peer for link in actor.links} == {"buffer-0", "learner-0", "coordinator"}
    pair = make_pair()
    keyring = common.wiring_of(actor, pair).keyring
    assert keyring is not None
    assert keyring.own is pair
    reported = setups["a"].public_keys | setups["b"].public_keys
    assert keyring.members == reported | {"learner-0": setups["a"].public_keys["learner-0"]}, (
        "a host speaks for its own processes only"
    )
    assert launches["a"].common.members == keyring.members
    for none in ("", "0" * 40):  # the second has the right length, and no secret comes of it
        setups["b"].public_keys["actor-0"] = none
        with pytest.raises(PreflightError, match="no key of actor-0") as caught:
            wire(made, setups, "r")
        assert caught.value.where == "b"


def keys_of(*names: str) -> dict[str, str]:
    return {name: make_pair().public for name in names}


def automatic(*hosts: Host, policy: str = "tianji", more: tuple[str, ...] = ()) -> Plan:
    """Without a word on actors."""
    settings = [f"policy={policy}", *more]
    experiment, document = load_experiment(find_file("experiments", "cartpole_ppo"), settings)
    assert "actors" not in document.data
    inventory = Inventory(source="hosts.yaml", hosts=hosts)
    return make_plan(experiment, inventory, has_actors_stated=False)


@pytest.mark.parametrize(
    ("num_hosts", "groups", "actors"),
    [(1, 1, 2), (2, 1, 2), (4, 1, 3), (8, 1, 7), (2, 2, 2), (4, 2, 2), (5, 2, 4), (7, 2, 6)],
)
def test_by_default_every_host_has_work(num_hosts: int, groups: int, actors: int) -> None:
    hosts = [host(f"h{number}") for number in range(num_hosts)]
    made = automatic(*hosts, more=(f"groups={groups}",))
    assert made.experiment.actors == actors
    assert set(where(made)) == {item.name for item in hosts}
    assert notes_of(made, None) == []


def test_a_group_has_its_actors_beside_its_learners_host() -> None:
    hosts = [host(f"h{number}") for number in range(8)]
    found = where(plan(*hosts, actors=4, more=("groups=4",)))
    for group in range(4):
        assert f"learner-{group}" in found[f"h{group}"]
        assert found[f"h{group + 4}"] == [f"actor-{group}"]


def test_learners_of_groups_take_the_hosts_with_gpus() -> None:
    hosts = (host("a"), host("b", gpus=(0,)), host("c"), host("d", gpus=(0,)))
    found = where(plan(*hosts, actors=2, more=("groups=2",)))
    assert {name for name, roles in found.items() if any("learner" in r for r in roles)} == {
        "b",
        "d",
    }


def test_what_is_not_used_is_said() -> None:
    named = (host("a", roles={"learner": 1, "actor": 2}), host("b", roles={"actor": 2}))
    (words,) = notes_of(plan(*named, actors=3), 3)
    assert words == "actors=3 is not used: `roles` of hosts.yaml name 4"
    assert notes_of(plan(*named, actors=4), 4) == []
    (words,) = notes_of(plan(*(host(name) for name in "abcd"), actors=2), 2)
    assert words == "nothing of this run is on d; -s actors=3 would use all hosts"
    (words,) = notes_of(plan(*(host(f"h{n}") for n in range(9)), actors=2), 2)
    assert words == "nothing of this run is on 6 hosts; -s actors=8 would use all hosts"
    local = (host("a", connection="local"), host("b"))
    (words,) = notes_of(plan(*local, actors=2, policy="local"), None)
    assert words == "nothing of this run is on b: policy local is one process, this command"
    idle = (host("a", roles={"learner": 1, "actor": 2}), host("b", roles={}))
    (words,) = notes_of(plan(*idle), 2)
    assert words == "nothing of this run is on b"
