"""Which hosts a run gets: never one that another run has, unless it was asked for."""

from __future__ import annotations

import itertools
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, HostUnreachableError
from tianji_cli.bench.crew import StopSwitch
from tianji_cli.bench.places import PlacePool, RunPlace, places_of
from tianji_cli.bench.scaling.suite import is_lab
from tianji_cli.config.inventory import Host, Inventory


def host(name: str, **changes: object) -> Host:
    made = Host(name=name, connection="ssh", ssh_host=name, address="", ports=(29500, 29600))
    return msgspec.structs.replace(made, **changes)


def inventory(*hosts: Host) -> Inventory:
    return Inventory(source="hosts.yaml", hosts=hosts)


FOUR = inventory(*(host(f"box{number}") for number in range(1, 5)))


def names(places: list[RunPlace]) -> list[str]:
    return [place.name for place in places]


def test_without_an_inventory_runs_follow_each_other_on_this_machine():
    (place,) = places_of(None)
    assert (place.name, place.inventory, place.is_shared) == ("this machine", (), False)


def test_with_one_each_host_has_a_run():
    places = places_of(FOUR)
    assert names(places) == ["box1", "box2", "box3", "box4"]
    assert not any(place.is_shared for place in places)


def test_a_run_of_several_hosts_shares_none_of_them():
    assert names(places_of(FOUR, 2)) == ["box1, box2", "box3, box4"]
    assert names(places_of(FOUR, 3)) == ["box1, box2, box3"], "one is left over"


def test_fewer_runs_than_hosts_use_the_first():
    assert names(places_of(FOUR, parallel=2)) == ["box1", "box2"]


def test_more_runs_than_hosts_are_what_was_asked_for_and_share_them():
    places = places_of(FOUR, parallel=6)
    assert names(places) == ["box1", "box2", "box3", "box4", "box1", "box2"]
    assert [place.is_shared for place in places] == [True, True, False, False, True, True]
    assert [h.pin for h in places[0].inventory] == [False], "both would pin to the same cores"
    assert [h.pin for h in places[2].inventory] == [True]


def test_runs_that_share_this_machine_are_not_pinned():
    places = places_of(None, parallel=2)
    assert [place.is_shared for place in places] == [True, True]
    assert all(place.hosts == () for place in places)
    (here,) = places[0].inventory
    assert (here.connection, here.pin) == ("local", False)


def test_hosts_of_a_lab_share_one_machine_unless_one_run_goes_on_at_a_time():
    places = places_of(FOUR, is_lab=True)
    assert names(places) == ["box1", "box2", "box3", "box4"]
    assert all(place.is_shared for place in places)
    pool = PlacePool(places)
    stays = [pool.take(StopSwitch()) for _ in range(3)]
    assert [stay.num_beside for stay in stays] == [2, 2, 2]
    (alone,) = places_of(FOUR, parallel=1, is_lab=True)
    assert not alone.is_shared


def test_the_lab_is_known_by_its_inventory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    lab = msgspec.structs.replace(FOUR, source="/home/someone/.tianji/lab/inventory.yaml")
    assert is_lab(lab)
    assert not is_lab(FOUR)


def test_two_names_of_this_machine_are_one_host():
    here = inventory(
        *(host(name, connection="local", ssh_host="", address="127.0.0.1") for name in "ab")
    )
    assert names(places_of(here)) == ["a"]
    twice = inventory(host("a", ssh_host="box"), host("b", ssh_host="box"), host("c"))
    assert names(places_of(twice)) == ["a", "c"]
    other_port = inventory(host("a", ssh_host="box"), host("b", ssh_host="box", port=2222))
    assert names(places_of(other_port)) == ["a", "b"]


@pytest.mark.parametrize(
    ("given_hosts", "words"), [(None, "no inventory is given"), (FOUR, "it has 4")]
)
def test_too_few_hosts_are_an_error_that_says_how_many(given_hosts: Inventory | None, words: str):
    with pytest.raises(ConfigError, match="5 hosts are needed") as caught:
        places_of(given_hosts, 5)
    assert words in caught.value.what
    assert caught.value.fix


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 16))
def test_places_share_a_host_only_where_they_say_so(num_hosts: int, each: int, parallel: int):
    hosts = inventory(*(host(f"h{number}") for number in range(max(num_hosts, each))))
    places = places_of(hosts, each, parallel)
    assert len(places) == parallel
    for one, other in itertools.combinations(places, 2):
        if common := set(names([one])) & set(names([other])):
            assert one.is_shared, common
            assert other.is_shared


def test_a_run_that_never_was_alone_knows_it():
    pool = PlacePool(places_of(None, parallel=2))
    first, second = pool.take(StopSwitch()), pool.take(StopSwitch())
    pool.leave(first)
    third = pool.take(StopSwitch())
    pool.leave(third)
    pool.leave(second)
    assert [stay.num_beside for stay in (first, second, third)] == [1, 1, 1]
    alone = pool.take(StopSwitch())
    assert alone.num_beside == 0


def test_runs_on_other_hosts_are_not_beside():
    pool = PlacePool(places_of(FOUR))
    stays = [pool.take(StopSwitch()) for _ in range(4)]
    assert [stay.num_beside for stay in stays] == [0] * 4
    assert len({stay.place.name for stay in stays}) == 4


def test_a_place_is_waited_for():
    pool, taken = PlacePool(places_of(None)), threading.Event()
    stay = pool.take(StopSwitch())
    waiter = threading.Thread(target=lambda: (pool.take(StopSwitch()), taken.set()))
    waiter.start()
    assert not taken.is_set()
    pool.leave(stay)
    waiter.join(60)
    assert taken.is_set()


def test_who_waits_for_a_place_ends_when_all_are_to_end():
    pool, stop = PlacePool(places_of(None)), StopSwitch()
    pool.take(stop)
    stop.ask()
    with pytest.raises(KeyboardInterrupt):
        pool.take(stop)


def test_a_host_that_is_lost_gets_no_more_runs():
    pool = PlacePool(places_of(FOUR, parallel=6))
    stays = [pool.take(StopSwitch()) for _ in range(6)]
    pool.lose(stays[0])
    for stay in stays[1:]:
        pool.leave(stay)
    left = [pool.take(StopSwitch()).place.name for _ in range(4)]
    assert sorted(left) == ["box2", "box2", "box3", "box4"]


def test_where_all_hosts_are_lost_it_ends():
    pool = PlacePool(places_of(inventory(host("box1"), host("box2"))))
    for stay in [pool.take(StopSwitch()), pool.take(StopSwitch())]:
        pool.lose(stay)
    with pytest.raises(HostUnreachableError, match="no host is left") as caught:
        pool.take(StopSwitch())
    assert caught.value.where == "box1, box2"
