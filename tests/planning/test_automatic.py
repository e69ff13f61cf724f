"""`auto`: how many actors and environments are chosen for given cores and measured speeds."""

from __future__ import annotations

import math
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.graph.workload import ActorSize
from engine.spec import Experiment, StalenessSpec
from tests.helpers.fake_node import FakeNode, facts
from tianji_cli.commands.sizing import ACTORS, NUM_ENVS, kept, sized
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.planning.automatic import Rules, choose, room_for_actors, spread
from tianji_cli.planning.chosen import words_of
from tianji_cli.planning.plan import make_plan

STALENESS = StalenessSpec(mode="block", max_lag=1)
BOTH = frozenset({ACTORS, NUM_ENVS})


def host(name: str, cores: int, **more: object) -> Host:
    values = {"connection": "ssh", "address": f"{name}.example", "ports": (1, 9), **more}
    return msgspec.convert({"name": name, "cores": cores, **values}, Host)


def hosts(*cores: int) -> Inventory:
    numbered = (host(f"box{number}", count) for number, count in enumerate(cores))
    return Inventory(source="hosts.yaml", hosts=tuple(numbered))


def experiment(*settings: str, name: str = "cartpole_ppo") -> Experiment:
    return load_experiment(find_file("experiments", name), settings)[0]


def sizes(**rates: float) -> list[ActorSize]:
    """Of batches of 8 environments: `n4=100.0` are 4 environments that make 100 env steps/s."""
    numbers = [(int(name[1:]), rate) for name, rate in rates.items()]
    return [
        ActorSize(num_envs=number, rollouts_per_batch=8 // number, env_steps_per_s=rate)
        for number, rate in numbers
    ]


STEPS = sizes(n1=10.0, n2=20.0, n4=38.0, n8=70.0)


def test_one_core_steps_as_many_environments_as_are_worth_it() -> None:
    assert choose(STEPS, Rules(STALENESS, least=1, room=1)) == (1, STEPS[-1])
    flat = sizes(n1=10.0, n2=19.0, n4=20.0, n8=20.5)
    assert choose(flat, Rules(STALENESS, least=1, room=1)) == (1, flat[1])


def test_many_cores_are_of_use_only_as_far_as_the_bound_on_lag_lets_them() -> None:
    """Batches of one rollout and a lag of 1: two actors; of 8 small rollouts: 16."""
    rules = Rules(STALENESS, least=1, room=30)
    assert rules.actors_with(STEPS[-1]) == 2
    assert rules.bound_of(STEPS[-1]) == "lag"
    assert rules.actors_with(STEPS[0]) == 16
    wide = Rules(StalenessSpec(mode="block", max_lag=64), least=1, room=30)
    assert wide.actors_with(STEPS[-1]) == 30
    assert wide.bound_of(STEPS[-1]) == "cores"


def test_smaller_rollouts_are_chosen_where_they_let_more_cores_work() -> None:
    slow = sizes(n1=10.0, n2=10.5, n4=10.8, n8=11.0)  # environments that are all of the cost
    assert choose(slow, Rules(STALENESS, least=1, room=16)) == (16, slow[0])
    assert choose(slow, Rules(STALENESS, least=1, room=4)) == (4, slow[0])


def test_no_more_is_collected_than_learners_take() -> None:
    store = [
        msgspec.structs.replace(size, rollouts_per_batch=0) for size in sizes(n1=10.0, n8=70.0)
    ]
    rules = Rules(STALENESS, least=1, room=30, wanted_per_s=60.0)
    assert choose(store, rules) == (1, store[1])
    assert rules.bound_of(store[1]) == "learner"
    assert choose(store, Rules(STALENESS, least=1, room=30)) == (30, store[1])


def test_every_host_has_an_actor_even_if_not_all_can_collect_at_once() -> None:
    rules = Rules(STALENESS, least=5, room=30)
    assert rules.actors_with(STEPS[-1]) == 5
    assert rules.bound_of(STEPS[-1]) == "hosts"


def test_given_actors_stay_and_groups_get_equal_numbers() -> None:
    assert choose(STEPS, Rules(STALENESS, least=1, room=30), actors=3)[0] == 3
    rules = Rules(STALENESS, least=1, room=7, groups=2)
    assert choose(STEPS[-1:], rules)[0] == 4


@given(
    st.lists(st.floats(0.1, 1e6), min_size=1, max_size=4),
    st.integers(0, 100),
    st.integers(1, 20),
    st.integers(1, 4),
    st.none() | st.floats(1.0, 1e6),
)
def test_what_is_chosen_is_never_much_worse_than_anything_else(
    rates: list[float], room: int, least: int, groups: int, wanted: float | None
) -> None:
    found = sizes(**{f"n{2**power}": rate for power, rate in enumerate(rates)})
    rules = Rules(STALENESS, least=least, room=room, groups=groups, wanted_per_s=wanted)
    actors, size = choose(found, rules)
    assert actors >= 1
    assert actors % groups == 0
    best = max(rules.collected_per_s(other, rules.actors_with(other)) for other in found)
    assert rules.collected_per_s(size, actors) >= 0.9 * best


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 64), min_size=1), st.data())
def test_actors_are_spread_by_room_and_none_is_lost(
    room: dict[str, int], data: st.DataObject
) -> None:
    first = sorted(room)[1:]
    count = data.draw(st.integers(max(len(first), 1), 200))
    dealt = spread(count, room, first)
    assert sum(dealt.values()) == count
    assert all(dealt[name] >= 1 for name in first)
    if count <= sum(max(room[name], name in first) for name in room):
        assert all(dealt[name] <= max(most, name in first) for name, most in room.items())


