"""Trust in host keys, and the errors for keys that are not trusted."""

from __future__ import annotations

import base64
import hashlib
import shlex
import time
from pathlib import Path

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from engine.errors import ConfigError, PreflightError
from engine.host.account import expand
from tianji_cli.connectors.known_hosts import (
    CERTIFICATE,
    Trust,
    decode_key,
    kind_of,
    names_match,
    trust_in,
)
from tianji_cli.connectors.target import DEFAULT_PORT, USUAL_KNOWN_HOSTS, Target

OWN_FILE = "~/.ssh/known_hosts_tianji"
"""File for accepted keys if the configuration stores none, as with /dev/null."""


def files_of(target: Target) -> list[str]:
    """Files with trusted keys for this host, the user's own first."""
    own = target.known_hosts or tuple(str(expand(path)) for path in USUAL_KNOWN_HOSTS)
    return [path for path in (*own, *target.system_known_hosts) if path.lower() != "none"]


def read_trust(target: Target) -> Trust:
    """The entries of the files for a host.

    Raises:
        ConfigError: One of them cannot be read.
        PreflightError: The revoked keys cannot be determined.
    """
    bare = None if target.host_key_alias else target.hostname
    contents = [data for path in files_of(target) if (data := _read(path)) is not None]
    trust = trust_in(contents, target.key_name, bare)
    revoked = trust.revoked | _revoked(target)
    return Trust(trust.trusted, trust.authorities, revoked)


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None  # like an empty one: the host's key is then unknown
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error


def _revoked(target: Target) -> frozenset[bytes]:
    """Keys of `RevokedHostKeys`, one per line. If unreadable, ssh trusts no key, nor do we."""
    if not (path := target.revoked_host_keys):
        return frozenset()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PreflightError(
            f"RevokedHostKeys cannot be read: {error.strerror}", where=f"{target.alias}: {path}"
        ) from error
    if data.startswith(b"SSHKRL\n\0"):
        raise PreflightError(
            "RevokedHostKeys is a binary list, which TianJi does not read",
            where=f"{target.alias}: {path}",
            fix="list the keys as text, one a line",
        )
    lines = [line.split() for line in data.decode("utf-8", "replace").splitlines()]
    keys = (decode_key(words[0], words[1]) for words in lines if len(words) > 1)
    return frozenset(key for key in keys if key is not None)


