"""Hosts over SSH: commands with time-outs, drained streams, files."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import DeadlineError, HostUnreachableError, PreflightError, TianJiError
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import AccessFacts, Completed
from tianji_cli.connectors.bridge import Bridge
from tianji_cli.connectors.remote_shell import (
    LOGIN_LINE,
    ShellAnswer,
    become_script,
    begins,
    new_mark,
    read_answer,
    run_script,
    spawn_line,
)
from tianji_cli.connectors.ssh_channels import READ_BYTES, begin_script, talk
from tianji_cli.connectors.ssh_config import read_user_config
from tianji_cli.connectors.ssh_connect import CONNECT_S
from tianji_cli.connectors.ssh_connections import Connections
from tianji_cli.connectors.ssh_files import Files, SftpFiles, ShellFiles
from tianji_cli.connectors.ssh_keys import check_key_file
from tianji_cli.connectors.target import Target, resolve_target

__all__ = ["SshNode", "read_user_config", "spawn_line"]
BEGIN_S = 30.0
"""Time-out for a login shell to start its command."""
FILES_S = 120.0
"""Time-out for one file through a shell."""
SILENCE_S = 15.0
"""A file transfer without data for this long counts as broken."""

T = TypeVar("T")


class SshNode:
    """A host that is connected over SSH.

    Args:
        host: From the inventory.
        cancel: Ends waits between attempts.

    Raises:
        HostUnreachableError: No connection in time.
        PreflightError: Its key is unknown or has changed, or the login is refused.
        ConfigError: The inventory's key, or the user's configuration of ssh, cannot be used.
    """

    def __init__(self, host: Host, cancel: threading.Event | None = None) -> None:
        self.name = host.name
        self.is_remote = True
        if host.key:
            check_key_file(host.name, host.key)
        self._target = resolve_target(host, read_user_config().lookup)
        self._connections = Connections(host.name, self._target, cancel or threading.Event())
        self._bridges: list[Bridge] = []
        try:
            self._connections.open()
            self._files = self._open_files()
            self._home = self._check(self._files.home, "~")
        except BaseException:
            self.close()
            raise
        self.access = _access(self._target, self._connections.transport)

    def expand(self, path: str) -> str:
        if path == "~" or path.startswith("~/"):
            return self._home + path[1:]
        return path if path.startswith("/") else f"{self._home}/{path}"

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        line = shlex.join(command)
        answer = self._exchange(line, b"", timeout_s)
        out, err = (data.decode("utf-8", "replace") for data in (answer.stdout, answer.stderr))
        return Completed(-1 if answer.code is None else answer.code, out, err)

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None
    ) -> Bridge:
        mark = new_mark()
        channel = self._open_channel()
        script = become_script(spawn_line(command, env, directory), mark)
        try:
            said = self._check(
                lambda: begin_script(channel, script, mark, time.monotonic() + BEGIN_S)
            )
            if said is None:
                words = shlex.join(command)[:60]
                raise DeadlineError(
                    f"{words} did not start within {BEGIN_S:.0f} s", where=self.name
                )
            begin = begins(said, mark)
            if begin is None:
                raise self._no_shell(channel, said, b"")
        except BaseException:
            channel.close()
            raise
        channel.settimeout(None)
        bridge = Bridge(self.name, channel, said=said[begin:], mark=f"{mark}\n".encode())
        self._bridges.append(bridge)
        return bridge

    def put(self, path: str, data: bytes) -> None:
        try:
            self._check(lambda: self._files.put(path, data), path)
        except FileNotFoundError as error:
            raise _refused(self.name, path, error) from error

    def exists(self, path: str) -> bool:
        return self._check(lambda: self._files.exists(path), path)

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        try:
            return self._check(lambda: self._files.read(path, offset, max_bytes), path)
        except FileNotFoundError:
            return b""

    def walk(self, root: str) -> dict[str, int]:
        try:
            return self._check(lambda: self._files.walk(root), root)
        except FileNotFoundError:
            return {}

    def close(self) -> None:
        for bridge in self._bridges:
            bridge.close()
        self._connections.close()

    def _open_files(self) -> Files:
        """Files over SFTP if the host supports it, else with commands.

        Raises:
            PreflightError: Neither works.
        """
        try:
            sftp = self._check(lambda: self._connections.use(lambda client: client.open_sftp()))
        except TianJiError as error:
            if not self._connections.are_alive():
                raise
            files = ShellFiles(lambda line, data: self._exchange(line, data, FILES_S))
            try:
                files.home()
            except PreflightError:
                raise
            except (TianJiError, OSError):
                raise error from None
            return files
        channel = sftp.get_channel()
        assert channel is not None
        channel.settimeout(SILENCE_S)
        return SftpFiles(sftp)

    def _exchange(self, line: str, data: bytes, timeout_s: float) -> ShellAnswer:
        """Runs a line with this input.

        Raises:
            DeadlineError: It takes longer.
            PreflightError: The login shell there does not run it.
        """
        mark, deadline_s = new_mark(), time.monotonic() + timeout_s
        script = run_script(line, mark, reads_input=bool(data))
        channel = self._open_channel()
        try:
            streams = self._check(lambda: talk(channel, script, mark, data, deadline_s))
            if streams is None:
                raise DeadlineError(
                    f"{line[:60]} took longer than {timeout_s:.0f} s", where=self.name
                )
            answer = read_answer(*streams, mark)
            if answer is None:
                raise self._no_shell(channel, *streams)
        finally:
            channel.close()
        return answer

    def _no_shell(self, channel: paramiko.Channel, stdout: bytes, stderr: bytes) -> PreflightError:
        while channel.recv_stderr_ready():
            stderr += channel.recv_stderr(READ_BYTES)
        code = f" (exit code {channel.exit_status})" if channel.status_event.wait(1.0) else ""
        said = Completed(-1, *(data.decode("utf-8", "replace") for data in (stdout, stderr)))
        return PreflightError(
            f"the login shell there does not run `{LOGIN_LINE}`{code}{said.last_words}",
            where=self.name,
            fix=f"ssh {self._target.alias} sh -c true must work; see the user's shell and its"
            " start-up files there",
        )

    def _open_channel(self) -> paramiko.Channel:
        def open_it(client: paramiko.SSHClient) -> paramiko.Channel:
            transport = client.get_transport()
            if transport is None:
                raise EOFError("not connected")
            return transport.open_session(timeout=CONNECT_S)

        return self._check(lambda: self._connections.use(open_it))

    def _check(self, action: Callable[[], T], path: str = "") -> T:
        """Runs an action; a broken connection is distinguished from an answer of the host.

        Args:
            action: What to do.
            path: The remote file, if any.

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
            if not self._connections.are_alive():  # paramiko raises what ended the connection
                raise _broken(self.name, error) from error
            raise _refused(self.name, path, error) from error


def _broken(host: str, error: Exception) -> HostUnreachableError:
    text = str(error) or type(error).__name__
    return HostUnreachableError(
        f"the connection broke: {text}", where=host, fix="see `tianji check`"
    )


def _no_sftp(host: str, error: Exception) -> PreflightError:
    """Usually text of the user's shell among the packets."""
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


def _access(target: Target, transport: paramiko.Transport | None) -> AccessFacts:
    key = transport.get_remote_server_key() if transport else None
    is_direct = not target.jumps and not target.proxy_command
    address = str(transport.getpeername()[0]) if transport is not None and is_direct else ""
    host_key = f"{key.get_name()} {key.fingerprint}" if key else ""
    way = " -> ".join(jump.endpoint for jump in target.jumps)
    return AccessFacts(
        user=target.user,
        endpoint=target.endpoint,
        address=address,
        host_key=host_key,
        key=", ".join(target.keys) or "the agent or the usual files in ~/.ssh",
        jump=way or (f"`{target.proxy_command}`" if target.proxy_command else ""),
    )
