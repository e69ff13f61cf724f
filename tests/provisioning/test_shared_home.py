"""Two hosts that share a home directory, made ready at the same time: real environments, no SSH."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import PreflightError
from tests.helpers.fake_node import facts
from tianji_cli.connectors.base import Completed
from tianji_cli.connectors.local import LocalNode
from tianji_cli.provisioning import environment
from tianji_cli.provisioning.bundle import CONSTRAINTS_NAME, Bundle
from tianji_cli.provisioning.environment import Interpreter, make_environment
from tianji_cli.provisioning.probe import ProbeFacts
from tianji_cli.provisioning.shipping import ship, sweep

pytestmark = pytest.mark.processes

BARE = ProbeFacts(**facts(packages={"torch": None}))  # type: ignore[arg-type]


class SharingNode(LocalNode):
    """A host whose files are this machine's, and so every other's of its kind.

    Its environments are without pip, as nothing is installed in them: that would take most time.
    """

    def __init__(
        self,
        name: str,
        before: Callable[[Sequence[str]], None] = lambda _: None,
        pip: Sequence[str] = ("true",),
    ) -> None:
        super().__init__(name)
        self.before, self.pip = before, pip

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        self.before(command)
        if "venv" in command:
            command = [*command, "--without-pip"]
        elif "pip" in command:
            command = self.pip
        return super().run(command, timeout_s)


def make(node: LocalNode, home: Path) -> str:
    bundle = home / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / CONSTRAINTS_NAME).write_text("")
    base = Interpreter(sys.executable, BARE)
    return make_environment(node, base, str(home), str(bundle), "torch==1", f"r@{node.name}")


def test_who_comes_second_takes_nothing_from_under_the_first(tmp_path: Path) -> None:
    is_looking, may_go_on = threading.Event(), threading.Event()

    def wait(command: Sequence[str]) -> None:
        if "venv" in command:  # it has seen that there is no environment
            is_looking.set()
            assert may_go_on.wait(60)

    first, second = SharingNode("first"), SharingNode("second", wait)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(make, second, tmp_path)
        assert is_looking.wait(60)
        python = Path(make(first, tmp_path))
        (python.parent / "in-use").touch()
        may_go_on.set()
        assert late.result() == str(python)
    assert (python.parent / "in-use").exists(), "the environment was made anew under its users"
    said = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(python.parent.parent)
    assert [path.name for path in (tmp_path / "venvs").iterdir()] == [python.parent.parent.name]


def test_what_is_half_made_is_not_there(tmp_path: Path) -> None:
    node = SharingNode("a", pip=("sh", "-c", "echo no such option >&2; exit 2"))
    with pytest.raises(PreflightError, match="no such option"):
        make(node, tmp_path)
    assert list((tmp_path / "venvs").iterdir()) == []


def test_a_place_that_is_taken_by_something_else_is_named(tmp_path: Path) -> None:
    minor = ".".join(platform.python_version_tuple()[:2])
    place = tmp_path / "venvs" / environment.environment_name("torch==1", minor)
    (place / "bin").mkdir(parents=True)
    with pytest.raises(PreflightError, match="mv") as caught:
        make(SharingNode("a"), tmp_path)
    assert str(place) in caught.value.fix


def test_two_hosts_ship_the_same_bundle_at_once(tmp_path: Path) -> None:
    archive = tmp_path / "some.tar"
    (tmp_path / "engine.py").write_text("x")
    subprocess.run(["tar", "-cf", archive, "-C", tmp_path, "engine.py"], check=True)
    bundle = Bundle("name", archive.read_bytes())
    both_unpack = threading.Barrier(2)

    def wait(command: Sequence[str]) -> None:
        if "mv" in command:
            both_unpack.wait(60)

    nodes = [SharingNode(name, wait) for name in ("a", "b")]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda n: ship(n, str(tmp_path), bundle, f"r@{n.name}"), nodes))
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["name"]
    assert (tmp_path / "bundles" / "name" / "engine.py").read_text() == "x"


def test_what_killed_commands_left_is_swept_and_the_rest_is_not(tmp_path: Path) -> None:
    long_ago_s = time.time() - 2 * 3600
    for name in (".env.r@dead", ".env.r@busy", "env"):
        (tmp_path / name).mkdir()
        if "busy" not in name:
            os.utime(tmp_path / name, (long_ago_s, long_ago_s))
    sweep(LocalNode("a"), str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env.r@busy", "env"]
