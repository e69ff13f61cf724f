"""The keys to try for a login: files and those of an agent, in the order of OpenSSH.

A file that cannot be used does not end the attempt: the error names it, with the reason, if no
other key is accepted.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import os
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH
from paramiko.agent import AgentSSH  # noqa: TID253

from engine.errors import ConfigError, PreflightError, TianJiError
from engine.host.account import expand
from engine.wording import plural
from tianji_cli.connectors.target import USUAL_KEYS, Target

AGENT_S = 10.0
_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_HEADER = b"openssh-key-v1\0"
_BROKEN = (paramiko.SSHException, ValueError, TypeError, EOFError, IndexError)
"""Exceptions of paramiko and cryptography for files without a key."""


@dataclass(frozen=True)
class KeyFile:
    """A private key's file.

    Attributes:
        key: None if it cannot be used.
        public: The public half in wire format; empty if unknown.
        problem: Why it cannot be used.
    """

    path: str
    key: paramiko.PKey | None
    public: bytes
    problem: str = ""
    is_locked: bool = False


def read_key_file(path: str) -> KeyFile:
    """Reads a private key; problems are in the result."""
    public = _public_half(path)
    try:
        facts = Path(path).stat()
        data = Path(path).read_bytes()
    except OSError as error:
        return KeyFile(path, None, public, f"cannot be read: {error.strerror}")
    public = public or _embedded_public(data)
    try:
        key = _load(path)
    except paramiko.PasswordRequiredException:
        return KeyFile(path, None, public, "is locked with a passphrase", is_locked=True)
    except _BROKEN as error:
        if isinstance(error, TypeError) and "assword" in str(error):  # so says cryptography
            return KeyFile(path, None, public, "is locked with a passphrase", is_locked=True)
        return KeyFile(path, None, public, "holds no private key that can be read")
    if facts.st_uid == os.getuid() and facts.st_mode & 0o077:
        problem = f"others may read it, so ssh does not use it either; chmod 600 {path}"
        return KeyFile(path, None, public, problem)
    return KeyFile(path, key, key.asbytes())


def _load(path: str) -> paramiko.PKey:
    """The key, of any type; without a certificate beside it."""
    text = Path(path).read_text("ascii")
    if "-----BEGIN PRIVATE KEY-----" in text or "-----BEGIN ENCRYPTED PRIVATE KEY-----" in text:
        text = _as_openssh(text.encode())
    for kind in _KINDS:
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise
        except _BROKEN:
            continue  # of another type
    raise paramiko.SSHException("no key of a type that is known")


def _as_openssh(data: bytes) -> str:
    """A PKCS8 key, which ssh supports and paramiko does not.

    Raises:
        TypeError: It is locked with a passphrase.
    """
    from cryptography.hazmat.primitives import serialization as forms

    key = forms.load_pem_private_key(data, password=None)
    as_openssh = forms.PrivateFormat.OpenSSH
    return key.private_bytes(forms.Encoding.PEM, as_openssh, forms.NoEncryption()).decode()


def _public_half(path: str) -> bytes:
    try:
        return paramiko.pkey.PublicBlob.from_file(f"{path}.pub").key_blob
    except (OSError, *_BROKEN):
        return b""


def _embedded_public(data: bytes) -> bytes:
    """The public key of a file in OpenSSH's format, readable even if the private one is not."""
    lines = data.strip().splitlines()
    try:
        body = base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        return b""
    if not body.startswith(_HEADER):
        return b""
    message = paramiko.Message(body[len(_HEADER) :])
    for _ in range(3):  # cipher, derivation, its options
        message.get_binary()
    return message.get_binary() if message.get_int() else b""


def check_key_file(host: str, path: str) -> None:
    """Checks the key file that an inventory names, before connecting.

    Raises:
        ConfigError: There is none, or it is not a private key.
        PreflightError: It must not be read.
    """
    file = expand(path)
    if not file.is_file():
        raise ConfigError(f"there is no such key file: {file}", where=f"{host}: key")
    found = read_key_file(str(file))
    if found.key is not None or found.is_locked:
        return  # an agent can still have a locked key
    kind = ConfigError if found.problem.startswith("holds no") else PreflightError
    fix = "give the private key of a pair, not the .pub file" if kind is ConfigError else ""
    raise kind(f"the key file {file} {found.problem}", where=f"{host}: key", fix=fix)


