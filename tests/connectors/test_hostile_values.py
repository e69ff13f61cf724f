"""Names, paths and values with quotes, spaces, newlines and `$(...)`: kept as they are, never run.

Every command line is given to a real shell, as sshd gives it to the user's. Each hostile value
would leave a file named PWNED if any part of it were executed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engine.config.config_file import apply_settings, overlaid_experiment, parse_yaml
from engine.errors import ConfigError
from engine.testing import make_experiment
from tests.helpers.keepers import KeptNode, read_all
from tests.helpers.paths import REPOSITORY
from tianji_cli.config.inventory import Host, load_inventory
from tianji_cli.connectors.host_keys import accept_command
from tianji_cli.connectors.target import Target
from tianji_cli.provisioning.bundle import Bundle
from tianji_cli.provisioning.probe import probe
from tianji_cli.provisioning.shipping import make_directories, ship
from tianji_cli.runs.host_control import look_at_part, remove_part
from tianji_cli.storage.deployment import INSPECTOR, HostPart
from tianji_cli.storage.run_dir import check_run_id, resolve_run

MARK = "PWNED"
HOSTILE = (
    f"$(touch {MARK})",
    f"`touch {MARK}`",
    f"; touch {MARK} #",
    f"a' ; touch {MARK} ; 'b",
    f'a" ; touch {MARK} ; "b',
    f"a\ntouch {MARK}\nb",
    f"a && touch {MARK}",
    f"a | touch {MARK}",
    f"a > {MARK}",
    'it\'s "quoted"',
    "two  words ",
    "${IFS}x*?[a]",
    "back\\slash\\",
    "-rf",
    "~root",
    "é 日本\t!",
)
IDS = [repr(value) for value in HOSTILE]


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(MARK)), "a part of a value was executed"


def in_shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **env},
    )


@pytest.fixture(scope="module")
def node() -> Iterator[KeptNode]:
    """This machine as a host over SSH is used: a shell reads the script that becomes a keeper, and
    looks for an interpreter of any name."""
    found = KeptNode(pythons=[*HOSTILE, sys.executable])
    yield found
    found.close()


def part_on(host: Host, python: str, run_dir: str) -> HostPart:
    """Of a run of these very sources."""
    source = str(REPOSITORY)
    return HostPart(host=host, python=python, source=source, run_dir=run_dir, inspector=INSPECTOR)


def test_the_marks_would_show_an_execution(tmp_path: Path):
    """The tests below can fail: unquoted, the same values do run."""
    in_shell(f"echo {HOSTILE[0]}")
    assert (tmp_path / MARK).exists()
    (tmp_path / MARK).unlink()


SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['VALUE'], os.getcwd()]))"


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_a_supervisor_gets_words_environment_and_directory_as_they_are(
    node: KeptNode, tmp_path: Path, value: str
):
    directory = tmp_path / f"x{value.replace('/', '_')}"
    directory.mkdir()
    env: Mapping[str, str] = {"VALUE": value}
    connection = node.spawn([sys.executable, "-c", SHOW, value, ""], env, str(directory))
    said = read_all(connection.from_supervisor)
    assert json.loads(said) == [[value, ""], value, str(directory)], connection.error_output()
    connection.close()


def test_a_host_is_prepared_and_cleaned_below_any_directory(node: KeptNode, tmp_path: Path):
    """All steps that touch the working directory of a host, in the order of a run."""
    workdir = str(tmp_path.joinpath("root", *HOSTILE))
    facts = probe(node, sys.executable, workdir, ["msgspec"])
    assert facts is not None
    make_directories(node, [workdir, f"{workdir}/bundles"])
    assert Path(workdir).is_dir()
    subprocess.run(["tar", "-cf", "b.tar", "--files-from", os.devnull], check=True)
    bundle = Bundle(name="b-1", data=Path("b.tar").read_bytes())
    ship(node, workdir, bundle, "run")
    assert [path.name for path in (Path(workdir) / "bundles").iterdir()] == ["b-1"]
    run_dir = f"{workdir}/runs/run"
    make_directories(node, [run_dir])
    host = Host(name="box", connection="local", address="127.0.0.1", ports=None)
    source = str(REPOSITORY)
    part = HostPart(
        host=host, python=sys.executable, source=source, run_dir=run_dir, inspector=INSPECTOR
    )
    assert look_at_part(node, part, "run").marked == []
    remove_part(node, part, "run")
    assert not Path(run_dir).exists()
    assert Path(workdir).is_dir(), "nothing but the run's directory is removed"


def test_an_interpreter_may_lie_below_a_directory_with_an_equals_sign(
    node: KeptNode, tmp_path: Path
):
    """env(1) takes every word with `=` in it for a variable until it meets one without."""
    directory = tmp_path / "venv=1"
    directory.mkdir()
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    connection = node.spawn([str(python), "-c", SHOW, "A=1"], {"VALUE": "2"})
    said = read_all(connection.from_supervisor)
    assert json.loads(said)[:2] == [["A=1"], "2"], connection.error_output()
    connection.close()
    host = Host(name="box", connection="local", address="127.0.0.1", ports=None)
    source = str(REPOSITORY)
    part = HostPart(
        host=host,
        python=str(python),
        source=source,
        run_dir=str(tmp_path / "run"),
        inspector=INSPECTOR,
    )
    assert look_at_part(node, part, "run").marked == []


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_advice_can_be_pasted_into_a_shell(tmp_path: Path, value: str):
    """Commands that errors print name hosts and files of the user's own configuration."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ssh", "ssh-keyscan"):
        (programs / name).write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
        (programs / name).chmod(0o755)
    trusted = str(tmp_path / f"k{value.replace('/', '_')}")
    for jumps in ((), (Target(alias="j", hostname="j", port=22, user=value),)):
        target = Target(
            alias=value, hostname=value, port=2222, user="u", known_hosts=(trusted,), jumps=jumps
        )
        done = in_shell(accept_command(target), PATH=f"{programs}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stderr
        said = done.stdout if jumps else Path(trusted).read_text()
        assert value in said


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_an_inventory_refuses_it_as_a_name_and_keeps_it_as_a_path(tmp_path: Path, value: str):
    path = tmp_path / "hosts.yaml"

    def load(name: str, **host: object) -> Host:
        path.write_text(json.dumps({"version": 1, "hosts": {name: host}}))
        (found,) = load_inventory(path).hosts
        return found

    with pytest.raises(ConfigError, match=r"cannot name a host|bracket"):
        load(value)
    kept = load("box", workdir=value, python=value, key=value, env={"A": value})
    assert (kept.workdir, kept.python, kept.key, kept.env["A"]) == (value,) * 4
    with pytest.raises(ConfigError, match="cannot name an environment variable"):
        load("box", env={value: "1"})
    if value not in ("~root", "back\\slash\\"):
        for key in ("ssh_host", "user", "jump"):
            with pytest.raises(ConfigError, match=f"invalid character in `{key}`"):
                load("box", **{key: value})


@pytest.mark.parametrize("key", ["workdir", "python", "key", "known_hosts"])
def test_a_zero_byte_is_refused_before_a_process_gets_it(tmp_path: Path, key: str):
    path = tmp_path / "hosts.yaml"
    for host in ({key: "a\0b"}, {"env": {"A": "a\0b"}}):
        path.write_text(json.dumps({"version": 1, "hosts": {"box": host}}))
        with pytest.raises(ConfigError, match="zero byte") as error:
            load_inventory(path)
        assert "hosts.box" in error.value.where


def test_usual_ways_to_hosts_are_still_accepted(tmp_path: Path):
    path = tmp_path / "hosts.yaml"
    for host in (
        {"ssh_host": "fe80::1%eth0", "user": "ann.b"},
        {"ssh_host": "a_b-c.lab", "user": "LAB\\ann"},
        {"jump": "ann@gate:2222, [2001:db8::1]:22"},
    ):
        path.write_text(json.dumps({"version": 1, "hosts": {"box": host}}))
        assert load_inventory(path).hosts


@pytest.mark.parametrize("value", [*HOSTILE, "../up", "a/b", ".", "..", "", "a\0b"])
def test_a_run_is_never_named_like_that(tmp_path: Path, value: str):
    with pytest.raises(ConfigError):
        check_run_id(value, "--name")
    if value not in (".", "..", "", "../up"):
        with pytest.raises(ConfigError):
            resolve_run(tmp_path, value)


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_a_setting_is_a_value_and_nothing_else(value: str):
    """`-s` values are YAML, so text is quoted as JSON here; what is read is what was meant."""
    experiment, _ = overlaid_experiment(make_experiment(), "base", [f"env.id={json.dumps(value)}"])
    assert experiment.env.id == value
    with pytest.raises(ConfigError):
        overlaid_experiment(make_experiment(), "base", [f"{value}=1"])
    raw = parse_yaml("a: 1", source="s")
    try:
        apply_settings(raw, [f"env.id={value}"])
    except ConfigError as error:
        assert error.where.startswith("-s env.id")  # noqa: PT017 - either is right