def room_of(inventory: Inventory, *settings: str, policy: str = "tianji") -> dict[str, int]:
    run = experiment(f"policy={policy}", *settings)
    graph = build_graph(read_policy(policy), run)
    cores = {item.name: item.cores or 0 for item in inventory.hosts}
    return room_for_actors(graph, run, inventory, cores)


def test_learners_and_all_else_have_cores_of_their_own() -> None:
    assert room_of(hosts(2)) == {"box0": 1}
    assert room_of(hosts(1)) == {"box0": 1}
    assert room_of(hosts(8)) == {"box0": 6}
    assert room_of(hosts(8), "learner.threads=3", "env.num_splits=2") == {"box0": 2}
    assert room_of(hosts(2, 2, 16)) == {"box0": 1, "box1": 2, "box2": 15}
    assert room_of(hosts(1, 1)) == {"box0": 0, "box1": 1}


def test_room_follows_the_policy() -> None:
    groups = ("groups=2",)
    assert room_of(hosts(4, 4, 8, 8), *groups) == {"box2": 7, "box3": 7}
    assert room_of(hosts(4, 4), *groups) == {"box0": 2, "box1": 2}
    assert room_of(hosts(4, 8), policy="multi-learner") == {"box0": 3, "box1": 7}
    assert room_of(hosts(4, 8), policy="environments") == {"box1": 7}
    with_gpus = Inventory(source="x", hosts=(host("box0", 16, gpus=(0, 1)),))
    assert room_of(with_gpus, policy="multi-learner") == {"box0": 2}


def test_actors_and_environments_are_chosen_for_all_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.measuring.WARM_S", 0.001)
    monkeypatch.setattr("engine.runtime.measuring.COLLECT_S", 0.01)
    monkeypatch.setattr("engine.runtime.measuring.SLOW_S", math.inf)
    found = sized(experiment(), hosts(2, 4, 4), BOTH)
    chosen = found.automatic
    assert chosen is not None
    assert found.experiment.env.num_envs == chosen.num_envs in chosen.env_steps_per_s
    assert list(chosen.env_steps_per_s) == [1, 2, 4, 8]
    assert found.experiment.actors == chosen.actors == sum(chosen.actors_on.values())
    assert min(chosen.actors_on["box1"], chosen.actors_on["box2"]) >= 1
    plan = make_plan(found.experiment, found.inventory)
    placed = [item.host for item in plan.placements if item.process.startswith("actor")]
    assert {name: placed.count(name) for name in chosen.actors_on} == chosen.actors_on
    first, second = words_of(chosen, found.inventory)
    assert f"actors=auto: {chosen.actors} (" in first
    assert f"env.num_envs=auto: {chosen.num_envs}; measured on this machine" in second