class _Agent(AgentSSH):
    """The agent that the configuration names; without keys if it does not answer."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(AGENT_S)
        if path is None:
            return
        try:
            self._socket.connect(path)
            self._connect(self._socket)  # type: ignore[attr-defined]  # as paramiko's own Agent
        except (OSError, paramiko.SSHException, UnicodeError):
            self.close()

    def close(self) -> None:
        self._socket.close()


@dataclass
class Login(paramiko.auth_strategy.AuthStrategy):
    """Tries all keys on a connection whose host is verified.

    Args:
        target: Where to log in.

    Attributes:
        tried: Descriptions of the offered keys.
    """

    target: Target
    tried: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(paramiko.SSHConfig())
        listed = self.target.keys or tuple(
            path for usual in USUAL_KEYS if Path(path := str(expand(usual))).exists()
        )
        self._files = [read_key_file(path) for path in listed]
        self._agent: list[paramiko.PKey] = []

    def get_sources(self) -> Iterator[paramiko.auth_strategy.AuthSource]:
        raise NotImplementedError("authenticate says itself what is tried")

    def authenticate(self, transport: paramiko.Transport) -> paramiko.auth_strategy.AuthResult:
        """Logs in.

        Raises:
            LoginRefusedError: No key is accepted.
        """
        with contextlib.closing(_Agent(self.target.agent)) as agent:
            self._agent = list(agent.get_keys())
            return self._authenticate(transport)

    def _authenticate(self, transport: paramiko.Transport) -> paramiko.auth_strategy.AuthResult:
        user, needs = self.target.user, list[str]()
        for name, key in self._candidates():
            self.tried.append(name)
            try:
                needs = list(transport.auth_publickey(user, key))
                if not needs:
                    return paramiko.auth_strategy.AuthResult(self)
            except paramiko.BadAuthenticationType as error:
                raise LoginRefusedError(self._only(list(error.allowed_types))) from None
            except (paramiko.AuthenticationException, *_BROKEN) as error:
                if not transport.is_active():
                    raise LoginRefusedError(self._hung_up(str(error))) from None
        if not self.tried and self._gets_in_without(transport):
            return paramiko.auth_strategy.AuthResult(self)
        raise LoginRefusedError(self._wants_more(needs) if needs else self._refused())

    def _gets_in_without(self, transport: paramiko.Transport) -> bool:
        """Some hosts accept the user without a key, by network."""
        try:
            return not transport.auth_none(self.target.user)
        except paramiko.SSHException:
            return False

    def _candidates(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Certificates, then keys of the files that the agent has, files, other keys of it."""
        listed = {file.public for file in self._files} - {b""}
        yield from self._certified()
        for key in self._agent:
            if key.asbytes() in listed:
                yield f"{_comment(key)} of the agent", key
        in_agent = {key.asbytes() for key in self._agent}
        for file in self._files:
            if file.key is not None and file.public not in in_agent:
                yield file.path, file.key
        if self.target.uses_agent:
            for key in self._agent:
                if key.asbytes() not in listed:
                    yield f"{_comment(key)} of the agent", key

    def _certified(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Keys with a certificate: `CertificateFile`, or `KEY-cert.pub` beside the key file."""
        beside = [f"{file.path}-cert.pub" for file in self._files]
        keys = [*self._agent, *(file.key for file in self._files if file.key is not None)]
        for path in dict.fromkeys([*self.target.certificates, *beside]):
            if not Path(path).is_file():
                continue
            for key in keys:
                if _certify(key, path):
                    yield path, key
                    key.public_blob = None
                    break

    def _unusable(self) -> list[str]:
        return [f"{file.path} {file.problem}" for file in self._files if file.key is None]

    def _refused(self) -> TianJiError:
        target = self.target
        if not self.tried:
            return self._no_key()
        more = "".join(f"; {text}" for text in self._unusable())
        return PreflightError(
            f"{target.endpoint} accepts none of our keys (tried {', '.join(self.tried)}{more})",
            where=target.alias,
            fix=_copy_id(target),
        )

    def _no_key(self) -> TianJiError:
        target, unusable = self.target, self._unusable()
        locked = [file.path for file in self._files if file.is_locked]
        if locked:
            what = "; ".join(f"the key {text}" for text in unusable)
            fix = f"ssh-add {locked[0]}"
        elif unusable:
            what = f"no key can be used: {'; '.join(unusable)}"
            fix = "fix that, or give another with `key:`"
        else:
            what = "there is no key to log in with: no agent has one, and ~/.ssh/id_* are not there"
            fix = f"ssh-keygen -t ed25519 && {_copy_id(target)}"
        return PreflightError(what, where=target.alias, fix=fix)

    def _only(self, allowed: list[str]) -> TianJiError:
        return PreflightError(
            f"{self.target.endpoint} accepts no keys, only {', '.join(allowed)}",
            where=self.target.alias,
            fix="enable PubkeyAuthentication there; TianJi never asks for a password",
        )

    def _wants_more(self, needs: list[str]) -> TianJiError:
        return PreflightError(
            f"{self.target.endpoint} accepts our key and wants {', '.join(needs)} as well",
            where=self.target.alias,
            fix="TianJi never asks for a password or code; use a `jump:` host inside, or allow keys"
            " alone",
        )

    def _hung_up(self, said: str) -> TianJiError:
        return PreflightError(
            f"{self.target.endpoint} hung up after {plural(len(self.tried), 'key')}"
            f" (tried {', '.join(self.tried)}): {said}",
            where=self.target.alias,
            fix="name the right one with `key:`, and `IdentitiesOnly yes` in ~/.ssh/config",
        )


class LoginRefusedError(paramiko.SSHException):
    """Carries the explanation through paramiko."""

    def __init__(self, explanation: TianJiError) -> None:
        super().__init__(str(explanation))
        self.explanation = explanation


def _certify(key: paramiko.PKey, path: str) -> bool:
    """Adds a certificate to a key. False if it belongs to another key, or is invalid."""
    try:
        key.load_certificate(path)
        blob = key.public_blob
        if blob is not None and _certified_key(blob.key_blob) == key.asbytes():
            return True
    except (OSError, *_BROKEN):
        pass
    key.public_blob = None
    return False


def _certified_key(blob: bytes) -> bytes:
    """The plain public key inside a certificate."""
    kind = paramiko.Message(blob).get_text().removesuffix("-cert-v01@openssh.com")
    return paramiko.PKey.from_type_string(kind, blob).asbytes()


def _comment(key: paramiko.PKey) -> str:
    return str(getattr(key, "comment", "") or key.get_name())


def _copy_id(target: Target) -> str:
    port = f"-p {target.port} " if target.port != 22 else ""
    return f"ssh-copy-id {port}{shlex.quote(f'{target.user}@{target.hostname}')}"
