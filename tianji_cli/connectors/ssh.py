"""Hosts behind SSH: commands with deadlines, streams that are drained, files over SFTP."""

from __future__ import annotations

import itertools
import select
import shlex
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import ConfigError, DeadlineError, HostUnreachableError, PreflightError
from tianji_cli.connectors.base import (
    MAX_DEPTH,
    MAX_FILES,
    AccessFacts,
    Completed,
    with_environment,
)
from tianji_cli.connectors.bridge import Bridge
from tianji_cli.connectors.ssh_connect import CONNECT_S, open_client
from tianji_cli.connectors.target import Target, resolve_target
from tianji_cli.inventory import Host

PUT_CHUNK_BYTES = 1 << 18
READ_BYTES = 1 << 16
SILENCE_S = 15.0
"""A connection over which files are exchanged is broken if nothing comes for so long."""

T = TypeVar("T")


def read_user_config(path: Path | None = None) -> paramiko.SSHConfig:
    """The user's own `~/.ssh/config`; empty if there is none.

    Raises:
        ConfigError: It cannot be parsed.
    """
    path = path or Path("~/.ssh/config").expanduser()
    try:
        return paramiko.SSHConfig.from_path(str(path))
    except FileNotFoundError:
        return paramiko.SSHConfig()
    except (paramiko.ConfigParseError, OSError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error


class SshNode:
    """A host that is connected over SSH.

    Args:
        host: From the inventory.
        cancel: Ends waiting between attempts.

    Raises:
        HostUnreachableError: No connection in time.
        PreflightError: Its key is unknown or has changed, or the login is refused.
    """

    def __init__(self, host: Host, cancel: threading.Event | None = None) -> None:
        self.name = host.name
        self.is_remote = True
        if host.key and not Path(host.key).expanduser().is_file():
            raise ConfigError("there is no such key file", where=f"{host.name}: {host.key}")
        target = resolve_target(host, read_user_config().lookup)
        self._clients: list[paramiko.SSHClient] = []
        self._bridges: list[Bridge] = []
        self._sftp: paramiko.SFTPClient | None = None
        try:
            for hop in (*target.jumps, target):
                self._clients.append(open_client(hop, self._clients, cancel or threading.Event()))
            self._home = self._check(lambda: self._open_sftp().normalize("."), "~")
        except BaseException:
            self.close()
            raise
        self.access = _access(target, self._client)

    @property
    def _client(self) -> paramiko.SSHClient:
        return self._clients[-1]

    def expand(self, path: str) -> str:
        if path == "~" or path.startswith("~/"):
            return self._home + path[1:]
        return path if path.startswith("/") else f"{self._home}/{path}"

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        channel = self._open_channel()
        deadline_s = time.monotonic() + timeout_s
        try:
            result = self._check(lambda: _run(channel, shlex.join(command), deadline_s))
        finally:
            channel.close()
        if result is None:
            words = shlex.join(command)[:60]
            raise DeadlineError(f"{words} took longer than {timeout_s:.0f} s", where=self.name)
        return result

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None
    ) -> Bridge:
        channel = self._open_channel()
        line = spawn_line(command, env, directory)
        self._check(lambda: channel.exec_command(line))
        channel.settimeout(None)
        bridge = Bridge(self.name, channel)
        self._bridges.append(bridge)
        return bridge

    def put(self, path: str, data: bytes) -> None:
        def write() -> None:
            with self._open_sftp().open(path, "wb") as file:
                file.set_pipelined(True)
                view = memoryview(data)
                for start in range(0, len(data), PUT_CHUNK_BYTES):
                    file.write(bytes(view[start : start + PUT_CHUNK_BYTES]))

        self._check(write, path)

    def exists(self, path: str) -> bool:
        def look() -> bool:
            try:
                self._open_sftp().stat(path)
            except FileNotFoundError:
                return False
            return True

        return self._check(look, path)

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        def read() -> bytes:
            try:
                with self._open_sftp().open(path, "rb") as file:
                    file.seek(offset)
                    return file.read(max_bytes) if max_bytes >= 0 else file.read()
            except FileNotFoundError:
                return b""

        return self._check(read, path)

    def walk(self, root: str) -> dict[str, int]:
        found: dict[str, int] = {}

        def look(prefix: str, depth: int) -> None:
            entries = self._open_sftp().listdir_iter(f"{root}/{prefix}")
            for entry in itertools.islice(entries, MAX_FILES):
                mode, name = entry.st_mode or 0, f"{prefix}{entry.filename}"
                if stat.S_ISDIR(mode) and depth < MAX_DEPTH:
                    look(f"{name}/", depth + 1)
                elif stat.S_ISREG(mode) and len(found) < MAX_FILES:
                    found[name] = entry.st_size or 0

        try:
            self._check(lambda: look("", 1), root)
        except FileNotFoundError:
            return {}
        return found

    def close(self) -> None:
        for bridge in self._bridges:
            bridge.close()
        for client in reversed(self._clients):
            client.close()

    def _open_sftp(self) -> paramiko.SFTPClient:
        if self._sftp is None:
            self._sftp = self._client.open_sftp()
            channel = self._sftp.get_channel()
            assert channel is not None
            channel.settimeout(SILENCE_S)
        return self._sftp

    def _open_channel(self) -> paramiko.Channel:
        def open_it() -> paramiko.Channel:
            transport = self._client.get_transport()
            if transport is None:
                raise EOFError("not connected")
            return transport.open_session(timeout=CONNECT_S)

        return self._check(open_it)

    def _check(self, action: Callable[[], T], path: str = "") -> T:
        """Runs an action; a broken connection is told apart from what the host answered.

        Args:
            action: What to do.
            path: The file there that it is about, if any.

        Raises:
            FileNotFoundError: There is no such file.
            HostUnreachableError: The connection broke.
            PreflightError: The host refused.
        """
        try:
            return action()
        except FileNotFoundError:
            raise
        except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as error:
            raise _broken(self.name, error) from error
        except paramiko.SFTPError as error:
            raise _no_sftp(self.name, error) from error
        except OSError as error:
            if not self._is_connected():  # paramiko passes on what ended the connection
                raise _broken(self.name, error) from error
            raise _refused(self.name, path, error) from error

    def _is_connected(self) -> bool:
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()


