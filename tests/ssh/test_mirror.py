"""What comes here from a host while a run goes on, and what stays out."""

from __future__ import annotations

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


def test_a_host_cannot_write_outside_the_run(tmp_path: Path) -> None:
    node = make_node({})
    elsewhere = tmp_path / "elsewhere"
    sizes = {"../elsewhere": 1, str(elsewhere): 1, "trace/../../elsewhere": 1}
    node.walk = lambda root: sizes  # type: ignore[method-assign]
    node.read = lambda path, offset=0: b"x"  # type: ignore[method-assign]
    fetch(node, REMOTE, tmp_path / "run", everything=True)
    assert not elsewhere.exists()
