"""What comes here from a host while a run goes on, and what stays out."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from engine.errors import PreflightError, TianJiError
from engine.progress import LimiterState, RunCounters
from engine.trace.checkpoint_file import CheckpointInfo, identity_sha256
from engine.trace.replay_file import RandomState, ReplayInfo, Segment
from tests.helpers.fake_node import FakeNode
from tianji_cli.config.inventory import Host
from tianji_cli.runs import mirror
from tianji_cli.runs.mirror import fetch
from tianji_cli.storage.takings import MAX_CHECKPOINTS, MAX_LOG_BYTES, MAX_LOGS, Share, takings_of

REMOTE = "/home/ann/.tianji/runs/r"
HEAD = Share("a", is_head=True, learners=(0,))
BUFFER = Share("c", is_head=False, learners=(), buffers=(0,))
REPLAY = "checkpoints/replay-0"
ACTORS = Share("b", is_head=False, learners=())


def make_node(files: dict[str, bytes]) -> FakeNode:
    node = FakeNode(Host(name="a", connection="ssh", address="192.0.2.9", ports=None), {})
    node.files = {f"{REMOTE}/{name}": data for name, data in files.items()}
    return node


def checkpoint(version: int, directory: str = "checkpoints") -> dict[str, bytes]:
    """The two files of a whole checkpoint."""
    tensors = f"tensors of {version}".encode()
    info = CheckpointInfo(
        version=version,
        updates=version,
        counters=RunCounters(),
        identity={},
        identity_sha256=identity_sha256({}),
        buffer={},
        num_bytes=len(tensors),
        sha256=hashlib.sha256(tensors).hexdigest(),
    ).sealed()
    return {
        f"{directory}/{info.name}": msgspec.json.encode(info),
        f"{directory}/{info.tensors_name}": tensors,
    }


def store(version: int, segments: list[bytes], directory: str) -> dict[str, bytes]:
    """The files of a saved replay store, each segment of one rollout."""
    tensors = f"priorities of {version}".encode()
    described = [
        Segment(first=n, count=1, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for n, data in enumerate(segments)
    ]
    info = ReplayInfo(
        version=version,
        buffer=0,
        limiter=LimiterState(),
        num_envs=1,
        layout="1",
        samples_layout="2",
        rollout_bytes=9,
        num_rollouts=len(segments),
        num_kept=len(segments),
        random=RandomState(state="1", increment="1", has_uint32=0, uinteger=0),
        segments=described,
        num_bytes=len(tensors),
        sha256=hashlib.sha256(tensors).hexdigest(),
    ).sealed()
    return {
        f"{directory}/{info.name}": msgspec.json.encode(info),
        f"{directory}/{info.tensors_name}": tensors,
        **{f"{directory}/{s.name}": data for s, data in zip(described, segments, strict=True)},
    }


def here(local: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(local)): path.read_bytes()
        for path in local.rglob("*")
        if path.is_file()
    }


def test_a_checkpoint_comes_as_soon_as_it_is_there_and_old_ones_go(tmp_path: Path) -> None:
    one, two = checkpoint(1), checkpoint(2)
    node = make_node({**one, "summary.json": b"{}", "checkpoints/.v2.json.tmp": b"half"})
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == one, "nothing else is whole yet"
    node.files = make_node({**one, **two}).files
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {**one, **two}
    node.files = make_node(two).files
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == two


def test_groups_on_other_hosts_are_left_alone(tmp_path: Path) -> None:
    groups = [checkpoint(1 + number, f"checkpoints/group-{number}") for number in (0, 1)]
    for number, files in enumerate(groups):
        share = Share("a", is_head=False, learners=(number,))
        fetch(make_node(files), share, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == groups[0] | groups[1]


def test_a_checkpoint_that_goes_while_it_is_fetched_is_not_kept_half(tmp_path: Path) -> None:
    node = make_node(checkpoint(1))
    sizes = node.walk(REMOTE)
    node.walk = lambda root: sizes  # type: ignore[method-assign]
    node.files.clear()
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {}


def test_of_a_replay_store_only_what_is_new_comes_and_old_ones_go(tmp_path: Path) -> None:
    one, two = store(1, [b"a" * 5, b"b" * 5], REPLAY), store(2, [b"a" * 5, b"c" * 5], REPLAY)
    half = {f"{REPLAY}/.s.tmp": b"half"}
    fetch(make_node({**one, **half}), BUFFER, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == one
    node = make_node({**one, **two})
    read, asked = node.read, []

    def noted(path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        asked.append(path)
        return read(path, offset, max_bytes)

    node.read = noted  # type: ignore[method-assign]
    fetch(node, BUFFER, REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == {**one, **two}
    assert len(asked) == 3, "the JSON, its tensors, and the one file of rollouts that is new"
    fetch(make_node(two), BUFFER, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == two


@pytest.mark.parametrize("damage", ["gone", "changed", "short"])
def test_a_replay_store_that_is_not_whole_does_not_come(tmp_path: Path, damage: str) -> None:
    one, two = store(1, [b"a" * 5], REPLAY), store(2, [b"b" * 5], REPLAY)
    fetch(make_node(one), BUFFER, REMOTE, tmp_path, everything=True)
    (name,) = (name for name in two if name.endswith(".rollouts"))
    broken = {**two, name: b"x" * 5 if damage == "changed" else b"b"}
    if damage == "gone":
        del broken[name]
    for files in ({**one, **broken}, broken):
        fetch(make_node(files), BUFFER, REMOTE, tmp_path, everything=True)
    found = here(tmp_path)
    assert {key: found.get(key) for key in one} == one
    assert f"{REPLAY}/v0000000002.json" not in found


def test_a_replay_store_comes_from_the_host_of_its_buffer_only(tmp_path: Path) -> None:
    other = store(1, [b"a" * 5], "checkpoints/replay-1")
    for share, files in ((HEAD, store(1, [b"a" * 5], REPLAY)), (BUFFER, other)):
        fetch(make_node(files), share, REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == {}


def test_a_log_that_was_emptied_over_there_goes_on_here(tmp_path: Path) -> None:
    node = make_node({"logs/a/actor-0.log": b"many lines\n" * 9})
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    node.files = make_node({"logs/a/actor-0.log": b"new\n", "logs/a/actor-0.log.1": b"..."}).files
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {
        "logs/a/actor-0.log": b"new\n",
        "logs/a/actor-0.log.1": b"many lines\n" * 9,
    }


def test_a_host_that_was_given_an_old_checkpoint_takes_no_newer_one_away(tmp_path: Path) -> None:
    old, new = checkpoint(1), checkpoint(12)
    for files in (old, {**old, **new}, old):
        fetch(make_node(files), HEAD, REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == {**old, **new}
    for files in (new, old, new):
        fetch(make_node(files), HEAD, REMOTE, tmp_path, everything=True)
        assert here(tmp_path) == new, "and brings back none that was forgotten"


def test_the_best_one_that_a_host_keeps_stays_and_those_between_go(tmp_path: Path) -> None:
    found = {version: checkpoint(version) for version in range(1, 9)}
    for newest in range(3, 9):
        there = {**found[2], **found[newest - 1], **found[newest]}
        fetch(make_node(there), HEAD, REMOTE, tmp_path, everything=False)
        assert here(tmp_path) == there


def test_a_log_that_was_emptied_and_grew_again_comes_whole_in_the_end(tmp_path: Path) -> None:
    log = "logs/a/actor-0.log"
    fetch(make_node({log: b"old\n" * 9}), HEAD, REMOTE, tmp_path, everything=False)
    files = {log: b"new\n" * 12, f"{log}.1": b"old\n" * 20}
    fetch(make_node(files), HEAD, REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == files


def test_two_commands_that_follow_a_run_bring_each_row_once(tmp_path: Path) -> None:
    """Each has looked before the other wrote."""
    name = "trace/events.jsonl"
    node = make_node({name: b"one\n"})
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    seen = node.walk(REMOTE)
    node.files = make_node({name: b"one\ntwo\n"}).files
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    walk = node.walk
    node.walk = lambda root: seen if root == REMOTE else walk(root)  # type: ignore[method-assign]
    fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {name: b"one\ntwo\n"}


def test_many_threads_that_follow_a_run_bring_each_row_once(tmp_path: Path) -> None:
    name, rows = "trace/events.jsonl", [f"{number}\n".encode() for number in range(300)]
    node = make_node({name: b""})

    def follow(_: int) -> None:
        while len(node.files[f"{REMOTE}/{name}"]) < sum(map(len, rows)):
            fetch(node, HEAD, REMOTE, tmp_path, everything=False)
        fetch(node, HEAD, REMOTE, tmp_path, everything=False)

    with ThreadPoolExecutor(3) as pool:
        followers = pool.map(follow, range(3))
        for row in rows:
            node.files[f"{REMOTE}/{name}"] += row
        list(followers)
    assert here(tmp_path) == {name: b"".join(rows)}


HOSTILE_NAMES = [
    "deployment.json",
    "manifest.json",
    "study.json",
    "report.html",
    "plots/x.svg",
    "../elsewhere",
    "/etc/elsewhere",
    "trace/../../elsewhere",
    "trace/other.jsonl",
    "trace/events.jsonl.gz",
    "trace/events.jsonl/deeper",
    "engine/supervision/run_inspector.py",
    "logs/a/actor-0.py",
    "logs/b/../../x.log",
    "logs/b/.hidden.log",
    "logs/b/two\nlines.log",
    "logs/b/\udc80.log",
    "logs/b/" + "x" * 200 + ".log",
    "logs/other/actor-0.log",
    "state/other.json",
    "checkpoints/v1.json",
    "checkpoints/w0000000001.json",
    "checkpoints/v0000000001.safetensors",
    "checkpoints/group-1/deeper/v0000000001.json",
    "checkpoints/group-/v0000000001.json",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("share", [HEAD, ACTORS, Share("b", is_head=True)])
def test_a_name_that_no_role_of_a_host_writes_is_not_taken(
    name: str, share: Share, tmp_path: Path
) -> None:
    node = make_node({})
    node.walk = lambda root: {name: 1}  # type: ignore[method-assign]
    node.read = lambda path, offset=0, max_bytes=-1: b"x"  # type: ignore[method-assign]
    fetch(node, share, REMOTE, tmp_path / "run", everything=True)
    assert here(tmp_path) == {}


def test_only_the_coordinators_host_hands_over_traces_and_summary(tmp_path: Path) -> None:
    files = {
        "summary.json": b"{}",
        "trace/events.jsonl": b"{}\n",
        "logs/b/actor-0.log": b"x\n",
        "state/b.json": b"{}",
    }
    fetch(make_node({**files, **checkpoint(3)}), ACTORS, REMOTE, tmp_path, everything=True)
    assert sorted(here(tmp_path)) == ["logs/b/actor-0.log", "state/b.json"]


def test_a_checkpoint_with_another_checksum_neither_comes_nor_makes_others_go(
    tmp_path: Path,
) -> None:
    real = checkpoint(1)
    fetch(make_node(real), HEAD, REMOTE, tmp_path, everything=False)
    forged = checkpoint(9)
    info, tensors = forged
    for broken in (
        {**forged, tensors: b"x" * len(forged[tensors])},
        {**forged, tensors: forged[tensors] + b"more"},
        {info: forged[info]},
        {**forged, info: forged[info].replace(b'"updates":9', b'"updates":8')},
        {**forged, info: b"{}"},
        {**forged, info: b"[" * 100_000},
        {"checkpoints/v9999999999.json": forged[info], tensors: forged[tensors]},
    ):
        fetch(make_node(broken), HEAD, REMOTE, tmp_path, everything=True)
        assert here(tmp_path) == real
    fetch(make_node(forged), ACTORS, REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == real, "a host without learners has no checkpoints"


def test_a_learner_makes_no_checkpoint_of_another_go(tmp_path: Path) -> None:
    real = checkpoint(1, "checkpoints/group-0")
    first, second = (Share("a", is_head=False, learners=(number,)) for number in (0, 1))
    fetch(make_node(real), first, REMOTE, tmp_path, everything=False)
    both = {**checkpoint(9, "checkpoints/group-0"), **checkpoint(9, "checkpoints/group-1")}
    fetch(make_node(both), second, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {**real, **checkpoint(9, "checkpoints/group-1")}


def test_numbers_and_sizes_are_bounded() -> None:
    there = {f"logs/a/actor-{number}.log": 1 for number in range(MAX_LOGS + 9)}
    there |= {f"checkpoints/v{number:010d}.json": 1 for number in range(MAX_CHECKPOINTS + 9)}
    there["logs/a/actor-0.log"] = 10**15
    takings = takings_of(there, HEAD)
    assert len(takings.growing) == MAX_LOGS
    assert takings.growing["logs/a/actor-0.log"] == MAX_LOG_BYTES
    assert len(takings.checkpoints) == MAX_CHECKPOINTS
    assert takings.checkpoints[-1] == f"checkpoints/v{MAX_CHECKPOINTS + 8:010d}.json"


def test_a_file_that_is_only_said_to_be_long_is_no_trace(tmp_path: Path) -> None:
    """Of a sparse one only the first piece is asked for, and nothing of it is kept."""
    node, asked = make_node({}), []
    node.walk = lambda root: {"trace/events.jsonl": 1 << 33}  # type: ignore[method-assign]

    def read(path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        asked.append(max_bytes)
        return bytes(max_bytes)

    node.read = read  # type: ignore[method-assign]
    with pytest.raises(TianJiError, match="no trace table"):
        fetch(node, HEAD, REMOTE, tmp_path, everything=False)
    assert asked == [mirror.CHUNK_BYTES]
    assert here(tmp_path) == {"trace/events.jsonl": b""}


@pytest.mark.parametrize("place", ["logs", "logs/a"])
def test_a_link_here_does_not_lead_what_comes_elsewhere(place: str, tmp_path: Path) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    (run / place).parent.mkdir(parents=True)
    (run / place).symlink_to(elsewhere)
    node = make_node({"logs/a/actor-0.log": b"x\n"})
    with pytest.raises(PreflightError, match="leads out"):
        fetch(node, HEAD, REMOTE, run, everything=True)
    assert here(elsewhere) == {}


def test_a_file_that_is_a_link_here_is_not_written_through(tmp_path: Path) -> None:
    target, run = tmp_path / "target", tmp_path / "run"
    target.write_bytes(b"mine")
    for name in ("logs/a/actor-0.log", "summary.json", "state/a.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).symlink_to(target)
    node = make_node({"summary.json": b"{}", "state/a.json": b"{}"})
    fetch(node, HEAD, REMOTE, run, everything=True)
    assert not (run / "summary.json").is_symlink()
    node.files = make_node({"logs/a/actor-0.log": b"x\n" * 9999}).files
    with pytest.raises(OSError, match=os.strerror(40)):
        fetch(node, HEAD, REMOTE, run, everything=True)
    assert target.read_bytes() == b"mine"
