"""Files of trusted host keys, read as OpenSSH reads them. Pure: bytes in, a verdict out.

A line is `[@marker] names key-type base64 [comment]`. Fields are separated by blanks and tabs,
names by commas; a name is plain, a pattern (`*.lab`, `!old.lab`), or hashed (`|1|salt|hash`).
Other lines are skipped, whatever bytes they contain.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal

Marker = Literal["", "@cert-authority", "@revoked"]
_MARKERS: dict[str, Marker] = {"@cert-authority": "@cert-authority", "@revoked": "@revoked"}
CERTIFICATE = "-cert-v01@openssh.com"
"""Suffix of the type of a signed key."""
_BLANKS = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class KnownKey:
    """One parsed line.

    Attributes:
        names: As written before the key.
        kind: Type of the key: `ssh-ed25519`.
        blob: The public key in wire format.
    """

    marker: Marker
    names: str
    kind: str
    blob: bytes


def read_lines(data: bytes) -> Iterator[KnownKey]:
    """All valid lines of a file."""
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        fields = _BLANKS.split(line.strip(" \t\r"))
        if not fields[0] or fields[0].startswith("#"):
            continue
        marker: Marker = ""
        if fields[0].startswith("@"):
            if fields[0] not in _MARKERS:
                continue
            marker = _MARKERS[fields.pop(0)]
        if len(fields) < 3:
            continue
        names, kind, text = fields[:3]
        blob = decode_key(kind, text)
        if blob is not None:
            yield KnownKey(marker, names, kind, blob)


def decode_key(kind: str, text: str) -> bytes | None:
    """The public key of a line; None if it is not of that type."""
    try:
        blob = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if blob and kind_of(blob) == kind else None


def kind_of(blob: bytes) -> str:
    """The type that a public key names; empty if it names none."""
    size = int.from_bytes(blob[:4], "big")
    name = blob[4 : 4 + size]
    return name.decode("ascii", "replace") if len(name) == size else ""


def names_match(names: str, name: str) -> bool:
    """Whether a line matches a host.

    Args:
        names: Of the line.
        name: The host's name in known_hosts: `box`, `[box]:2222`.

    >>> names_match("*.lab,!old.lab", "new.lab"), names_match("*.lab,!old.lab", "old.lab")
    (True, False)
    >>> names_match("[Box]:2222", "[box]:2222"), names_match("box", "[box]:2222")
    (True, False)
    """
    name = name.lower()
    if names.startswith("|"):
        return _hash_matches(names, name)
    is_found = False
    for pattern in names.lower().split(","):
        if _pattern_matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            is_found = True
    return is_found


def _hash_matches(text: str, name: str) -> bool:
    _, version, salt, digest = (text.split("|") + [""] * 4)[:4]
    if version != "1":
        return False
    try:
        key, expected = (base64.b64decode(part, validate=True) for part in (salt, digest))
    except (binascii.Error, ValueError):
        return False
    found = hmac.digest(key, name.encode("utf-8", "surrogateescape"), "sha1")
    return hmac.compare_digest(found, expected)


def _pattern_matches(pattern: str, name: str) -> bool:
    """With `*` and `?` only: brackets are literal, as in `[box]:22`."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    return re.fullmatch(translate(pattern.replace("[", "[[]")), name) is not None


@dataclass(frozen=True)
class Trust:
    """The entries for one host.

    Attributes:
        trusted: Its keys.
        authorities: Keys whose certificates for it are trusted.
        revoked: Keys that must never be used.
    """

    trusted: tuple[KnownKey, ...] = ()
    authorities: tuple[KnownKey, ...] = ()
    revoked: frozenset[bytes] = frozenset()

    @property
    def kinds(self) -> list[str]:
        """Types of trusted keys, in the order of the files."""
        return list(dict.fromkeys(key.kind for key in self.trusted))

    def judge(self, kind: str, blob: bytes) -> Literal["trusted", "revoked", "changed", "unknown"]:
        """The verdict on a plain key of the host. Changed: another key of its type is trusted."""
        if blob in self.revoked:
            return "revoked"
        if any(key.blob == blob for key in self.trusted):
            return "trusted"
        return "changed" if kind in self.kinds else "unknown"


def trust_in(files: Iterable[bytes], name: str, bare_name: str | None = None) -> Trust:
    """The entries of files for a host, in order.

    Args:
        files: Their contents.
        name: The host's name in known_hosts.
        bare_name: The same without a port: its keys count if this port has none, as in OpenSSH.
    """
    lines = [line for data in files for line in read_lines(data)]
    found = _trust(lines, name)
    if bare_name is not None and not found.trusted and not found.authorities:
        other = _trust(lines, bare_name)
        return Trust(other.trusted, other.authorities, found.revoked | other.revoked)
    return found


def _trust(lines: list[KnownKey], name: str) -> Trust:
    about = [line for line in lines if names_match(line.names, name)]
    return Trust(
        trusted=tuple(line for line in about if line.marker == ""),
        authorities=tuple(line for line in about if line.marker == "@cert-authority"),
        revoked=frozenset(line.blob for line in about if line.marker == "@revoked"),
    )
