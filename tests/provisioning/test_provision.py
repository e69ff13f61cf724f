"""Provisioning against hosts in memory: idempotence, environments, failures, what is left."""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence

import msgspec
import pytest

from engine.errors import (
    ConfigError,
    DeadlineError,
    HostUnreachableError,
    PreflightError,
    VersionMismatchError,
)
from engine.host.process_identity import mark
from tests.helpers.fake_node import FakeNode, facts
from tianji_cli.config.inventory import Host
from tianji_cli.provisioning import provision as module
from tianji_cli.provisioning.bundle import make_bundle, pinned_constraints, source_root
from tianji_cli.provisioning.own_modules import OwnModules
from tianji_cli.provisioning.provision import Provisioner, ProvisionRequest, ReadyHost

MINOR = ".".join(platform.python_version_tuple()[:2])
GOOD = {"python3": facts(), f"python{MINOR}": facts()}


def host(name: str, **more: object) -> Host:
    given = {"name": name, "connection": "ssh", "ssh_host": name, "address": "", "ports": None}
    return msgspec.convert({**given, **more}, Host)


class World:
    """Hosts in memory by name, kept between provisionings as real ones are."""

    def __init__(self, **nodes: FakeNode | Exception) -> None:
        self.nodes = nodes
        self.seen: list[tuple[str, str]] = []
        self.modules = OwnModules()

    def reach(self, host: Host, _cancel: threading.Event) -> FakeNode:
        node = self.nodes[host.name]
        if isinstance(node, Exception):
            raise node
        return node

    def provision(self, *hosts: Host, run_id: str = "r") -> dict[str, ReadyHost]:
        def watch(name: str, phase: str, _detail: str) -> None:
            self.seen.append((name, phase))

        order = ProvisionRequest(run_id=run_id, local_run_dir="/local", modules=self.modules)
        return Provisioner(order, watch, self.reach).provision(hosts)


def test_phases_in_order_and_what_is_started() -> None:
    a = host("a")
    node = FakeNode(a, GOOD)
    world = World(a=node)
    sites = world.provision(a)
    assert [phase for _, phase in world.seen] == [
        *("connect", "verify", "ship", "environment", "start", "ready")
    ]
    part = sites["a"].part
    bundle = make_bundle(source_root(), pinned_constraints())
    assert part.source == f"/home/ann/.tianji/bundles/{bundle.name}"
    assert part.run_dir == "/home/ann/.tianji/runs/r@a"
    assert part.host.address == "192.0.2.9"
    ((command, env),) = node.spawned
    assert command == [f"python{MINOR}", "-P", "-m", "engine.supervision.supervisor"]
    assert env == {"PYTHONPATH": part.source, "TIANJI_RUN": mark("r", "a", part.run_dir)}


def test_a_second_time_nothing_is_shipped() -> None:
    a = host("a")
    node = FakeNode(a, GOOD)
    world = World(a=node)
    world.provision(a)
    assert any(command[0] == "tar" for command in node.commands)
    node.commands.clear()
    world.provision(a, run_id="r2")
    assert not [c for c in node.commands if c[0] in ("tar", "mv", "sh") or "pip" in c]


def test_own_modules_are_sent_once_and_anew_after_a_change() -> None:
    a, here = host("a"), host("here", connection="local")
    node, local = FakeNode(a, GOOD), FakeNode(here, GOOD)
    local.is_remote = False
    world = World(a=node, here=local)
    world.modules = OwnModules(("/here",), ("corridor.py",), {"corridor.py": b"x = 1"})
    sites = world.provision(a, here)
    (place,) = sites["a"].module_directories
    assert place.startswith("/home/ann/.tianji/bundles/own-")
    assert sites["here"].module_directories == ("/here",)
    assert [p for name, p in world.seen if (name, p) == ("a", "ship")] == ["ship", "ship"]
    node.commands.clear()
    assert world.provision(a, run_id="r2")["a"].module_directories == (place,)
    assert not [c for c in node.commands if c[0] == "tar"]
    world.modules = OwnModules(("/here",), ("corridor.py",), {"corridor.py": b"x = 2"})
    assert world.provision(a, run_id="r3")["a"].module_directories != (place,)


def test_an_environment_is_made_once() -> None:
    a = host("a")
    bare = facts(packages={"torch": None, "numpy": "1.0"})
    node = FakeNode(a, {"python3": bare})
    world = World(a=node)
    part = world.provision(a)["a"].part
    assert part.python.startswith("/home/ann/.tianji/venvs/py")
    pip = next(command for command in node.commands if "pip" in command)
    assert pip[0].endswith("@a/bin/python"), "beside its place, by the host's name"
    assert pip[-2:] == ["--requirement", f"{part.source}/constraints.txt"]
    node.commands.clear()
    node.pythons[part.python] = facts()
    node.files[part.python] = b""
    assert world.provision(a, run_id="r2")["a"].part.python == part.python
    assert not [c for c in node.commands if "pip" in c or "venv" in c]


