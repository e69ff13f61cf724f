"""The user's own configuration of ssh, in files as people have them, read as their client does."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ConfigError, DeadlineError
from tests.helpers.sshd_kit import no_configuration
from tianji_cli.config.inventory import Host
from tianji_cli.connectors import ssh_config
from tianji_cli.connectors.ssh_config import UserConfig, read_user_config
from tianji_cli.connectors.ssh_tokens import SshConfigError
from tianji_cli.connectors.target import Target, resolve_target

__all__ = ["no_configuration"]
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh client here")
Resolve = Callable[..., Target]


def host(ssh_host: str, **more: object) -> Host:
    return Host(name="h", connection="ssh", ssh_host=ssh_host, address="", ports=None, **more)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str | bytes], Resolve]:
    def write(text: str | bytes) -> Resolve:
        path = tmp_path / "config"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        lookup = read_user_config(path).lookup
        return lambda alias, **more: resolve_target(host(alias, **more), lookup)

    return write


@needs_ssh
def test_include_is_followed_also_within_a_host(config, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "10-lab.conf").write_text("Host box*\n  Port 2201\n  User ann\n")
    (tmp_path / "more" / "20-x.conf").write_text("Host box1\n  User late\n  HostName 10.0.0.1\n")
    (tmp_path / "only").write_text("Port 77\n")
    resolve = config(
        f"Host special\n  Include {tmp_path}/only\nHost *\n  Include {tmp_path}/more/*.conf\n"
    )
    assert resolve("box1").endpoint == "ann@10.0.0.1:2201"
    assert resolve("special").port == 77
    assert resolve("other").port == 22


@needs_ssh
@pytest.mark.parametrize(
    ("criteria", "alias", "more", "is_met"),
    [
        ("all", "a", {}, True),
        ("host a", "a", {}, True),
        ("host real.lab", "renamed", {}, True),
        ("originalhost renamed", "renamed", {}, True),
        ("originalhost real.lab", "renamed", {}, False),
        ("host *.lab,!real.lab", "renamed", {}, False),
        ("!host b", "a", {}, True),
        ("user ann", "a", {"user": "ann"}, True),
        ("user ann", "a", {"user": "bob"}, False),
        ("final all", "a", {}, True),
        ("final host real.lab", "renamed", {}, True),
        ("canonical all", "a", {}, False),
        ("exec true", "a", {}, True),
        ("exec false", "a", {}, False),
        ('exec "test %h = a"', "a", {}, True),
        ('exec "test %h = b"', "a", {}, False),
        ("host a exec true", "b", {}, False),
    ],
)
def test_match_of_every_kind(config, criteria: str, alias: str, more, is_met: bool) -> None:
    text = f"Host renamed\n  HostName real.lab\nMatch {criteria}\n  Port 4242\n"
    assert (config(text)(alias, **more).port == 4242) == is_met


@needs_ssh
def test_what_the_inventory_says_is_seen_by_match_and_wins(config) -> None:
    resolve = config(
        "Match user ann\n  HostName anns.lab\nMatch host anns.lab\n  Port 99\n"
        "Host *\n  User bob\n  IdentityFile /config\n"
    )
    target = resolve("a", user="ann", key="/mine")
    assert target.endpoint == "ann@anns.lab:99"
    assert target.keys == ("/mine",)
    assert resolve("a", port=5).endpoint == "bob@a:5"


@needs_ssh
def test_tokens_and_homes_of_files(config, no_configuration: Path, monkeypatch) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    target = config(
        "Host box\n  HostName %h.lab\n  Port 2222\n  User ann\n"
        "  IdentityFile ~/.ssh/id_%r@%h-%p-%n-%%\n  IdentityFile ${KEYS}%d\n"
        "  CertificateFile ~/c-%i\n  IdentityAgent ~/agent-%u\n"
        '  UserKnownHostsFile ~/.ssh/kh-%h "~/.ssh/with blank" /k/%k\n'
        "  GlobalKnownHostsFile /g/one /g/two\n  HostKeyAlias Rack7\n"
        "  ProxyCommand nc -x %n%% %h %p # %r\n"
    )("box")
    home = no_configuration
    assert target.keys == (f"{home}/.ssh/id_ann@box.lab-2222-box-%", f"/keys{home}")
    assert target.certificates == (f"{home}/c-{os.getuid()}",)
    assert target.agent is not None
    assert "/agent-" in target.agent
    assert [path.rpartition("/")[2] for path in target.known_hosts] == [
        "kh-box.lab",
        "with blank",
        "rack7",
    ]
    assert target.system_known_hosts == ("/g/one", "/g/two")
    assert target.key_name == "rack7"
    assert target.proxy_command is not None
    assert target.proxy_command.startswith("nc -x box% box.lab 2222")


@needs_ssh
def test_other_options_that_decide(config) -> None:
    target = config(
        "IdentitiesOnly yes\nIdentityAgent none\nStrictHostKeyChecking accept-new\n"
        "ConnectTimeout 7\nAddressFamily inet6\nUserKnownHostsFile none\n"
        "RevokedHostKeys ~/revoked\n"
    )("a")
    assert not target.uses_agent
    assert target.agent is None
    assert (target.strictness, target.connect_s, target.family) == ("accept-new", 7.0, "inet6")
    assert target.known_hosts == ("none",)
    assert target.revoked_host_keys.endswith("/revoked")


@needs_ssh
@pytest.mark.parametrize(
    ("jump", "endpoints"),
    [
        ("gate", ["g@gate.lab:2022"]),
        ("ann@gate", ["ann@gate.lab:2022"]),
        ("ann@gate:22", ["ann@gate.lab"]),
        ("ssh://ann@gate:5", ["ann@gate.lab:5"]),
        ("[2001:db8::1]:2200", ["me@[2001:db8::1]:2200"]),
        ("ann@[fe80::1]", ["ann@[fe80::1]"]),
        ("one,two", ["me@one", "me@two"]),
        ("gate,ann@two:7", ["g@gate.lab:2022", "ann@two:7"]),
        ("inner", ["g@gate.lab:2022", "me@inner"]),
        ("one,inner", ["me@one", "me@inner"]),
        ("none", []),
    ],
)
@pytest.mark.parametrize("place", ["configuration", "inventory"])
def test_jumps(config, jump: str, endpoints: list[str], place: str) -> None:
    """The first of several goes by its own configuration, each other one through those before."""
    text = "Host gate\n  HostName gate.lab\n  Port 2022\n  User g\nHost inner\n  ProxyJump gate\n"
    text += f"Host far\n  ProxyJump {jump}\n" if place == "configuration" else ""
    resolve = config(f"{text}Host *\n  User me\n")
    target = resolve("far") if place == "configuration" else resolve("far", jump=jump)
    assert [hop.endpoint for hop in target.jumps] == endpoints
    assert target.proxy_command is None


@needs_ssh
def test_a_jump_of_the_inventory_may_be_a_uri_with_brackets_and_blanks(config) -> None:
    target = config("")("far", jump="ssh://ann@[2001:db8::1]:22, bob@two", user="x")
    assert [hop.endpoint for hop in target.jumps] == ["ann@[2001:db8::1]", "bob@two"]


@needs_ssh
def test_bytes_of_old_editors(config) -> None:
    text = "# f\xfcr das Labor\r\nHost box\r\n  HostName 10.1.1.1 \r\n  User ann\r\n"
    assert config(text.encode("latin-1"))("box").endpoint == "ann@10.1.1.1"
    tabs = 'Host=box\n\tHostName\t=\t10.1.1.1\n\tUser "ann"\n'
    assert config(tabs)("box").endpoint == "ann@10.1.1.1"
    with pytest.raises(SshConfigError) as caught:
        config(b"\xef\xbb\xbfHost box\n")("box")
    assert "byte order mark" in caught.value.fix
    assert caught.value.where.endswith("config:1")


@needs_ssh
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("Host a\n  Bogus 1\n", 2, "bogus"),
        ("Host a\n\n  Port x\n", 3, "x"),
        ("Match bogus\n", 1, "Match"),
        ("Host a\n  ProxyJump a:b:c\n", 2, "ProxyJump"),
    ],
)
def test_an_error_of_the_client_names_file_and_line(config, text: str, line: int, words: str):
    with pytest.raises(SshConfigError) as caught:
        config(text)("a")
    assert caught.value.where.endswith(f"config:{line}")
    assert words.lower() in caught.value.what.lower()
    assert caught.value.exit_code == 2
    assert "ssh -G a" in caught.value.fix


@needs_ssh
def test_a_client_that_hangs_is_ended_with_all_it_started(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ssh_config, "ASK_S", 0.5)
    (tmp_path / "alive").touch()
    script = f"while [ -e {tmp_path}/alive ]; do touch {tmp_path}/beat; sleep 0.05; done"
    resolve = config(f'Match exec "{script}"\n  Port 1\n')
    with pytest.raises(DeadlineError, match="Match exec"):
        resolve("a")
    (tmp_path / "beat").unlink(missing_ok=True)  # on a busy machine it did not come that far
    time.sleep(0.3)  # several turns of the script, if it still ran
    assert not (tmp_path / "beat").exists()


@needs_ssh
def test_a_host_is_asked_for_once(config, tmp_path: Path) -> None:
    resolve = config(f'Match exec "echo x >> {tmp_path}/asked"\n  User u\n')
    for _ in range(3):
        assert resolve("a").user == "u"
    once = (tmp_path / "asked").read_text()
    resolve("b")
    assert len((tmp_path / "asked").read_text()) == 2 * len(once)


@needs_ssh
def test_the_configuration_lies_below_the_home_that_the_environment_names(
    no_configuration: Path,
) -> None:
    folder = no_configuration / ".ssh"
    folder.mkdir()
    (folder / "config").write_text("Host box\n  User ann\n  UserKnownHostsFile ~/.ssh/kh\n")
    target = resolve_target(host("box"), read_user_config().lookup)
    assert target.user == "ann"
    assert target.known_hosts == (f"{folder}/kh",)
    (folder / "config").unlink()
    assert resolve_target(host("box"), read_user_config().lookup).user != "ann"


def without_client(path: Path) -> Resolve:
    config = UserConfig(path, None)
    return lambda alias, **more: resolve_target(host(alias, **more), config.lookup)


def test_without_a_client_plain_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(
        b"# caf\xe9\r\nHost box\r\n  HostName 10.0.0.1\r\n  User ann\r\n  Port 2222\r\n"
        b"  ProxyJump gate:22\r\nMatch user eve\r\n  Port 77\r\n"
    )
    target = without_client(path)("box")
    assert target.endpoint == "ann@10.0.0.1:2222"
    assert [hop.endpoint.rpartition("@")[2] for hop in target.jumps] == ["gate"]
    assert without_client(path)("other", user="eve").port == 77


@pytest.mark.parametrize(
    "line",
    [
        "Include other",
        "include = other",
        "Match exec true",
        "Match final all",
        "Match canonical all",
        "Match tagged x",
        "Match localnetwork 10.0.0.0/8",
        "Match HOST a",
        'Match host "a" exec x',
        "CanonicalizeHostname yes",
        "User ann # me",
        "\ufeffHost a",
    ],
)
def test_without_a_client_nothing_is_guessed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "config"
    path.write_text(f"Host x\n  User u\n{line}\n  Port 1\n")
    with pytest.raises(ConfigError) as caught:
        without_client(path)("a")
    assert caught.value.where.endswith("config:3")
    assert "no `ssh` here" in caught.value.what
    assert "openssh-client" in caught.value.fix
