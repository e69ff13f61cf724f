"""Keys, agents, certificates, host keys and ways through, against a real sshd on the loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError, HostUnreachableError, PreflightError, TianJiError
from tests.helpers.ipv6 import needs_ipv6
from tests.helpers.sshd_kit import Sshd, make_key, missing, no_configuration, serving
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.ssh import SshNode

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
__all__ = ["no_configuration"]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd") / "d", {"plain": "/bin/bash"}) as server:
        yield server


def log_in(host: Host) -> None:
    with contextlib.closing(SshNode(host)) as node:
        assert node.run(["echo", "in"], 20).stdout.strip() == "in"


def refused(host: Host) -> TianJiError:
    with pytest.raises(TianJiError) as caught:
        log_in(host)
    return caught.value


def write_config(home: Path, text: str) -> None:
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh" / "config").write_text(text)


@pytest.mark.parametrize(
    ("make", "words", "kind"),
    [
        (lambda path: None, "no such key file", ConfigError),
        (lambda path: path.write_text("garbage\n"), "holds no private key", ConfigError),
        (lambda path: path.write_bytes(os.urandom(400)), "holds no private key", ConfigError),
        (lambda path: path.write_text(""), "holds no private key", ConfigError),
        (lambda path: path.mkdir(), "no such key file", ConfigError),
        (
            lambda path: make_key(path).with_suffix(".pub").rename(path),
            "holds no private key",
            ConfigError,
        ),
        (lambda path: make_key(path, "-N", "secret"), "locked with a passphrase", PreflightError),
        (
            lambda path: make_key(path, "-N", "secret", "-t", "rsa", "-m", "PEM"),
            "locked with a passphrase",
            PreflightError,
        ),
        (lambda path: make_key(path).chmod(0o644), "others may read it", PreflightError),
        (lambda path: make_key(path), "accepts none of our keys", PreflightError),
    ],
    ids=[
        "none",
        "text",
        "bytes",
        "empty",
        "directory",
        "public",
        "locked",
        "locked pem",
        "open",
        "other",
    ],
)
def test_a_key_that_is_of_no_use_is_named_with_the_reason(
    sshd: Sshd, tmp_path: Path, make, words: str, kind: type[TianJiError]
) -> None:
    path = tmp_path / "key"
    make(path)
    error = refused(sshd.host(key=str(path)))
    assert type(error) is kind
    assert words in error.what
    assert str(path) in error.what
    assert error.exit_code in (2, 3)


@pytest.mark.parametrize(
    "words",
    [("-t", "rsa"), ("-t", "ecdsa"), ("-t", "rsa", "-m", "PEM"), ("-m", "PKCS8", "-t", "ecdsa")],
)
def test_keys_of_every_form(sshd: Sshd, tmp_path: Path, words: tuple[str, ...]) -> None:
    key = make_key(tmp_path / "key", *words)
    authorized = sshd.directory / "authorized"
    before = authorized.read_text()
    authorized.write_text(before + Path(f"{key}.pub").read_text())
    try:
        log_in(sshd.host(key=str(key)))
    finally:
        authorized.write_text(before)


def test_no_key_at_all(sshd: Sshd) -> None:
    error = refused(sshd.host(key=None))
    assert isinstance(error, PreflightError)
    assert "there is no key to log in with" in error.what
    assert "ssh-keygen" in error.fix


def test_keys_of_the_configuration_that_are_of_no_use_are_passed_over(
    sshd: Sshd, no_configuration: Path, tmp_path: Path
) -> None:
    (tmp_path / "garbage").write_text("x")
    files = (tmp_path / "none", tmp_path / "garbage", sshd.key)
    lines = "".join(f"  IdentityFile {path}\n" for path in files)
    write_config(no_configuration, f"Host *\n{lines}")
    log_in(sshd.host(key=None))
    write_config(no_configuration, f"Host *\n  IdentityFile {tmp_path}/garbage\n")
    error = refused(sshd.host(key=None))
    assert f"{tmp_path}/garbage holds no private key" in error.what


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    yield path
    process.kill()
    process.communicate()


def add(agent: Path, *keys: Path) -> None:
    env = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", *map(str, keys)], check=True, env=env)


def test_an_agents_key_is_used_where_the_file_is_locked(
    sshd: Sshd, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_configuration: Path
) -> None:
    """IdentitiesOnly leaves an agent's other keys out, not those whose files are listed."""
    locked = tmp_path / "locked"
    shutil.copy(sshd.key, locked)
    locked.chmod(0o600)
    others = [make_key(tmp_path / f"other{number}") for number in range(7)]
    add(agent, *others, sshd.key)
    done = ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(locked)]
    subprocess.run(done, check=True, stdin=subprocess.DEVNULL)
    assert "locked" in refused(sshd.host(key=str(locked))).what
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    log_in(sshd.host(key=str(locked)))
    monkeypatch.delenv("SSH_AUTH_SOCK")
    only = f"Host *\n  IdentitiesOnly yes\n  IdentityFile {locked}\n"
    write_config(no_configuration, f"{only}  IdentityAgent {agent}\n")
    log_in(sshd.host(key=None))
    write_config(
        no_configuration,
        f"Host *\n  IdentitiesOnly yes\n  IdentityAgent {agent}\n  IdentityFile {others[0]}\n",
    )
    assert "accepts none of our keys" in refused(sshd.host(key=None)).what