def key_types(trust: Trust, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The order in which host keys are requested: first those that could be trusted.

    Args:
        trust: The known keys of the host.
        offered: All algorithms of paramiko, including certificates.
    """

    def rank(name: str) -> int:
        if name.endswith(CERTIFICATE):
            return 0 if trust.authorities else 3
        kind = "ssh-rsa" if name.startswith("rsa-sha2") else name
        return 1 if kind in trust.kinds else 2

    return tuple(sorted(offered, key=rank))


class VerifyHostKey(paramiko.MissingHostKeyPolicy):
    """Checks a host's key; paramiko, which gets no known keys, asks it about every key.

    Args:
        target: The host.
        trust: Its known keys.
    """

    class Error(paramiko.SSHException):
        """Carries the explanation through paramiko."""

        def __init__(self, explanation: PreflightError) -> None:
            super().__init__(str(explanation))
            self.explanation = explanation

    def __init__(self, target: Target, trust: Trust) -> None:
        self._target = target
        self._trust = trust

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        target, trust = self._target, self._trust
        note = ""
        certificate = key.public_blob
        if certificate is not None and certificate.key_type.endswith(CERTIFICATE):
            from tianji_cli.connectors.host_keys import certificate_problem

            name = target.host_key_alias or target.hostname
            problem = certificate_problem(certificate.key_blob, trust, name)
            if not problem:
                return
            note = f"; its certificate is not valid: {problem}"
        match trust.judge(key.get_name(), key.asbytes()):
            case "trusted":
                return
            case "revoked":
                raise self.Error(revoked_key(target, key))
            case "changed":
                raise self.Error(changed_key(target, trust, key))
            case "unknown":
                raise self.Error(unknown_key(target, trust, key, note))


def unknown_key(target: Target, trust: Trust, key: paramiko.PKey, note: str) -> PreflightError:
    """A host whose key is in no file."""
    known = f"; known are its {', '.join(trust.kinds)}" if trust.kinds else ""
    if target.strictness in ("no", "off", "false", "accept-new"):
        word = "no" if target.strictness == "false" else target.strictness  # as ssh -G prints it
        note += f"; TianJi does not follow `StrictHostKeyChecking {word}`"
    return PreflightError(
        f"the host key of {target.key_name} is not known:"
        f" {key.get_name()} {key.fingerprint}{known}{note}",
        where=target.alias,
        fix="compare the fingerprint with the host's own (ssh-keygen -lf"
        f" /etc/ssh/ssh_host_*_key.pub there), then accept it with: {accept_command(target)}",
    )


def revoked_key(target: Target, key: paramiko.PKey) -> PreflightError:
    """A revoked key."""
    return PreflightError(
        f"the host key of {target.key_name} is REVOKED: {key.get_name()} {key.fingerprint};"
        " someone may be intercepting the connection, so nothing was sent",
        where=target.alias,
        fix="ask who runs the host for its new key",
    )


def changed_key(target: Target, trust: Trust, key: paramiko.PKey) -> PreflightError:
    """A key that differs from the trusted one: the host was reinstalled, or it is another host."""
    path = shlex.quote(writable_file(target)[0])
    known = [line for line in trust.trusted if line.kind == key.get_name()]
    prints = ", ".join(_fingerprint(line.blob) for line in known)
    return PreflightError(
        f"the host key of {target.key_name} has CHANGED: trusted is"
        f" {prints}, offered is {key.get_name()}"
        f" {key.fingerprint}; someone may be intercepting the connection, so nothing was sent",
        where=target.alias,
        fix=f"only if you know why: ssh-keygen -R {shlex.quote(target.key_name)} -f {path}"
        f" && {accept_command(target)}",
    )


def _fingerprint(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def writable_file(target: Target) -> tuple[str, bool]:
    """The file for accepted keys, and whether it is one of the files that are read.

    With `UserKnownHostsFile /dev/null` (or none) it is TianJi's own file.
    """
    own = target.known_hosts or tuple(str(expand(path)) for path in USUAL_KNOWN_HOSTS)
    for path in own:
        if path.lower() == "none" or path.startswith("/dev/"):
            continue
        if Path(path).is_file() or not Path(path).exists():
            return path, True
    return str(expand(OWN_FILE)), False


def accept_command(target: Target) -> str:
    """The command that adds the host's key to a file that is read."""
    file, is_looked_at = writable_file(target)
    path = shlex.quote(file)
    folder = Path(file).parent
    before = "" if folder.is_dir() else f"mkdir -p -m 700 {shlex.quote(str(folder))} && "
    after = "" if is_looked_at else f"   and `known_hosts: {file}` in the inventory"
    return f"{before}{_fetch_key(target, path)}{after}"


def _fetch_key(target: Target, path: str) -> str:
    if target.jumps or target.proxy_command:
        options = f"-o StrictHostKeyChecking=ask -o UserKnownHostsFile={path}"
        if target.host_key_alias:
            options += f" -o HostKeyAlias={shlex.quote(target.host_key_alias)}"
        if target.proxy_command:
            return f"ssh {options} {shlex.quote(target.alias)} true"
        jumps = ",".join(jump.endpoint for jump in target.jumps)
        return (
            f"ssh {options} -J {shlex.quote(jumps)} -p {target.port}"
            f" {shlex.quote(f'{target.user}@{target.hostname}')} true"
        )
    port = "" if target.port == DEFAULT_PORT else f"-p {target.port} "
    scan = f"ssh-keyscan {port}{shlex.quote(target.hostname)}"
    if target.host_key_alias:
        renamed = shlex.quote(f"s/^[^ ]*/{target.host_key_alias}/")
        scan += f" | sed {renamed}"
    return f"{scan} >> {path}"


def certificate_problem(blob: bytes, trust: Trust, host: str, now_s: float | None = None) -> str:
    """Why a host's certificate is not trusted; empty if it is.

    Args:
        blob: The certificate in wire format.
        trust: The known keys of the host.
        host: Its name or HostKeyAlias, which the certificate must be for.
        now_s: Unix time; None for now.
    """
    line = kind_of(blob).encode() + b" " + base64.b64encode(blob)
    try:
        certificate = load_ssh_public_identity(line)
        if not isinstance(certificate, SSHCertificate):
            return "it is no certificate"
        signer = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        own = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        certificate.verify_cert_signature()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        return f"its signature cannot be verified: {error}"
    authority, key = (base64.b64decode(text.split()[1]) for text in (signer, own))
    if authority in trust.revoked or key in trust.revoked:
        return "it is revoked"
    if authority not in {line.blob for line in trust.authorities}:
        return "the authority that signed it is not trusted"
    if certificate.type is not SSHCertificateType.HOST:
        return "it is for a user, not for a host"
    now_s = time.time() if now_s is None else now_s
    if not certificate.valid_after <= now_s < certificate.valid_before:
        return "it is not valid at this time"
    if certificate.critical_options:
        return "it has options that are not understood"
    principals = [name.decode("utf-8", "replace") for name in certificate.valid_principals]
    if principals and not any(names_match(name, host) for name in principals):
        return f"it is for {', '.join(principals)}, not for {host}"
    return ""
