"""What a host behind SSH answers with errors, told apart from a broken connection. No sshd."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import paramiko
import pytest

from engine.errors import HostUnreachableError, PreflightError
from tianji_cli.commands.check import check_hosts
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.connectors import ssh_connections
from tianji_cli.connectors.local import LocalNode
from tianji_cli.connectors.ssh import SshNode

HOST = Host(name="a", connection="ssh", ssh_host="a", address="192.0.2.9", ports=None)
GARBAGE = paramiko.SFTPError("Garbage packet received")
DENIED = PermissionError(errno.EACCES, "Permission denied")
NO_ROUTE = OSError(errno.EHOSTUNREACH, "No route to host")


class FakeSftp:
    """Says where the home is; answers everything else with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def normalize(self, _path: str) -> str:
        return "/home/ann"

    def get_channel(self) -> FakeSftp:
        return self

    def settimeout(self, _seconds: float) -> None: ...

    def fail(self, *_arguments: object) -> NoReturn:
        raise self._error

    stat = open = listdir_attr = listdir_iter = fail


class FakeClient:
    """A connection, which is also its own transport.

    Args:
        error: What files are answered with.
        opens_sftp: Whether the error comes later than when SFTP begins.
    """

    def __init__(self, error: Exception, *, opens_sftp: bool = True) -> None:
        self._error = error
        self._opens_sftp = opens_sftp
        self.is_up = True

    def get_transport(self) -> FakeClient:
        return self

    def is_active(self) -> bool:
        return self.is_up

    def get_remote_server_key(self) -> None: ...

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.9", 22

    def open_sftp(self) -> FakeSftp:
        if not self._opens_sftp:
            raise self._error
        return FakeSftp(self._error)

    def open_session(self, timeout: float) -> NoReturn:
        raise paramiko.SSHException("no channel")

    def close(self) -> None: ...


@pytest.fixture
def connect_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[FakeClient], SshNode]:
    monkeypatch.setenv("HOME", str(tmp_path))

    def connect(client: FakeClient) -> SshNode:
        monkeypatch.setattr(ssh_connections, "open_client", lambda *_: client)
        return SshNode(HOST)

    return connect


OPERATIONS = [
    lambda node: node.exists("/w/x"),
    lambda node: node.read("/w/x"),
    lambda node: node.put("/w/x", b""),
    lambda node: node.walk("/w/x"),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=["exists", "read", "put", "walk"])
@pytest.mark.parametrize("error", [GARBAGE, DENIED, OSError("Failure")], ids=str)
def test_what_a_host_refuses_is_no_traceback(
    connect_to: Callable[[FakeClient], SshNode],
    operation: Callable[[SshNode], object],
    error: Exception,
) -> None:
    node = connect_to(FakeClient(error))
    with pytest.raises(PreflightError) as caught:
        operation(node)
    assert caught.value.where == "a"
    if error is not GARBAGE:
        assert caught.value.what.startswith("/w/x: ")


def test_words_of_a_bashrc_between_the_packets_name_what_mends_it(
    connect_to: Callable[[FakeClient], SshNode],
) -> None:
    with pytest.raises(PreflightError, match="Garbage packet received") as caught:
        connect_to(FakeClient(GARBAGE, opens_sftp=False))
    assert "~/.bashrc" in caught.value.fix


def test_an_error_that_ended_the_connection_is_an_unreachable_host(
    connect_to: Callable[[FakeClient], SshNode],
) -> None:
    client = FakeClient(NO_ROUTE)
    node = connect_to(client)
    client.is_up = False
    with pytest.raises(HostUnreachableError, match="No route to host"):
        node.exists("/w/x")


@pytest.mark.parametrize("opens_sftp", [False, True], ids=["at once", "later"])
def test_check_makes_a_row_of_it(
    connect_to: Callable[[FakeClient], SshNode], opens_sftp: bool
) -> None:
    error = DENIED if opens_sftp else GARBAGE
    client = FakeClient(error, opens_sftp=opens_sftp)
    inventory = Inventory(source="hosts.yaml", hosts=(HOST,))
    (checked,) = check_hosts(inventory, lambda *_: connect_to(client))
    failed = [finding for finding in checked.findings if finding.verdict == "failed"]
    assert str(error.args[-1]) in failed[0].detail
    assert failed[0].fix


def test_this_machine_refuses_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise DENIED

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(PreflightError, match="Permission denied"):
        LocalNode("a").exists(str(tmp_path))
    monkeypatch.undo()
    (tmp_path / "python").write_text("no program")
    assert LocalNode("a").run([str(tmp_path / "python")], 5.0).code == 126