def test_a_dead_agent_is_as_none(sshd: Sshd, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    log_in(sshd.host())


def test_certificates_of_users_and_hosts(tmp_path: Path, no_configuration: Path) -> None:
    authority = make_key(tmp_path / "authority")
    other = make_key(tmp_path / "other")
    folder = tmp_path / "d"
    settings = (
        f"TrustedUserCAKeys {authority}.pub",
        f"HostCertificate {folder}/host_key-cert.pub",
    )

    def sign(key: Path, *words: str, by: Path = authority) -> None:
        command = ["ssh-keygen", "-q", "-s", str(by), "-I", "id", *words, f"{key}.pub"]
        subprocess.run(command, check=True)

    with serving(folder, {"plain": "/bin/bash"}, settings=settings) as sshd:
        mine = make_key(tmp_path / "mine")
        assert "accepts none" in refused(sshd.host(key=str(mine))).what
        sign(mine, "-n", "plain")
        log_in(sshd.host(key=str(mine)))
        public = Path(f"{authority}.pub").read_text()
        sshd.known_hosts.write_text(f"@cert-authority *.lab,127.0.0.* {public}")
        assert "is not known" in refused(sshd.host()).what, "the server has no certificate yet"
        sign(folder / "host_key", "-h", "-n", "127.0.0.1")
        log_in(sshd.host())
        for words, reason in (
            (("-h", "-n", "elsewhere"), "it is for elsewhere"),
            (("-n", "127.0.0.1"), "for a user"),
            (("-h", "-V", "20200101:20200102"), "not valid at this time"),
        ):
            sign(folder / "host_key", *words)
            assert reason in refused(sshd.host()).what
        sign(folder / "host_key", "-h", by=other)
        assert "authority that signed it is not trusted" in refused(sshd.host()).what
        sign(folder / "host_key", "-h")
        key = " ".join(public.split()[:2])
        sshd.known_hosts.write_text(f"@cert-authority * {key}\n@revoked * {key}\n")
        assert "revoked" in refused(sshd.host()).what


def test_host_keys_are_judged_before_anything_is_sent(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"

    def with_lines(*lines: str) -> Host:
        file.write_text("".join(f"{line}\n" for line in lines))
        return sshd.host(known_hosts=str(file))

    other = " ".join(Path(f"{make_key(tmp_path / 'x')}.pub").read_text().split()[:2])
    log_in(with_lines(f"[127.0.0.1]:*\t{sshd.host_key}  é"))
    log_in(with_lines(f"127.0.0.1 {sshd.host_key}"))
    log_in(with_lines(f"{sshd.name} {other}", f"{sshd.name} {sshd.host_key}"))
    error = refused(with_lines(f"{sshd.name} {sshd.host_key}", f"@revoked * {sshd.host_key}"))
    assert "REVOKED" in error.what
    error = refused(with_lines(f"{sshd.name} {other}"))
    assert "CHANGED" in error.what
    assert f"ssh-keygen -R '{sshd.name}' -f {file}" in error.fix
    error = refused(with_lines(f"other {sshd.host_key}"))
    assert "is not known" in error.what
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {file}" in error.fix
    assert error.exit_code == 3


def test_advice_is_true(sshd: Sshd, tmp_path: Path, no_configuration: Path) -> None:
    """What an error tells to do mends it."""
    write_config(
        no_configuration, "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
    )
    error = refused(sshd.host(known_hosts=None))
    assert "StrictHostKeyChecking no" in error.what
    assert "/dev/null" not in error.fix
    command, _, rest = error.fix.partition("accept it with: ")[2].partition("   and ")
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    file = rest.partition("known_hosts: ")[2].partition("`")[0]
    log_in(sshd.host(known_hosts=file))


def test_an_alias_of_host_keys(sshd: Sshd, no_configuration: Path, tmp_path: Path) -> None:
    file = tmp_path / "kh"
    write_config(no_configuration, f"Host *\n  HostKeyAlias Rack7\n  UserKnownHostsFile {file}\n")
    error = refused(sshd.host(known_hosts=None))
    assert "the host key of rack7 is not known" in error.what
    subprocess.run(
        ["sh", "-c", error.fix.partition("it with: ")[2]], check=True, capture_output=True
    )
    assert file.read_text().startswith("rack7 ")
    log_in(sshd.host(known_hosts=None))


def test_ways_through_others(sshd: Sshd, no_configuration: Path) -> None:
    common = f"  HostName 127.0.0.1\n  Port {sshd.port}\n  User plain\n  IdentityFile {sshd.key}\n"
    common += f"  UserKnownHostsFile {sshd.known_hosts}\n"
    relay = shutil.which("nc") or ""
    names = "".join(f"Host {name}\n{common}" for name in ("one", "two", "three", "four", "five"))
    write_config(
        no_configuration,
        "Host two\n  ProxyJump one\nHost three\n  ProxyJump two\n"
        f"Host four\n  ProxyCommand ssh -F {no_configuration}/.ssh/config -W '[%h]:%p' one\n"
        "Host five\n  ProxyCommand echo no way >&2; exit 1\n" + names,
    )
    assert relay is not None
    bare = {"user": None, "port": None, "key": None, "known_hosts": None}
    for name in ("one", "two", "three", "four"):
        log_in(
            sshd.host(ssh_host=name, **{k: v for k, v in bare.items() if k != "user"}, user="plain")
        )
    node = SshNode(sshd.host(ssh_host="three", user="plain", port=None, key=None, known_hosts=None))
    assert node.access.jump.count("->") == 1
    assert node.access.address == ""
    node.close()
    error = refused(sshd.host(ssh_host="five", user="plain", port=None, key=None))
    assert isinstance(error, HostUnreachableError)
    assert "no way" in error.what


@needs_ipv6
def test_ipv6(tmp_path: Path) -> None:
    with serving(tmp_path / "d", {"plain": "/bin/bash"}, ipv6=True) as sshd:
        node = SshNode(sshd.host())
        assert node.access.endpoint == f"plain@[::1]:{sshd.port}"
        assert node.access.address == "::1"
        node.close()
        sshd.known_hosts.write_text("")
        assert f"ssh-keyscan -p {sshd.port} ::1" in refused(sshd.host()).fix


def test_a_server_that_wants_more_than_a_key(tmp_path: Path) -> None:
    settings = ("PasswordAuthentication yes", "AuthenticationMethods publickey,password")
    lines = [line for line in settings if line]
    with serving(tmp_path / "d", {"plain": "/bin/bash"}, settings=lines) as sshd:
        config = sshd.directory / "config"
        config.write_text(config.read_text().replace("PasswordAuthentication no\n", ""))
        error = refused(sshd.host())
    assert "accepts our key and wants password as well" in error.what


def test_a_server_that_takes_no_keys(tmp_path: Path) -> None:
    with serving(tmp_path / "d", {"plain": "/bin/bash"}) as sshd:
        config = sshd.directory / "config"
        text = config.read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes")
        config.write_text(text + "PubkeyAuthentication no\n")
        error = refused(sshd.host())
    assert "accepts no keys, only password" in error.what
