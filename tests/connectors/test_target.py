"""Where `ssh` would go: inventory over ~/.ssh/config, jumps, keys."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.ssh import read_user_config
from tianji_cli.connectors.target import Target, resolve_target

CONFIG = """
Host box1
  HostName box1.example.org
  User ann
  Port 2222
  IdentityFile ~/.ssh/id_lab
  UserKnownHostsFile /k/one
Host inner
  HostName 10.0.0.5
  ProxyJump box1
Host deep
  ProxyJump inner
Host loop1
  ProxyJump loop2
Host loop2
  ProxyJump loop1
Host strict
  IdentityFile /i
  IdentitiesOnly yes
Host behind
  ProxyCommand nc %h %p
Host *
  User default
"""


@pytest.fixture
def resolve(tmp_path: Path):
    path = tmp_path / "config"
    path.write_text(CONFIG)
    lookup = read_user_config(path).lookup

    def resolve(ssh_host: str, **more: object) -> Target:
        given = {"name": "h", "connection": "ssh", "ssh_host": ssh_host, "address": ""}
        given["ports"] = None
        return resolve_target(msgspec.convert({**given, **more}, Host), lookup)

    return resolve


def test_an_alias_brings_all_that_ssh_knows(resolve) -> None:
    target = resolve("box1")
    assert target.endpoint == "ann@box1.example.org:2222"
    assert target.keys == (str(Path("~/.ssh/id_lab").expanduser()),)
    assert target.known_hosts == ("/k/one",)
    assert target.key_name == "[box1.example.org]:2222"
    assert target.uses_agent
    assert not target.jumps


def test_the_inventory_wins(resolve) -> None:
    target = resolve("box1", user="bob", port=22, key="/mine", known_hosts="/k/two")
    assert target.endpoint == "bob@box1.example.org"
    assert target.keys == ("/mine",)
    assert target.known_hosts == ("/k/two",)


def test_jumps_of_jumps(resolve) -> None:
    assert [jump.endpoint for jump in resolve("deep").jumps] == [
        "ann@box1.example.org:2222",
        "default@10.0.0.5",
    ]


def test_a_jump_of_the_inventory_replaces_that_of_the_config(resolve) -> None:
    target = resolve("inner", jump="eve@gate:2200", known_hosts="/k", key="/mine")
    (jump,) = target.jumps
    assert jump.endpoint == "eve@gate:2200"
    assert jump.known_hosts == ("/k",)
    assert jump.keys == ("/mine",)
    assert not resolve("inner", jump="none").jumps


def test_other_options(resolve) -> None:
    assert not resolve("strict").uses_agent
    assert resolve("behind").proxy_command == "nc behind 22"


def test_jumps_in_a_circle(resolve) -> None:
    with pytest.raises(ConfigError, match="circle"):
        resolve("loop1")


def test_no_config_at_all(tmp_path: Path) -> None:
    assert read_user_config(tmp_path / "none").lookup("x") == {"hostname": "x"}
