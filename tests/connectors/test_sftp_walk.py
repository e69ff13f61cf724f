"""Directories are listed over a real SFTP conversation, one answer after the other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from tianji_cli.connectors.base import MAX_DEPTH
from tianji_cli.connectors.ssh_files import SftpFiles


class _Access(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


class _Disk(paramiko.SFTPServerInterface):
    """Lists this machine's directories."""

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes]:
        found = []
        for entry in sorted(Path(path).iterdir()):
            attributes = paramiko.SFTPAttributes.from_stat(entry.lstat())
            attributes.filename = entry.name
            found.append(attributes)
        return found


@pytest.fixture
def sftp() -> Iterator[paramiko.SFTPClient]:
    here, there = socket.socketpair()
    server = paramiko.Transport(there)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.set_subsystem_handler("sftp", paramiko.SFTPServer, _Disk)
    threading.Thread(target=server.start_server, kwargs={"server": _Access()}, daemon=True).start()
    client = paramiko.Transport(here)
    try:
        client.start_client(timeout=10)
        client.auth_none("ann")
        opened = paramiko.SFTPClient.from_transport(client)
        assert opened is not None
        channel = opened.get_channel()
        assert channel is not None
        channel.settimeout(10)
        yield opened
    finally:
        client.close()
        server.close()


def test_directories_within_directories_are_listed(
    sftp: paramiko.SFTPClient, tmp_path: Path
) -> None:
    names = {f"{place}/f{number}" for place in ("a", "a/b", "c/d", "c") for number in range(5)}
    for name in (*names, "top", "deep/" * MAX_DEPTH + "beyond"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    files = SftpFiles(sftp)
    for _ in range(2):
        assert files.walk(str(tmp_path)) == dict.fromkeys({*names, "top"}, 1)