def _broken(host: str, error: Exception) -> HostUnreachableError:
    text = str(error) or type(error).__name__
    return HostUnreachableError(
        f"the connection broke: {text}", where=host, fix="see `tianji check`"
    )


def _no_sftp(host: str, error: Exception) -> PreflightError:
    """Most often the user's own shell has put words between the packets."""
    return PreflightError(
        f"files cannot be exchanged over SFTP: {error}",
        where=host,
        fix="make ~/.bashrc there print nothing where there is no terminal",
    )


def _refused(host: str, path: str, error: OSError) -> PreflightError:
    return PreflightError(
        f"{path or 'it'}: {error.strerror or error}",
        where=host,
        fix="give another `workdir:`, or permissions there",
    )


def spawn_line(command: Sequence[str], env: Mapping[str, str], directory: str | None) -> str:
    """What the host's shell is given to start a command: every word of it quoted."""
    words = [f"cd -- {shlex.quote(directory)} &&"] if directory else []
    return " ".join([*words, "exec", shlex.join(with_environment(command, env))])


def _run(channel: paramiko.Channel, line: str, deadline_s: float) -> Completed | None:
    """Runs a command on a fresh channel, reading both streams; None if it takes too long."""
    channel.exec_command(line)
    channel.shutdown_write()
    output, errors = bytearray(), bytearray()
    while not (channel.eof_received or channel.closed) or channel.recv_ready():
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0 or not select.select([channel], [], [], remaining_s)[0]:
            return None
        if channel.recv_ready():
            output += channel.recv(READ_BYTES)
        if channel.recv_stderr_ready():
            errors += channel.recv_stderr(READ_BYTES)
    while channel.recv_stderr_ready():
        errors += channel.recv_stderr(READ_BYTES)
    if not channel.status_event.wait(max(0.1, deadline_s - time.monotonic())):
        return None
    out, err = (bytes(data).decode("utf-8", "replace") for data in (output, errors))
    return Completed(channel.exit_status, out, err)


def _access(target: Target, client: paramiko.SSHClient) -> AccessFacts:
    transport = client.get_transport()
    key = transport.get_remote_server_key() if transport else None
    address = "" if target.jumps or transport is None else str(transport.getpeername()[0])
    host_key = f"{key.get_name()} {key.fingerprint}" if key else ""
    return AccessFacts(
        user=target.user,
        endpoint=target.endpoint,
        address=address,
        host_key=host_key,
        key=", ".join(target.keys) or "the agent or the usual files in ~/.ssh",
        jump=" -> ".join(jump.endpoint for jump in target.jumps),
    )
