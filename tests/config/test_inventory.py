"""Inventories: ranges, groups, precedence, refusals."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from tests.helpers.paths import REPOSITORY
from tianji_cli.config.inventory import Inventory, check_host, load_inventory
from tianji_cli.config.inventory_file import as_file
from tianji_cli.config.inventory_schema import RaySpec, expand_range
from tianji_cli.storage.consent import words_of_host
from tianji_cli.storage.json_files import write_json

SHIPPED = sorted((REPOSITORY / "inventories").glob("*.yaml"))


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str) -> Inventory:
        path = tmp_path / "hosts.yaml"
        path.write_text(f"version: 1\n{text}")
        return load_inventory(path)

    return load


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_example_can_be_loaded(path: Path) -> None:
    assert load_inventory(path).hosts


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("box", ["box"]),
        ("box[9-11]", ["box9", "box10", "box11"]),
        ("n[008-010]", ["n008", "n009", "n010"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("box[3-3].lab", ["box3.lab"]),
    ],
)
def test_ranges(pattern: str, names: list[str]) -> None:
    assert expand_range(pattern) == names


@pytest.mark.parametrize("pattern", ["box[3-1]", "box[1-", "box[a-b]", "box[0-99999]", "box]"])
def test_what_is_no_range_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"box"):
        expand_range(pattern)


def test_host_wins_over_group_wins_over_defaults(load) -> None:
    inventory = load(
        """
defaults: {user: d, port: 1, python: /d, env: {A: d, B: d, C: d}}
groups:
  all: {hosts: ["box[1-2]"], port: 2, python: /g, env: {B: g, C: g}, roles: {actor: 8}}
hosts:
  box2: {python: /h, env: {C: h}}