def test_a_number_that_was_chosen_gives_way_to_one_that_is_set() -> None:
    found = sized(experiment("staleness.max_lag=64"), hosts(2, 4), {ACTORS})
    assert found.automatic is not None
    assert found.automatic.actors_on == {"box0": 1, "box1": 3}
    assert {item.host for item in make_plan(found.experiment, found.inventory).placements[1:5]} == {
        "box0",
        "box1",
    }
    fewer = msgspec.structs.replace(found.experiment, actors=2)
    plan = make_plan(fewer, found.inventory)
    placed = [item.host for item in plan.placements if item.process.startswith("actor")]
    assert placed == ["box1", "box1"]
    anew = kept(experiment(), found.experiment, {ACTORS})
    assert anew.actors == 4


def test_named_roles_and_a_single_process_leave_nothing_to_choose() -> None:
    named = Inventory(
        source="hosts.yaml",
        hosts=(
            host("box0", 8, roles={"learner": 1, "buffer": 1}),
            host("b", 8, roles={"actor": 3}),
        ),
    )
    found = sized(experiment(), named, {ACTORS})
    assert found.automatic is not None
    assert words_of(found.automatic, named) == [
        "actors=auto: 3, as `roles` of hosts.yaml name them"
    ]
    found = sized(experiment("policy=local"), hosts(8), {ACTORS})
    assert found.automatic is not None
    assert words_of(found.automatic, hosts(8)) == [
        "actors=auto: 2, since all of them are in one process"
    ]


def test_hosts_without_stated_cores_are_asked() -> None:
    unstated = Inventory(
        source="hosts.yaml",
        hosts=(host("box0", 2), msgspec.structs.replace(host("box1", 1), cores=None)),
    )
    nodes: list[FakeNode] = []

    def reach(item: Host, _: threading.Event) -> FakeNode:
        nodes.append(FakeNode(item, {"python3": facts(num_cores=8)}))
        return nodes[-1]

    found = sized(experiment("staleness.max_lag=64"), unstated, {ACTORS}, reach=reach)
    assert found.automatic is not None
    assert found.automatic.cores == {"box0": 2, "box1": 8}
    assert found.automatic.actors_on == {"box0": 1, "box1": 7}
    assert [node.name for node in nodes if node.is_closed] == ["box1"]


def test_a_host_that_cannot_be_asked_is_said_to_count_as_one_core() -> None:
    other = msgspec.structs.replace(host("pod", 1), cores=None, connection="kubernetes")
    inventory = Inventory(source="hosts.yaml", hosts=(host("box0", 2), other))
    found = sized(experiment("staleness.max_lag=64"), inventory, {ACTORS})
    assert found.automatic is not None
    assert found.automatic.unknown == ["pod"]
    assert found.automatic.cores == {"box0": 2, "pod": 1}
    (words,) = words_of(found.automatic, inventory)
    assert "of 3 cores on 2 hosts (cores of pod unknown, taken as 1)" in words


def test_an_environment_that_cannot_be_made_here_can_still_have_its_actors_counted() -> None:
    elsewhere = experiment("env.id=nowhere:Nothing-v0")
    found = sized(elsewhere, hosts(2, 4), {ACTORS})
    assert found.experiment.actors == 4
    with pytest.raises(ConfigError, match="nowhere") as caught:
        sized(elsewhere, hosts(2, 4), BOTH)
    assert "give a number" in caught.value.fix
