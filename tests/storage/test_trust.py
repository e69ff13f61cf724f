"""Results from elsewhere name hosts and programs: without the user's word they are not used."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.control_protocol import HostFacts
from engine.errors import CleanupError, ConfigError
from tests.helpers.fake_node import FakeNode
from tianji_cli.commands.down import down_command
from tianji_cli.commands.logs import LogsRequest, logs_command
from tianji_cli.commands.run_request import UpRequest, load
from tianji_cli.commands.status import status_command
from tianji_cli.config.inventory import Host, Inventory, load_inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.connectors.local import LocalNode
from tianji_cli.output import Output
from tianji_cli.runs.host_control import look_at_part, remove_part
from tianji_cli.runs.manifest import write_manifest
from tianji_cli.runs.resume import find_resume_point
from tianji_cli.storage import ownership
from tianji_cli.storage.consent import Consent, words_of_host
from tianji_cli.storage.deployment import Deployment, HostPart, read_deployment, write_deployment
from tianji_cli.storage.json_files import create_result_dir
from tianji_cli.storage.masking import MASK, filled, masked
from tianji_cli.storage.run_dir import RunPaths

LOCAL = Host(name="localhost", connection="local", address="127.0.0.1", ports=None)
EXPERIMENT, _ = load_experiment(find_file("experiments", "cartpole_ppo"), ["name=theirs"])
FACTS = HostFacts(
    hostname="h", os="o", cpu_model="c", num_cores=1, memory_bytes=1, gpus=[], versions={}
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user has begun nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tianji" / "begun"


@pytest.fixture
def trap(tmp_path: Path) -> tuple[Path, Path]:
    """An interpreter and a source directory that leave a file when they are run, and that file."""
    sprung = tmp_path / "sprung"
    evil = tmp_path / "evil"
    (evil / "engine" / "supervision").mkdir(parents=True)
    for place in (evil / "engine", evil / "engine" / "supervision"):
        (place / "__init__.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    (evil / "sitecustomize.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    python = evil / "python"
    python.write_text(f"#!/bin/sh\ntouch {sprung}\n")
    python.chmod(0o755)
    return python, sprung


def stranger(root: Path, python: str, host: Host = LOCAL) -> Path:
    """A run that was begun elsewhere: nothing here remembers it."""
    root.mkdir(parents=True)
    (root / "logs").mkdir()
    inventory = Inventory(source="hosts.yaml", hosts=(host,))
    manifest = {
        "schema_version": 1,
        "run_id": root.name,
        "experiment": msgspec.to_builtins(EXPERIMENT),
        "inventory": msgspec.to_builtins(inventory),
    }
    (root / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    part = HostPart(
        host=host, python=python, source=str(Path(python).parent), run_dir=f"/w/runs/{root.name}"
    )
    deployment = Deployment(run_id=root.name, parts=(part,))
    (root / "deployment.json").write_bytes(msgspec.json.encode(deployment))
    return root


def follow_logs(results: Path, name: str, output: Output, *, trusts: bool = False) -> int:
    return logs_command(results, LogsRequest(name, None, False, 9, trusts=trusts), output)


def resume(results: Path, name: str, output: Output, *, trusts: bool = False) -> int:
    load(UpRequest(None, None, [], results, None, resume=name, trusts=trusts), output)
    return 0


COMMANDS = [status_command, follow_logs, down_command, resume]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_strangers_run_is_shown_and_refused(
    command: Callable[..., int], tmp_path: Path, trap: tuple[Path, Path]
) -> None:
    python, sprung = trap
    stranger(tmp_path / "results" / "theirs", str(python))
    with pytest.raises(ConfigError, match="you did not start this") as caught:
        command(tmp_path / "results", "theirs", Output(verbosity=-1))
    assert "--trust" in caught.value.fix
    assert "localhost: this machine" in caught.value.what
    assert not sprung.exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.processes
def test_what_is_agreed_to_still_runs_no_program_of_its_own_here(
    command: Callable[..., int], tmp_path: Path, trap: tuple[Path, Path]
) -> None:
    """Older releases left such runs behind: they can be looked at and ended, by this program."""
    python, sprung = trap
    host = msgspec.structs.replace(LOCAL, env={"PYTHONPATH": str(python.parent)})
    stranger(tmp_path / "results" / "theirs", str(python), host)
    with suppress(ConfigError):  # it has neither logs nor checkpoints
        command(tmp_path / "results", "theirs", Output(verbosity=-1), trusts=True)
    assert not sprung.exists()


def test_agreeing_is_remembered_for_exactly_what_was_shown(tmp_path: Path) -> None:
    root = stranger(tmp_path / "theirs", "/usr/bin/python3")
    with pytest.raises(ConfigError):
        read_deployment(root)
    read_deployment(root, Consent(is_given=True))
    deployment = read_deployment(root)
    changed = msgspec.structs.replace(deployment.parts[0], python="/tmp/python")
    other = msgspec.structs.replace(deployment, parts=(changed,))
    (root / "deployment.json").write_bytes(msgspec.json.encode(other))
    with pytest.raises(ConfigError, match="you did not start this"):
        read_deployment(root)


def test_own_runs_are_own_wherever_they_lie(tmp_path: Path, state: Path) -> None:
    part = HostPart(host=LOCAL, python="python3", source="/s", run_dir="/w/runs/r")
    (tmp_path / "r").mkdir()
    write_deployment(tmp_path / "r", Deployment(run_id="r", parts=(part,)))
    (tmp_path / "r").rename(tmp_path / "moved")
    assert read_deployment(tmp_path / "moved").run_id == "r"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700


def test_what_others_could_have_written_is_not_believed(tmp_path: Path, state: Path) -> None:
    ownership.note_own("a" * 64)
    assert ownership.is_own("a" * 64)
    assert not ownership.is_own("b" * 64)
    state.chmod(0o666)
    assert not ownership.is_own("a" * 64)
    state.unlink()
    (tmp_path / "list").write_text("a" * 64 + "\n")
    state.symlink_to(tmp_path / "list")
    assert not ownership.is_own("a" * 64)
    assert not ownership.note_own("c" * 64)


def test_without_a_place_to_note_runs_the_user_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "state_directory", lambda: None)
    assert not ownership.note_own("a" * 64)
    assert not ownership.is_own("a" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../x"},
        {"name": "-oProxyCommand=touch x"},
        {"ssh_host": "-oProxyCommand=touch x"},
        {"ssh_host": "a;touch x"},
        {"user": "$(touch x)"},
        {"jump": "a,`touch x`"},
        {"address": "example.org"},
        {"port": 70000},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0"}},
        {"key": "/k\0"},
    ],
)
def test_a_host_that_no_inventory_can_name_is_refused_even_if_agreed_to(
    change: dict[str, object], tmp_path: Path
) -> None:
    host = Host(name="box", connection="ssh", ssh_host="box", address="192.0.2.9", ports=None)
    root = stranger(tmp_path / "r", "python3", msgspec.structs.replace(host, **change))
    agreed = Consent(is_given=True)
    with pytest.raises(ConfigError, match="no host of an inventory"):
        read_deployment(root, agreed)
    with pytest.raises(ConfigError, match="no host of an inventory"):
        find_resume_point(tmp_path, "r", agreed)


def test_the_resumed_run_of_a_stranger_shows_what_it_would_import(tmp_path: Path) -> None:
    stranger(tmp_path / "theirs", "/usr/bin/python3")
    with pytest.raises(ConfigError, match=r"experiment theirs: ppo on CartPole-v1"):
        find_resume_point(tmp_path, "theirs")


@pytest.mark.parametrize(
    "run_dir", ["/home/ann", "/", "/w/runs/other@a", "/w/runs/r@a/../..", "runs/r@a", "/w/r@a"]
)
def test_only_a_runs_own_directory_is_removed_from_a_host(run_dir: str) -> None:
    host = Host(name="a", connection="ssh", ssh_host="a", address="", ports=None)
    node = FakeNode(host, {})
    part = HostPart(host=host, python="python3", source="/s", run_dir=run_dir)
    with pytest.raises(CleanupError, match="not removed"):
        remove_part(node, part, "r")
    assert node.commands == []
    remove_part(node, msgspec.structs.replace(part, run_dir="/w/runs/r@a"), "r")
    assert node.commands == [["rm", "-rf", "--", "/w/runs/r@a"]]


@pytest.mark.processes
def test_a_local_part_is_asked_by_this_program(tmp_path: Path, trap: tuple[Path, Path]) -> None:
    python, sprung = trap
    part = HostPart(
        host=LOCAL, python=str(python), source=str(python.parent), run_dir=str(tmp_path / "r")
    )
    assert look_at_part(LocalNode("localhost"), part, "r").state is None
    assert not sprung.exists()


def test_values_of_env_are_in_no_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "hunter2-token"
    host = msgspec.structs.replace(LOCAL, env={"TOKEN": secret})
    inventory = Inventory(source="hosts.yaml", hosts=(host,))
    paths = RunPaths(tmp_path / "r")
    paths.root.mkdir()
    write_manifest(paths, EXPERIMENT, inventory, {"localhost": FACTS}, {}, {})
    part = HostPart(host=host, python="python3", source="/s", run_dir="/w/runs/r")
    write_deployment(paths.root, Deployment(run_id="r", parts=(part,)))
    create_result_dir(
        tmp_path / "bench" / "scaling.json", {"inventory": inventory, "hosts": [host]}
    )
    for path in (paths.manifest, paths.root / "deployment.json", tmp_path / "bench/scaling.json"):
        text = path.read_text()
        assert secret not in text
        assert "TOKEN" in text
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Output(is_json=True).document({"inventory": inventory})
    captured = capsys.readouterr()
    assert "TOKEN" in captured.out
    assert secret not in captured.out + words_of_host(host)
    assert host.env == {"TOKEN": secret}, "what runs is unchanged"


def test_going_on_takes_values_of_env_from_the_inventory_again(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text("version: 1\nhosts:\n  localhost:\n    env: {TOKEN: secret}\n")
    inventory = load_inventory(path)
    kept = masked(inventory)
    assert kept.hosts[0].env == {"TOKEN": MASK}
    assert filled(kept, "fix") == inventory
    assert filled(inventory, "fix") is inventory
    path.write_text("version: 1\nhosts:\n  localhost: {}\n")
    with pytest.raises(ConfigError, match=r"`env: TOKEN` is not kept"):
        filled(kept, "fix")
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read again"):
        filled(kept, "fix")


def test_documents_without_hosts_stay_the_same_objects() -> None:
    document = {"a": [1, (2, 3)], "b": EXPERIMENT}
    assert masked(document) is document
