"""What comes here from a host while a run goes on, and what stays out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fake_node import FakeNode

from tianji_cli.inventory import Host
from tianji_cli.mirror import fetch

REMOTE = "/home/ann/.tianji/runs/r"


def make_node(files: dict[str, bytes]) -> FakeNode:
    node = FakeNode(Host(name="a", connection="ssh", address="192.0.2.9", ports=None), {})
    node.files = {f"{REMOTE}/{name}": data for name, data in files.items()}
    return node


def here(local: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(local)): path.read_bytes()
        for path in local.rglob("*")
        if path.is_file()
    }


def test_a_checkpoint_comes_as_soon_as_it_is_there_and_old_ones_go(tmp_path: Path) -> None:
    one = {"checkpoints/v0000000001-aa.safetensors": b"T1", "checkpoints/v0000000001.json": b"J1"}
    two = {"checkpoints/v0000000002-bb.safetensors": b"T2", "checkpoints/v0000000002.json": b"J2"}
    node = make_node({**one, "summary.json": b"{}", "checkpoints/.v2.json.tmp": b"half"})
    fetch(node, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == one, "nothing else is whole yet"
    node.files = make_node({**one, **two}).files
    fetch(node, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {**one, **two}
    node.files = make_node(two).files
    fetch(node, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == two


def test_groups_on_other_hosts_are_left_alone(tmp_path: Path) -> None:
    name = "checkpoints/group-{}/v0000000001.json"
    for number in (0, 1):
        fetch(make_node({name.format(number): b"J"}), REMOTE, tmp_path, everything=False)
    assert sorted(here(tmp_path)) == [name.format(0), name.format(1)]


def test_a_checkpoint_that_goes_while_it_is_fetched_is_not_kept_half(tmp_path: Path) -> None:
    node = make_node({"checkpoints/v0000000001.json": b"J1"})
    sizes = node.walk(REMOTE)
    node.walk = lambda root: sizes  # type: ignore[method-assign]
    node.files.clear()
    fetch(node, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {}


def test_a_log_that_was_emptied_over_there_goes_on_here(tmp_path: Path) -> None:
    node = make_node({"logs/a/actor-0.log": b"many lines\n" * 9})
    fetch(node, REMOTE, tmp_path, everything=False)
    node.files = make_node({"logs/a/actor-0.log": b"new\n", "logs/a/actor-0.log.1": b"..."}).files
    fetch(node, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {
        "logs/a/actor-0.log": b"new\n",
        "logs/a/actor-0.log.1": b"many lines\n" * 9,
    }


def test_a_host_that_was_given_an_old_checkpoint_takes_no_newer_one_away(tmp_path: Path) -> None:
    old = {"checkpoints/v0000000001-aa.safetensors": b"T1", "checkpoints/v0000000001.json": b"J1"}
    new = {"checkpoints/v0000000012-bb.safetensors": b"T2", "checkpoints/v0000000012.json": b"J2"}
    for files in (old, {**old, **new}, old):
        fetch(make_node(files), REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == {**old, **new}
    for files in (new, old, new):
        fetch(make_node(files), REMOTE, tmp_path, everything=True)
        assert here(tmp_path) == new, "and brings back none that was forgotten"


def test_a_log_that_was_emptied_and_grew_again_comes_whole_in_the_end(tmp_path: Path) -> None:
    log = "logs/a/actor-0.log"
    fetch(make_node({log: b"old\n" * 9}), REMOTE, tmp_path, everything=False)
    files = {log: b"new\n" * 12, f"{log}.1": b"old\n" * 20}
    fetch(make_node(files), REMOTE, tmp_path, everything=True)
    assert here(tmp_path) == files


def test_two_commands_that_follow_a_run_bring_each_row_once(tmp_path: Path) -> None:
    """Each has looked before the other wrote."""
    name = "trace/events.jsonl"
    node = make_node({name: b"one\n"})
    fetch(node, REMOTE, tmp_path, everything=False)
    seen = node.walk(REMOTE)
    node.files = make_node({name: b"one\ntwo\n"}).files
    fetch(node, REMOTE, tmp_path, everything=False)
    walk = node.walk
    node.walk = lambda root: seen if root == REMOTE else walk(root)  # type: ignore[method-assign]
    fetch(node, REMOTE, tmp_path, everything=False)
    assert here(tmp_path) == {name: b"one\ntwo\n"}


def test_many_threads_that_follow_a_run_bring_each_row_once(tmp_path: Path) -> None:
    name, rows = "trace/events.jsonl", [f"{number}\n".encode() for number in range(300)]
    node = make_node({name: b""})

    def follow(_: int) -> None:
        while len(node.files[f"{REMOTE}/{name}"]) < sum(map(len, rows)):
            fetch(node, REMOTE, tmp_path, everything=False)
        fetch(node, REMOTE, tmp_path, everything=False)

    with ThreadPoolExecutor(3) as pool:
        followers = pool.map(follow, range(3))
        for row in rows:
            node.files[f"{REMOTE}/{name}"] += row
        list(followers)
    assert here(tmp_path) == {name: b"".join(rows)}


def test_a_host_cannot_write_outside_the_run(tmp_path: Path) -> None:
    node = make_node({})
    elsewhere = tmp_path / "elsewhere"
    sizes = {"../elsewhere": 1, str(elsewhere): 1, "trace/../../elsewhere": 1}
    node.walk = lambda root: sizes  # type: ignore[method-assign]
    node.read = lambda path, offset=0: b"x"  # type: ignore[method-assign]
    fetch(node, REMOTE, tmp_path / "run", everything=True)
    assert not elsewhere.exists()
