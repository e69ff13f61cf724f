"""What each process gets of its host: cores only where enough are idle, devices, threads."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.host import cores as engine_cores
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.planning.plan import Plan, make_plan
from tianji_cli.planning.resources import (
    HostResources,
    cores_needed,
    cores_wanted,
    planned_pinning,
    resources_of,
    with_resources,
)
from tianji_cli.planning.wiring import HostSetup, wire


def host(name: str = "a", **more: object) -> Host:
    given = {"connection": "ssh", "ssh_host": name, "address": "192.0.2.1", "ports": (29500, 29600)}
    return msgspec.convert({"name": name, **given, **more}, Host)


def plan(*settings: str, on: Host | None = None) -> Plan:
    experiment, _ = load_experiment(find_file("experiments", "cartpole_ppo"), settings)
    return make_plan(experiment, Inventory(source="hosts.yaml", hosts=(on or host(),)))


def offer(num_cores: int, num_idle: int | None = None) -> HostResources:
    idle = num_cores if num_idle is None else num_idle
    cores = tuple(range(num_cores))
    return HostResources(cores=cores, idle_cores=cores[num_cores - idle :])


def test_processes_that_compute_get_cores_of_their_own_and_the_rest_share_the_rest():
    made = plan("actors=2", "learner.threads=2")
    seats = resources_of(made, {"a": offer(8)})
    own = [seats[name].cores for name in ("actor-0", "actor-1", "learner-0")]
    assert [len(cores or ()) for cores in own] == [1, 1, 2]
    assert [seats[name].threads for name in ("actor-0", "learner-0")] == [1, 2]
    taken = {core for cores in own for core in cores or ()}
    assert len(taken) == 4
    for name in ("coordinator", "buffer-0"):
        assert set(seats[name].cores or ()) == set(range(8)) - taken
    assert {seat.pinning for seat in seats.values()} == {"pinned"}


@pytest.mark.parametrize(
    ("settings", "who"),
    [
        (["env.kwargs.num_threads=3"], "actor-0"),
        (["env.num_splits=2"], "actor-0"),
        (["env.kwargs.num_threads=2", "policy=environments"], "environment-0"),
    ],
)
def test_threads_of_environments_get_cores_too(settings: list[str], who: str):
    """They were all on the one core of their actor."""
    made = plan("actors=1", *settings)
    wanted = made.experiment.env.num_threads
    seats = resources_of(made, {"a": offer(8)})
    assert (len(seats[who].cores or ()), seats[who].threads) == (wanted, 1)
    others = {name: seat for name, seat in seats.items() if name in ("actor-0", "learner-0")}
    assert all(len(seat.cores or ()) == 1 for name, seat in others.items() if name != who)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (offer(0), "not pinned: this system cannot pin processes to cores"),
        (offer(2), "not pinned: 2 cores for 5 processes"),
        (offer(8, num_idle=3), "not pinned: 3 of 8 cores are idle, 4 are needed"),
    ],
)
def test_where_cores_do_not_suffice_nothing_is_pinned_and_it_is_said(
    given: HostResources, words: str
):
    seats = resources_of(plan("actors=2"), {"a": given})
    assert {(seat.cores, seat.pinning) for seat in seats.values()} == {(None, words)}


def test_an_inventory_that_limits_cores_is_kept_to_and_one_that_forbids_pinning_too():
    limited = host(cores=2)
    seats = resources_of(plan("actors=2", on=limited), {"a": offer(2)})
    assert {seat.cores for seat in seats.values()} == {(0, 1)}
    free = host(pin=False)
    seats = resources_of(plan("actors=2", on=free), {"a": offer(16)})
    assert {seat.cores for seat in seats.values()} == {None}


def test_what_a_plan_can_say_before_the_host_is_asked():
    made = plan("actors=2")
    (here,) = made.hosts
    assert cores_needed(made.placements, cores_wanted(made)) == 4
    assert planned_pinning(made, here, None) == "pinned if 4 cores are idle"
    assert planned_pinning(made, here, 3) == "not pinned: 3 cores for 5 processes"
    assert planned_pinning(made, here, 16) == "pinned if 4 of 16 cores are idle"


def test_busy_cores_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    busy = [3.0, 97.0, 0.0, 25.0]
    monkeypatch.setattr(engine_cores.psutil, "cpu_percent", lambda interval, percpu: busy)
    assert engine_cores.idle_cores((0, 1, 2, 3, 9)) == (0, 2)
    monkeypatch.setattr(engine_cores.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert engine_cores.allowed_cores(2) == (0, 2)
    assert engine_cores.allowed_cores(9) == (0, 1, 2, 3)


PINNED = """
import os, subprocess, sys, time
from engine.host.cores import pin, release
allowed = os.sched_getaffinity(0)
pin([min(allowed)])
assert os.sched_getaffinity(0) == {min(allowed)}
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
assert os.sched_getaffinity(child.pid) == {min(allowed)}
release(child.pid)
assert os.sched_getaffinity(child.pid) == allowed
child.communicate(b"\\n")
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_a_pinned_process_keeps_to_its_cores_and_can_release_its_compiler():
    subprocess.run([sys.executable, "-c", PINNED], check=True, timeout=60)


def test_launches_tell_every_process_its_threads_and_cores():
    made = plan("actors=1", "learner.threads=3")
    seats = resources_of(made, {"a": offer(8)})
    setup = {"a": HostSetup(endpoints=("e", "f", "g"), run_dir="/r")}
    (launch,) = with_resources(wire(made, setup, "r"), seats).values()
    workers = {worker.address: worker for worker in launch.workers}
    assert (workers["learner-0"].threads, len(workers["learner-0"].cores)) == (3, 3)
    assert (workers["actor-0"].threads, len(workers["actor-0"].cores)) == (1, 1)
    assert workers["learner-0"].devices == {}
