"""What a machine allows: raised where it may be, kept from strangers, and named before a start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

import engine.host.limits as limits_module
from engine.admission.bounded import Admission, most_collecting
from engine.blueprint import make_arena, make_blueprint, notes_on_queue
from engine.errors import PreflightError
from engine.host.limits import HostLimit, Needs, check_limits, limits_here
from engine.spec import Experiment, StalenessSpec
from engine.testing import make_experiment

NEEDS = Needs(roles=1000, connections=1002, shared_bytes=2**20)


def test_what_suffices_is_no_error():
    check_limits(NEEDS, limits_here_but(2**62))


def limits_here_but(left: int) -> list[HostLimit]:
    return [
        HostLimit(of, left, of, "raise it") for of in ("descriptors", "threads", "memory_bytes")
    ]


@pytest.mark.parametrize(
    ("of", "left", "words"),
    [
        ("descriptors", 1049, "1,000 roles need 1,050 of descriptors, and 1,049 are left"),
        ("threads", 3001, "1,000 roles need 3,002 of threads, and 3,001 are left"),
        ("threads", -5, "need 3,002 of threads, and 0 are left"),
        ("memory_bytes", 2**30, "need 8,001 MiB of memory, and 1,024 MiB are left"),
    ],
)
def test_a_limit_that_is_too_low_is_named_with_what_raises_it(of: str, left: int, words: str):
    with pytest.raises(PreflightError) as caught:
        check_limits(NEEDS, [*limits_here_but(2**62), HostLimit(of, left, "the limit", "turn it")])
    assert words in caught.value.what
    assert caught.value.where == "the limit"
    assert caught.value.fix == "turn it; or run fewer roles there"


def test_exactly_enough_is_enough():
    needs = [HostLimit("descriptors", 1050, "a", ""), HostLimit("threads", 3002, "b", "")]
    check_limits(NEEDS, [*needs, HostLimit("memory_bytes", 8001 * 2**20, "c", "")])


def test_control_groups_limit_processes_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pids.max").write_text("max\n")
    (tmp_path / "pids.current").write_text("7\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 300\n")
    found = list(limits_module._cgroup_limits(tmp_path))
    assert [(item.of, item.left) for item in found] == [("memory_bytes", 400)]
    (tmp_path / "pids.max").write_text("100\n")
    assert [item.left for item in limits_module._cgroup_limits(tmp_path)] == [93, 400]


def test_the_groups_above_a_process_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits_module, "_CGROUPS", tmp_path)
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    groups = list(limits_module._own_cgroups())
    assert all(group.is_relative_to(tmp_path) for group in groups)
    if any(line.startswith("0::") for line in lines):
        assert tmp_path in groups


def test_this_machine_says_what_it_allows():
    kinds = {limit.of for limit in limits_here()}
    assert {"threads", "memory_bytes"} <= kinds
    assert all(limit.left > 0 for limit in limits_here())


def run_with_limit(soft: int, hard: int, code: str) -> str:
    """What a process prints that was started with these limits of descriptors."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [sys.executable, "-c", code]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


RAISES = """
from engine.host.descriptors import raise_limit
import resource
print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_limit_of_descriptors_is_raised_to_what_is_allowed():
    assert run_with_limit(256, 1024, RAISES) == "1024 (1024, 1024)"
    assert run_with_limit(1024, 1024, RAISES) == "1024 (1024, 1024)"


SPARES = """
import os, errno
from engine.host.descriptors import keep_spare, spare
before = open(os.devnull)
keep_spare()
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError as error:
    assert error.errno == errno.EMFILE
try:
    open(os.devnull)
except OSError:
    print("full", end=" ")
with spare():
    with spare():
        files = [open(os.devnull) for _ in range(20)]
    files += [open(os.devnull) for _ in range(20)]
try:
    open(os.devnull)
except OSError:
    print("full again", len(files))
"""


def test_what_others_cannot_take_is_there_for_files_of_its_own():
    assert run_with_limit(256, 1024, SPARES) == "full full again 40"


def many(actors: int, **staleness: object) -> Experiment:
    experiment = make_experiment(policy="tianji")
    spec = StalenessSpec(**staleness)  # type: ignore[arg-type]
    return replace(experiment, actors=actors, staleness=spec)


@pytest.mark.parametrize("num_actors", [1, 2, 64, 128, 1000])
@pytest.mark.parametrize("mode", ["block", "drop", "correct", "unbounded"])
def test_by_default_no_actor_waits_for_room_in_the_queue(num_actors: int, mode: str):
    spec = StalenessSpec(mode=mode, max_lag=10**6)  # type: ignore[arg-type]
    admission = Admission(spec, 5, num_actors=num_actors)
    tickets = [admission.admit(f"actor-{i}", 0) for i in range(num_actors)]
    assert None not in tickets
    for ticket in tickets[:4]:  # less than a batch waits, and whoever sent it goes on
        assert ticket is not None
        assert admission.arrive(ticket.number, 0)
        assert admission.admit(ticket.owner, 0) is not None


def test_a_queue_that_is_asked_for_is_what_one_gets():
    spec = StalenessSpec(max_queued_rollouts=4, max_lag=9)
    admission = Admission(spec, 1, num_actors=10)
    assert sum(admission.admit(f"actor-{i}", 0) is not None for i in range(10)) == 4


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        (StalenessSpec(mode="correct"), 128),
        (StalenessSpec(mode="correct", max_queued_rollouts=64), 64),
        (StalenessSpec(mode="block", max_lag=1), 20),
        (StalenessSpec(mode="drop", max_lag=12), 128),
        (StalenessSpec(max_lag="auto"), 128),
    ],
)
def test_how_many_can_collect_is_the_queue_and_the_bound(spec: StalenessSpec, most: int):
    assert most_collecting(spec, 10, 128) == most


def test_where_some_actors_can_only_wait_it_is_said_with_what_to_set():
    blueprint = make_blueprint(many(40, mode="unbounded", max_queued_rollouts=8))
    per_batch = blueprint.rollouts_per_batch
    (note,) = notes_on_queue(blueprint)
    assert "of 40 actors at most 8 collect at the same time" in note
    assert note.endswith(f"set staleness.max_queued_rollouts={40 + per_batch} or null")
    assert notes_on_queue(make_blueprint(many(40, mode="unbounded"))) == ()
    (note,) = notes_on_queue(make_blueprint(many(40 * per_batch, max_lag=1)))
    assert f"at most {2 * per_batch} collect" in note
    assert note.endswith("set staleness.max_lag=39")
    assert notes_on_queue(make_blueprint(many(40 * per_batch, max_lag=39))) == ()


def test_the_memory_that_roles_share_is_used_only_as_far_as_it_is_written():
    """A thousand actors have slots of their own, which cost address space until they are used."""
    rss = Path("/proc/self/statm").read_text().split()[1]
    arena = make_arena(make_blueprint(many(1000, mode="unbounded")))
    grown = int(Path("/proc/self/statm").read_text().split()[1]) - int(rss)
    assert arena.num_free >= 2000
    assert grown * os.sysconf("SC_PAGE_SIZE") < 64 * 2**20
