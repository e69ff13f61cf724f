"""What a host behind SSH answers with errors, told apart from a broken connection. No sshd."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import paramiko
import pytest

from engine.errors import HostUnreachableError, PreflightError, TianJiError
from tianji_cli.commands.check import check_hosts
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.connectors import ssh
from tianji_cli.connectors.ssh import SshNode

HOST = Host(name="a", connection="ssh", ssh_host="a", address="192.0.2.9", ports=None)
FULL = paramiko.ChannelException(1, "Administratively prohibited")
DENIED = PermissionError(errno.EACCES, "Permission denied")
NO_ROUTE = OSError(errno.EHOSTUNREACH, "No route to host")


class FakeClient:
    """A connection, which is also its own transport.

    Args:
        error: What a session is answered with.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.is_closed = False

    def get_transport(self) -> FakeClient:
        return self

    def get_remote_server_key(self) -> None: ...

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.9", 22

    def open_session(self, timeout: float) -> NoReturn:
        raise self._error

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def connect_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[FakeClient], SshNode]:
    monkeypatch.setenv("HOME", str(tmp_path))

    def connect(client: FakeClient) -> SshNode:
        monkeypatch.setattr(ssh, "open_client", lambda *_: client)
        return SshNode(HOST)

    return connect


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FULL, PreflightError, "sshd there refuses a session"),
        (NO_ROUTE, HostUnreachableError, "the connection broke: .*No route to host"),
        (EOFError(), HostUnreachableError, "the connection broke: EOFError"),
        (paramiko.SSHException("no channel"), HostUnreachableError, "broke: no channel"),
    ],
    ids=repr,
)
def test_a_host_that_refuses_is_told_apart_from_a_connection_that_broke(
    connect_to: Callable[[FakeClient], SshNode],
    error: Exception,
    kind: type[TianJiError],
    words: str,
) -> None:
    client = FakeClient(error)
    node = connect_to(client)
    for operation in (lambda: node.exists("/w/x"), lambda: node.run(["true"], 5.0)):
        with pytest.raises(kind, match=words) as caught:
            operation()
        assert caught.value.where == "a"
    node.close()
    assert client.is_closed


def test_check_makes_a_row_of_it(connect_to: Callable[[FakeClient], SshNode]) -> None:
    inventory = Inventory(source="hosts.yaml", hosts=(HOST,))
    (checked,) = check_hosts(inventory, lambda *_: connect_to(FakeClient(FULL)))
    failed = [finding for finding in checked.findings if finding.verdict == "failed"]
    assert "refuses a session" in failed[0].detail
    assert "MaxSessions" in failed[0].fix