"""
    )
    two, one = inventory.hosts
    assert (two.name, one.name) == ("box2", "box1")
    assert (one.user, one.port, one.python) == ("d", 2, "/g")
    assert (two.user, two.port, two.python) == ("d", 2, "/h")
    assert two.env == {"A": "d", "B": "g", "C": "h"}
    assert one.roles == two.roles == {"actor": 8}


def test_the_later_group_wins(load) -> None:
    (host,) = load("groups:\n  a: {hosts: [x], port: 1}\n  b: {hosts: [x], port: 2}\n").hosts
    assert host.port == 2


def test_a_bare_name_is_an_ssh_alias_with_the_default_ports(load) -> None:
    (host,) = load("hosts: {box1: }\n").hosts
    assert (host.connection, host.ssh_host, host.address) == ("ssh", "box1", "")
    assert host.ports == (29500, 29600)


def test_localhost_needs_no_ssh(load) -> None:
    (host,) = load("hosts: {localhost: {}}\n").hosts
    assert (host.connection, host.address, host.ports) == ("local", "127.0.0.1", None)


def test_localhost_with_an_ssh_host_is_behind_ssh(load) -> None:
    (host,) = load("hosts: {localhost: {ssh_host: 192.0.2.1}}\n").hosts
    assert (host.connection, host.ssh_host) == ("ssh", "192.0.2.1")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("hosts: {a: {pasword: x}}", "hosts.yaml:2: hosts.a.pasword", "unknown key"),
        ("hosts: {a: {password: x}}", "hosts.a.password", "unknown key"),
        ("hosts: {a: {address: nine}}", "hosts.a.address", "IP address"),
        ("defaults: {address: nine}\nhosts: {a: {}}", "defaults.address", "IP address"),
        ("hosts: {a: {ports: 9-1}}", "hosts.a.ports", "range of ports"),
        ("groups: {g: {hosts: [a], ports: x}}", "groups.g.ports", "range of ports"),
        ("hosts: {a: {port: 70000}}", "hosts.a.port", "port"),
        ("hosts: {a: {env: {A-B: 1}}}", "hosts.a.env", "environment variable"),
        ("hosts: {'a b': {}}", "hosts.a b", "cannot name a host"),
        ("hosts: {'a[2-1]': {}}", "hosts.a[2-1]", "backwards"),
        ("hosts: {a: {roles: {actr: 1}}}", "hosts.a.roles.actr", "unknown key"),
        ("hosts: {a: {connection: local, ssh_host: b}}", "hosts.a.ssh_host", "this machine"),
        ("hosts: {}", "hosts", "no host"),
        ("hosts:\n  a:\n  b: 3", "4: hosts.b", "expected `mapping | null`"),
        ("hosts:\n  a: {env: {A: x, B: [1]}}", "3: hosts.a.env.B", "got `array`"),
        ("hosts: {1: {}}", "2: hosts", "expected `str`, got `int` for a key"),
        (
            "hosts:\n  a: {connection: ray, ray: {address: 'http://head:8265'}}",
            "hosts.yaml:3: hosts.a.ray",
            "is not HOST:PORT of a Ray cluster",
        ),
        (
            "hosts:\n  a: {connection: ray, ssh_host: b}",
            "hosts.yaml:3: hosts.a.ssh_host",
            "is reached through Ray",
        ),
    ],
)
def test_refusals_name_file_and_key(load, text: str, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text + "\n")
    assert where in caught.value.where
    assert what in caught.value.what


def test_a_host_on_ray_gets_what_is_asked_for_and_no_more(load) -> None:
    text = (
        "defaults: {connection: ray, ray: {address: 'head:6379'}}\nhosts: {a: {gpus: [1]}, b: {}}"
    )
    a, b = load(text).hosts
    assert (a.cores, a.gpus, b.cores, b.gpus) == (1, (1,), 1, ())
    assert (b.address, b.ports, b.ssh_host) == ("", (29500, 29600), "")
    assert b.ray is not None
    assert (b.ray.address, b.ray.without_token) == ("head:6379", False)
    assert "as a driver of Ray cluster head:6379" in words_of_host(b)
    check_host(b, "here")
    bad = msgspec.structs.replace(b, ray=RaySpec(address="head:6379 --x"))
    with pytest.raises(ConfigError, match="not HOST:PORT"):
        check_host(bad, "here")


def test_limit(load) -> None:
    inventory = load('hosts: {"box[1-12]": {}, gpu: {}}\n')
    assert [h.name for h in inventory.limited(["box1?", "gpu"]).hosts] == [
        "box10",
        "box11",
        "box12",
        "gpu",
    ]
    assert inventory.limited([]) == inventory
    with pytest.raises(ConfigError, match="no host matches"):
        inventory.limited(["nothing*"])


def names(inventory, *patterns: str) -> str:
    return " ".join(host.name for host in inventory.limited(list(patterns)).hosts)


def test_limits_take_groups_lists_and_exclusions(load) -> None:
    text = 'hosts: {"a[1-3]": {}, b: {}}\ngroups: {fast: {hosts: [a2, b]}, slow: {hosts: [a3]}}\n'
    inventory = load(text)
    assert names(inventory, "fast") == "a2 b"
    assert names(inventory, "a1,slow") == "a1 a3"
    assert names(inventory, "!a2") == "a1 a3 b"
    assert names(inventory, "a*", "!fast") == "a1 a3"
    assert names(inventory, "s*") == "a3"
    for pattern, what in (("fsat", "no host matches"), ("b,!fast", "no host is left")):
        with pytest.raises(ConfigError, match=what) as caught:
            inventory.limited([pattern])
        assert caught.value.where.startswith("--limit ")
    with pytest.raises(ConfigError) as caught:
        inventory.limited(["!x"])
    assert caught.value.fix == "hosts: a1, a2, a3, b; groups: fast, slow"


def test_what_is_written_for_a_run_is_read_again(load, tmp_path: Path) -> None:
    """As a study does for each run; how many actors a host gets is found for each run."""
    text = "hosts: {localhost: {pin: false}, far: {cores: 4, ports: 29500-29509, env: {A: b}}}"
    inventory = load(text)
    chosen = tuple(msgspec.structs.replace(host, actors=3) for host in inventory.hosts)
    path = tmp_path / "written.json"
    write_json(path, as_file(msgspec.structs.replace(inventory, hosts=chosen)))
    again = load_inventory(path)
    assert msgspec.structs.replace(again, source=inventory.source) == inventory
