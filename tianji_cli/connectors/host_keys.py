"""Which host keys are trusted, and what to tell the user about the others."""

from __future__ import annotations

import shlex
from pathlib import Path

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.errors import ConfigError, PreflightError
from tianji_cli.connectors.target import DEFAULT_PORT, Target

_SYSTEM_FILE = "/etc/ssh/ssh_known_hosts"


def files_of(target: Target) -> list[str]:
    """Where trusted keys for this host are kept, the user's own file first."""
    if target.known_hosts:
        return list(target.known_hosts)
    return [str(Path("~/.ssh/known_hosts").expanduser()), _SYSTEM_FILE]


def load_host_keys(client: paramiko.SSHClient, target: Target) -> None:
    """Loads them.

    Raises:
        ConfigError: A file that the user named cannot be read.
    """
    for path in files_of(target):
        try:
            client.load_system_host_keys(path)
        except FileNotFoundError:
            continue  # the same as an empty one: then the host's key is unknown
        except OSError as error:
            raise ConfigError(f"cannot be read: {error}", where=path) from error


class RefuseUnknown(paramiko.MissingHostKeyPolicy):
    """Refuses a host whose key is in no file, and says how to accept it."""

    class Error(paramiko.SSHException):
        """Carries the explanation through paramiko."""

        def __init__(self, explanation: PreflightError) -> None:
            super().__init__(str(explanation))
            self.explanation = explanation

    def __init__(self, target: Target) -> None:
        self._target = target

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        target = self._target
        raise self.Error(
            PreflightError(
                f"the host key of {target.key_name} is not known:"
                f" {key.get_name()} {key.fingerprint}",
                where=target.alias,
                fix="compare the fingerprint with the host's own (ssh-keygen -lf"
                " /etc/ssh/ssh_host_*_key.pub there), then accept it with:"
                f" {accept_command(target)}",
            )
        )


def accept_command(target: Target) -> str:
    """The command that adds the host's key to the file that is looked at."""
    path = shlex.quote(files_of(target)[0])
    if target.jumps:
        jumps = ",".join(jump.endpoint for jump in target.jumps)
        return (
            f"ssh -o UserKnownHostsFile={path} -J {shlex.quote(jumps)} -p {target.port}"
            f" {shlex.quote(f'{target.user}@{target.hostname}')} true"
        )
    port = "" if target.port == DEFAULT_PORT else f"-p {target.port} "
    return f"ssh-keyscan {port}{shlex.quote(target.hostname)} >> {path}"


def changed_key(target: Target, error: paramiko.BadHostKeyException) -> PreflightError:
    """A key that differs from the trusted one: the host was set up anew, or it is another."""
    path = shlex.quote(files_of(target)[0])
    return PreflightError(
        f"the host key of {target.key_name} has CHANGED: trusted is"
        f" {error.expected_key.fingerprint}, offered is {error.key.get_name()}"
        f" {error.key.fingerprint}; somebody may be listening in, so nothing was sent",
        where=target.alias,
        fix=f"only if you know why: ssh-keygen -R {shlex.quote(target.key_name)} -f {path}"
        f" && {accept_command(target)}",
    )


def refused_login(target: Target, error: paramiko.AuthenticationException) -> PreflightError:
    """No key was accepted; there is no password to ask for."""
    tried = ", ".join(target.keys) or "the agent's keys and ~/.ssh/id_*"
    if isinstance(error, paramiko.PasswordRequiredException):
        return PreflightError(
            f"the key {tried} is locked with a passphrase",
            where=target.alias,
            fix=f"ssh-add {shlex.quote(target.keys[0])}" if target.keys else "ssh-add",
        )
    where = f"-p {target.port} " if target.port != DEFAULT_PORT else ""
    return PreflightError(
        f"{target.endpoint} accepts none of our keys (tried {tried}): {error}",
        where=target.alias,
        fix=f"ssh-copy-id {where}{shlex.quote(f'{target.user}@{target.hostname}')}",
    )
