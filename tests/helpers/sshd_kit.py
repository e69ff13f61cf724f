"""A real sshd on the loopback, whose users have the login shells that a test wants.

It runs in a mount namespace with a password file of its own, so nothing of this machine changes;
every connection is accepted here and given to an `sshd -i`, so that no port has to be guessed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tianji_cli.config.inventory import Host

SSHD = "/usr/sbin/sshd"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"

_SERVE = r"""
import json, os, socket, subprocess, sys
passwd, config, log, family = sys.argv[1:]
subprocess.run(["mount", "--bind", passwd, "/etc/passwd"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
os.mkdir("/run/sshd", 0o755)
kind, address = (socket.AF_INET6, "::1") if family == "6" else (socket.AF_INET, "127.0.0.1")
server = socket.socket(kind)
server.bind((address, 0))
server.listen(64)
print(server.getsockname()[1], flush=True)
children = []
while True:
    connection, _ = server.accept()
    with connection, open(log, "ab") as errors:
        children.append(subprocess.Popen(["/usr/sbin/sshd", "-i", "-e", "-f", config],
            stdin=connection, stdout=connection, stderr=errors))
    children = [child for child in children if child.poll() is None]
"""


def missing() -> str:
    """Why there can be no sshd here; empty if there can."""
    if os.geteuid() != 0:
        return "only root can give sshd's users other shells"
    if not Path(SSHD).exists() or shutil.which("ssh-keygen") is None:
        return "there is no OpenSSH server here"
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return "mount namespaces are not to be had here" if done.returncode else ""


@dataclass(frozen=True)
class Sshd:
    """A server.

    Attributes:
        key: A private key that every user accepts.
        known_hosts: A file with the server's key.
    """

    directory: Path
    address: str
    port: int
    key: Path
    known_hosts: Path

    @property
    def host_key(self) -> str:
        """Type and base64 of its public key."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])

    @property
    def name(self) -> str:
        """What known_hosts calls it."""
        return f"[{self.address}]:{self.port}"

    def host(self, user: str = "plain", **more: object) -> Host:
        given: dict[str, object] = {
            "key": str(self.key),
            "known_hosts": str(self.known_hosts),
            "user": user,
            "port": self.port,
            "ssh_host": self.address,
            **more,
        }
        return Host(name="box", connection="ssh", address="", ports=None, **given)  # type: ignore[arg-type]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


def make_key(path: Path, *words: str) -> Path:
    """A new key pair; its private half's path."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextlib.contextmanager
def serving(
    directory: Path,
    shells: Mapping[str, str],
    *,
    start_up: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    sftp: str = "internal-sftp",
    ipv6: bool = False,
) -> Iterator[Sshd]:
    """Serves users, each with its shell, and with a start-up file if it has one.

    Args:
        shells: By user; all of them are root by another name.
        start_up: `user/.bashrc` and the like: what is in it.
    """
    directory.mkdir(parents=True)
    homes = {user: directory / "homes" / user for user in shells}
    lines = [f"{user}:*:0:0::{homes[user]}:{shell}\n" for user, shell in shells.items()]
    (directory / "passwd").write_text(Path("/etc/passwd").read_text() + "".join(lines))
    for home in homes.values():
        home.mkdir(parents=True)
    for name, text in (start_up or {}).items():
        (directory / "homes" / name).write_text(text)
    make_key(directory / "host_key")
    key = make_key(directory / "id")
    options = (
        f"HostKey {directory}/host_key",
        f"AuthorizedKeysFile {directory}/authorized",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        f"Subsystem sftp {sftp}",
        *settings,
    )
    (directory / "config").write_text("".join(f"{line}\n" for line in options))
    shutil.copy(directory / "id.pub", directory / "authorized")
    words = [str(directory / name) for name in ("passwd", "config", "log")]
    process = subprocess.Popen(
        ["unshare", "-m", sys.executable, "-c", _SERVE, *words, "6" if ipv6 else "4"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        address = "::1" if ipv6 else "127.0.0.1"
        known_hosts = directory / "known_hosts"
        sshd = Sshd(directory, address, port, key, known_hosts)
        known_hosts.write_text(f"{sshd.name} {sshd.host_key}\n")
        yield sshd
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def no_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home without anything of ssh, and no agent."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield home


def show_words() -> str:
    """A Python program that prints its arguments, of several lines and with hostile signs."""
    return (
        "import json, sys\n"
        '# it\'s "quoted", $HOME `date` !! \\ \\n 100%\n'
        "if True:\n\n\n    print(json.dumps(sys.argv[1:]))\n"
    )


def words_of(text: str) -> list[str]:
    found: list[str] = json.loads(text)
    return found
