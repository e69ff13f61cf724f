"""What lies on a host under the name of its content is looked at before it is used again: bundles
and environments that were cut short are made anew, and that is said. Real files, no SSH."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from engine.host.host_check import DAMAGED_NAME, LIST_NAME
from tests.helpers.fake_node import facts
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Completed
from tianji_cli.connectors.local import LocalNode
from tianji_cli.provisioning import environment
from tianji_cli.provisioning.bundle import CONSTRAINTS_NAME, Bundle, environment_name, pack_modules
from tianji_cli.provisioning.environment import Interpreter, find_interpreter, make_environment
from tianji_cli.provisioning.own_modules import OwnModules
from tianji_cli.provisioning.preflight import judge_versions
from tianji_cli.provisioning.probe import ProbeFacts, minor_of
from tianji_cli.provisioning.provision import Provisioner, ProvisionRequest
from tianji_cli.provisioning.shipping import ship
from tianji_cli.provisioning.verification import COMPLETE_NAME, look_at_bundle, look_at_environment

FILES = {"engine/__init__.py": b"", "engine/deep/a.py": b"x = 1\n" * 50, "constraints.txt": b"a==1"}
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PINS = "torch==2.4.0\nnumpy==1.26\n"


def bundle_in(workdir: Path) -> tuple[LocalNode, Bundle, Path]:
    node, bundle = LocalNode("a"), pack_modules(FILES)
    ship(node, str(workdir), bundle, "r@a")
    return node, bundle, workdir / "bundles" / bundle.name


def damage_of(node: LocalNode, place: Path, bundle: Bundle) -> str:
    held = look_at_bundle(node, sys.executable, str(place), bundle)
    assert held.is_there
    return held.damage


def imported(place: Path, cache: bytes) -> None:
    """As if a run had imported a module, whose bytecode then is this."""
    folder = place / "engine" / "deep" / "__pycache__"
    folder.mkdir()
    (folder / f"a.{sys.implementation.cache_tag}.pyc").write_bytes(cache)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES = (empty, cut, flip, Path.unlink, to_directory, to_dangling_link)


def test_a_whole_bundle_is_left_alone(tmp_path: Path) -> None:
    node, bundle, place = bundle_in(tmp_path)
    assert damage_of(node, place, bundle) == ""
    imported(place, b"\0" * 3)  # without a header: the importer makes it anew
    (place / "own-notes.txt").write_text("what a user's module writes beside itself")
    assert damage_of(node, place, bundle) == ""
    assert not (place / DAMAGED_NAME).exists()


def test_a_bundle_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    held = look_at_bundle(LocalNode("a"), sys.executable, str(tmp_path / "b"), pack_modules(FILES))
    assert not held.is_there
    assert not held.is_sound
    assert held.damage == ""


@pytest.mark.parametrize("name", [*FILES, LIST_NAME])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bundle_is_replaced(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    node, bundle, place = bundle_in(tmp_path)
    if damage in (empty, cut, flip) and not FILES.get(name, b"x"):
        pytest.skip("an empty file cannot be cut")
    damage(place / name)
    words = damage_of(node, place, bundle)
    assert name in words or "list of files" in words
    ship(node, str(tmp_path), bundle, "r2@a")
    assert damage_of(node, place, bundle) == ""
    assert {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()} == {
        **FILES,
        LIST_NAME: (place / LIST_NAME).read_bytes(),
    }
    assert [path.name for path in place.parent.iterdir()] == [bundle.name], "nothing is left beside"


def test_bytecode_that_is_cut_short_is_damage(tmp_path: Path) -> None:
    node, bundle, place = bundle_in(tmp_path)
    whole = compile(FILES["engine/deep/a.py"], "a.py", "exec")
    import marshal

    imported(place, b"\0" * 16 + marshal.dumps(whole))
    assert damage_of(node, place, bundle) == ""
    cut(next(place.rglob("*.pyc")))
    assert "pyc is cut short" in damage_of(node, place, bundle)
    ship(node, str(tmp_path), bundle, "r2@a")
    assert not list(place.rglob("*.pyc"))


def test_of_two_that_find_the_damage_the_second_takes_nothing_from_under_the_first(
    tmp_path: Path,
) -> None:
    node, bundle, place = bundle_in(tmp_path)
    cut(place / "constraints.txt")
    for _ in range(2):
        assert damage_of(node, place, bundle)
    ship(node, str(tmp_path), bundle, "first@a")
    (place / "in-use").touch()
    ship(node, str(tmp_path), bundle, "second@b")
    assert (place / "in-use").exists()


def environment_in(workdir: Path) -> Path:
    """One that was made, with two packages of which one has libraries."""
    place = workdir / "venvs" / environment_name(PINS, MINOR)
    folder = place / "lib"
    for line in PINS.split():
        name, _, version = line.partition("==")
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}+cpu\n")
    (folder / "libtorch.so.2").write_bytes(b"elf" * 10)
    record = "libtorch.so.2,sha256=x,30\ntorch/a.py,sha256=x,99\ntorch/b.so,,\n"
    (folder / "torch").mkdir()
    (folder / "torch" / "b.so").write_bytes(b"elf")
    (folder / "torch-2.4.0.dist-info" / "RECORD").write_text(record)
    (place / "bin").mkdir()
    python = place / "bin" / "python"
    start = "import sys; sys.path.append(sys.argv.pop(1)); exec(sys.argv.pop(1))"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] || exit 9\nscript="$2"; shift 2\n'
        f'exec {sys.executable} -I -S -c "{start}" "${{0%/bin/*}}/lib" "$script" "$@"\n'
    )
    python.chmod(0o755)
    (place / COMPLETE_NAME).touch()
    return place


def test_a_whole_environment_is_left_alone(tmp_path: Path) -> None:
    place = environment_in(tmp_path)
    assert look_at_environment(LocalNode("a"), str(place), PINS).damage == ""
    assert look_at_environment(LocalNode("a"), str(place), PINS).is_sound


def remove_package(place: Path) -> None:
    shutil.rmtree(place / "lib" / "numpy-1.26.dist-info")


def change_version(place: Path) -> None:
    (place / "lib" / "numpy-1.26.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 2.0\n")


def lose_interpreter(place: Path) -> None:
    to_dangling_link(place / "bin" / "python")


def break_interpreter(place: Path) -> None:
    (place / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")


def silence_interpreter(place: Path) -> None:
    """As a shell runs an empty file."""
    (place / "bin" / "python").write_text("#!/bin/sh\n")


ENVIRONMENT_DAMAGES = [
    (remove_package, "numpy is missing"),
    (change_version, "numpy is 2.0, not 1.26"),
    (lose_interpreter, "its interpreter does not work"),
    (break_interpreter, "its interpreter does not work"),
    (silence_interpreter, "its interpreter does not work"),
    (lambda place: empty(place / "lib" / "libtorch.so.2"), "libtorch.so.2 has 0 of 30 bytes"),
    (lambda place: cut(place / "lib" / "libtorch.so.2"), "libtorch.so.2 has 29 of 30 bytes"),
    (lambda place: (place / "lib" / "torch" / "b.so").unlink(), "b.so is missing"),
]


class QuickNode(LocalNode):
    """Its environments are copies of one, as installing takes most time."""

    def __init__(self) -> None:
        super().__init__("a")
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        self.commands.append(list(command))
        if "venv" in command:
            new = Path(command[-1])
            made = environment_in(new.parent / "pattern")
            (made / COMPLETE_NAME).unlink()
            made.rename(new)
            shutil.rmtree(new.parent / "pattern")
            return Completed(0, "", "")
        return Completed(0, "", "") if "pip" in command else super().run(command, timeout_s)


@pytest.mark.parametrize(("damage", "words"), ENVIRONMENT_DAMAGES)
def test_a_damaged_environment_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], words: str
) -> None:
    place, node = environment_in(tmp_path), QuickNode()
    damage(place)
    bare = ProbeFacts(**facts(packages={"torch": None}))  # type: ignore[arg-type]
    probed: list[str] = []

    def probe(_node: object, path: str, *_: object) -> ProbeFacts:
        probed.append(path)
        return bare

    monkeypatch.setattr(environment, "probe", probe)
    monkeypatch.setattr(environment, "minor_of", lambda _: minor_of(bare.python))
    host = Host(name="a", connection="local", address="", ports=None, workdir=str(tmp_path))
    found = find_interpreter(node, host, PINS)
    assert words in found.damage
    assert f"{place}/bin/python" not in probed, "what is damaged is not used to make another"
    python = make_environment(node, found, str(tmp_path), str(tmp_path), PINS, "r@a")
    assert python == f"{place}/bin/python"
    assert look_at_environment(node, str(place), PINS).is_sound
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    node.commands.clear()
    again = Interpreter(found.path, bare)
    make_environment(node, again, str(tmp_path), str(tmp_path), PINS, "r2@a")
    assert node.commands == [], "and once is enough"


def test_one_that_could_not_be_made_anew_is_tried_again(tmp_path: Path) -> None:
    place = environment_in(tmp_path)
    remove_package(place)
    (place / COMPLETE_NAME).rename(place / DAMAGED_NAME)  # and then the disk was full
    assert "numpy" in look_at_environment(LocalNode("a"), str(place), PINS).damage


def test_check_says_that_an_environment_is_damaged() -> None:
    bare = ProbeFacts(**facts(packages={"torch": None}))  # type: ignore[arg-type]
    finding = judge_versions(bare, "", "numpy is missing")
    assert "numpy is missing" in finding.detail
    assert "anew" in finding.detail


class RemoteNode(QuickNode):
    """This machine, treated as another one."""

    def __init__(self) -> None:
        super().__init__()
        self.is_remote = True


def test_up_says_what_it_sends_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    given = {
        "name": "a",
        "connection": "ssh",
        "ssh_host": "a",
        "address": "192.0.2.1",
        "ports": None,
        "workdir": str(tmp_path),
        "python": sys.executable,
    }
    host, node = msgspec.convert(given, Host), RemoteNode()
    monkeypatch.setattr("tianji_cli.provisioning.provision.start_supervisor", lambda *_: None)

    def provision(run_id: str) -> list[str]:
        seen.clear()
        modules = OwnModules((), ("corridor.py",), {"corridor.py": b"x = 1"})
        order = ProvisionRequest(run_id=run_id, local_run_dir="/local", modules=modules)
        watch = lambda _, phase, detail: seen.append((phase, detail))  # noqa: E731
        Provisioner(order, watch, lambda *_: node).provision([host])
        return [detail for phase, detail in seen if phase == "ship"]

    assert len(provision("one")) == 2
    (again,) = provision("two")
    assert again.endswith("is there")
    for path in (tmp_path / "bundles").glob("*/*.*"):
        if path.name in (CONSTRAINTS_NAME, "corridor.py"):
            cut(path)
    bundle, own = provision("three")
    assert f"{CONSTRAINTS_NAME} does not have its checksum): sent anew" in bundle
    assert "corridor.py does not have its checksum): sent anew" in own
    assert len(provision("four")) == 1