def test_a_failing_installation_is_told_with_its_last_words() -> None:
    a = host("a", python="/opt/py")
    node = FakeNode(a, {"/opt/py": facts(packages={"torch": None})})
    node.fails["/home/ann/.tianji/venvs/."] = "ERROR: no space left"
    with pytest.raises(PreflightError) as caught:
        World(a=node).provision(a)
    assert "no space left" in caught.value.what
    assert "torch" in caught.value.fix
    assert node.is_closed
    assert not node.spawned


def test_no_venv_module_is_told() -> None:
    a = host("a")
    node = FakeNode(a, {"python3": facts(packages={"torch": None}, has_venv=False)})
    with pytest.raises(PreflightError, match="cannot make a virtual environment"):
        World(a=node).provision(a)


def test_no_python_at_all() -> None:
    a = host("a")
    with pytest.raises(PreflightError) as caught:
        World(a=FakeNode(a, {})).provision(a)
    assert "there is no Python" in caught.value.what
    assert f"apt install python{MINOR}" in caught.value.fix


def test_another_minor_release_is_a_version_mismatch() -> None:
    a = host("a", python="/old/python")
    with pytest.raises(VersionMismatchError) as caught:
        World(a=FakeNode(a, {"/old/python": facts(python="3.9.2")})).provision(a)
    assert caught.value.exit_code == 6
    assert "3.9.2" in caught.value.what
    assert platform.python_version() in caught.value.what
    assert caught.value.fix


def test_a_full_disk() -> None:
    a = host("a")
    node = FakeNode(a, {f"python{MINOR}": facts(disk_free_bytes=1 << 20)})
    with pytest.raises(PreflightError, match="only 1 MiB are free"):
        World(a=node).provision(a)


def test_a_run_of_this_name_on_the_host_is_refused() -> None:
    a = host("a")
    node = FakeNode(a, GOOD)
    node.files["/home/ann/.tianji/runs/r@a"] = b""
    with pytest.raises(ConfigError, match="a run of this name exists"):
        World(a=node).provision(a)


def test_one_unreachable_host_closes_all_others() -> None:
    hosts = [host(name) for name in "abc"]
    nodes = [FakeNode(item, GOOD) for item in hosts[:2]]
    dead = HostUnreachableError("no answer", where="c")
    with pytest.raises(HostUnreachableError) as caught:
        World(a=nodes[0], b=nodes[1], c=dead).provision(*hosts)
    assert caught.value.where == "c"
    assert all(node.is_closed for node in nodes)


def test_several_failures_are_all_named() -> None:
    hosts = [host(name) for name in "ab"]
    world = World(a=HostUnreachableError("no route"), b=HostUnreachableError("refused"))
    with pytest.raises(HostUnreachableError) as caught:
        world.provision(*hosts)
    assert "2 of 2 hosts" in caught.value.what
    assert "no route" in caught.value.what
    assert "refused" in caught.value.what


def test_a_phase_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    a = host("a")
    node = FakeNode(a, GOOD)
    release = threading.Event()

    def hang(_command: Sequence[str]) -> None:
        release.wait(10)

    node.before_run = hang
    monkeypatch.setattr(module, "PHASE_S", {**module.PHASE_S, "verify": 0.2})
    try:
        with pytest.raises(DeadlineError, match="verify took longer"):
            World(a=node).provision(a)
    finally:
        release.set()


def test_an_interrupt_ends_it() -> None:
    a = host("a")
    node = FakeNode(a, GOOD)
    provisioner = Provisioner(ProvisionRequest("r", "/l"), lambda *_: None, lambda *_: node)
    node.before_run = lambda _: provisioner.interrupt()
    with pytest.raises(KeyboardInterrupt):
        provisioner.provision([a])
    assert node.is_closed


def test_behind_a_jump_host_the_address_must_be_said() -> None:
    a = host("a")
    node = FakeNode(a, GOOD)
    node.access = msgspec.structs.replace(node.access, jump="gate")
    with pytest.raises(ConfigError, match="cannot guess"):
        World(a=node).provision(a)


def test_a_host_that_comes_too_late_is_closed_all_the_same() -> None:
    """It connects while another host's failure has ended the whole already."""
    a, b = host("a"), host("b")
    node = FakeNode(a, GOOD)
    is_over, has_ended = threading.Event(), threading.Event()
    world = World(b=HostUnreachableError("no route", where="b"))

    def reach(item: Host, cancel: threading.Event) -> FakeNode:
        if item.name == "b":
            return world.reach(item, cancel)
        is_over.wait(10)
        return node

    provisioner = Provisioner(ProvisionRequest("r", "/l"), lambda *_: None, reach)
    node.close = has_ended.set  # type: ignore[method-assign]
    threading.Timer(0.2, provisioner.interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        provisioner.provision([a, b])
    is_over.set()
    assert has_ended.wait(60)
    assert not node.spawned


def test_an_error_that_all_hosts_share_is_said_once() -> None:
    error = PreflightError("no cluster", fix="start it")
    errors = {"a": error, "b": error}
    assert str(module.combine(errors, 2)) == "a, b: no cluster (start it)"
    errors["b"] = PreflightError("no disk", where="b")
    assert "2 of 2 hosts" in module.combine(errors, 2).what
