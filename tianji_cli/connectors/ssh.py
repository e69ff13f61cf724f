"""Hosts over SSH: a keeper behind a login shell."""

from __future__ import annotations

import threading

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import HostUnreachableError, PreflightError
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import AccessFacts, Completed
from tianji_cli.connectors.piped.link import KeeperLink, KeeperNotStartedError, start_keeper
from tianji_cli.connectors.piped.node import PipedNode
from tianji_cli.connectors.piped.program import KeeperProgram
from tianji_cli.connectors.ssh_channel import LOGIN_LINE, SshChannel
from tianji_cli.connectors.ssh_config import read_user_config
from tianji_cli.connectors.ssh_connect import CONNECT_S, open_client
from tianji_cli.connectors.ssh_keys import check_key_file
from tianji_cli.connectors.target import Target, resolve_target

__all__ = ["SshNode", "read_user_config"]


class SshNode(PipedNode):
    """A host that is connected over SSH; one session carries everything.

    Args:
        host: From the inventory.
        cancel: Ends waits between attempts.

    Raises:
        HostUnreachableError: No connection in time.
        PreflightError: Its key is unknown or has changed, or the login is refused.
        ConfigError: The inventory's key, or the user's configuration of ssh, cannot be used.
    """

    def __init__(self, host: Host, cancel: threading.Event | None = None) -> None:
        if host.key:
            check_key_file(host.name, host.key)
        self._target = resolve_target(host, read_user_config().lookup)
        self._pythons = [host.python] if host.python else []
        self._clients: list[paramiko.SSHClient] = []
        try:
            for hop in (*self._target.jumps, self._target):
                self._clients.append(open_client(hop, self._clients, cancel or threading.Event()))
        except BaseException:
            self._disconnect()
            raise
        access = _access(self._target, self._clients[-1].get_transport())
        super().__init__(host.name, self._start_keeper, access)

    def close(self) -> None:
        super().close()
        self._disconnect()

    def _disconnect(self) -> None:
        for client in reversed(self._clients):
            client.close()

    def _start_keeper(self) -> KeeperLink:
        channel: SshChannel | None = None

        def open_channel(program: KeeperProgram) -> SshChannel:
            nonlocal channel
            channel = SshChannel(self._open_session(), program.script(self._pythons))
            return channel

        try:
            return start_keeper(self.name, open_channel)
        except KeeperNotStartedError as error:
            code = channel.exit_words if channel else ""
            words = Completed(-1, error.said, "").last_words
            raise PreflightError(
                f"the login shell there does not run `{LOGIN_LINE}`{code}{words}",
                where=self.name,
                fix=f"ssh {self._target.alias} sh -c true must work; see the user's shell and its"
                " start-up files there",
            ) from error
        except EOFError as error:
            raise self._broken(error) from error

    def _open_session(self) -> paramiko.Channel:
        transport = self._clients[-1].get_transport()
        try:
            if transport is None:
                raise EOFError("not connected")
            return transport.open_session(timeout=CONNECT_S)
        except paramiko.ChannelException as error:
            raise PreflightError(
                "sshd there refuses a session",
                where=self.name,
                fix="raise MaxSessions in its sshd_config (10 is usual)",
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> HostUnreachableError:
        return HostUnreachableError(
            f"the connection broke: {str(error) or type(error).__name__}",
            where=self.name,
            fix="see `tianji check`",
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
