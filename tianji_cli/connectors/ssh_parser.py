"""`~/.ssh/config` read without an OpenSSH client, by paramiko's parser.

It supports a part of the language. A file with lines that it would ignore or misread is refused
with these lines, since a guess could reach another host or another user.
"""

from __future__ import annotations

import re
from pathlib import Path

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from engine.host.account import user_name
from tianji_cli.connectors.ssh_tokens import Options, SshConfigError

_KNOWN_CRITERIA = frozenset({"all", "host", "originalhost", "user", "localuser"})
_KEYWORD = re.compile(r"^\s*(?P<name>[A-Za-z]+)(?:\s*=\s*|\s+)(?P<value>.*?)\s*$")
_WITH_VALUE = _KNOWN_CRITERIA - {"all"}


def parse_config(path: Path, alias: str, user: str | None = None) -> Options:
    """All options of a file for a host; the defaults if there is no such file.

    Raises:
        SshConfigError: It cannot be read, or has lines that this parser does not support.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return {"hostname": alias}
    except OSError as error:
        raise SshConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if problems := not_understood(text):
        raise SshConfigError(
            "there is no `ssh` here to read it, and this is not understood without one: "
            + "; ".join(f"line {number}: {words}" for number, words in problems),
            where=f"{path}:{problems[0][0]}",
            fix="install an OpenSSH client (Debian: apt install openssh-client)",
        )
    if user is not None:  # as `ssh -l` does, so that `Match user` sees it
        text = f"User {user}\n{text}"
    try:
        return dict(paramiko.SSHConfig.from_text(text).lookup(alias))
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ValueError) as error:
        raise SshConfigError(f"cannot be read: {error}", where=str(path)) from error


def not_understood(text: str) -> list[tuple[int, str]]:
    """Lines that paramiko's parser would misread: their numbers and texts.

    >>> not_understood("Host a\\n Include more\\nMatch final all\\nMatch user ann")
    [(2, 'Include more'), (3, 'Match final all')]
    """
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        match = _KEYWORD.match(line)
        if match is None:
            if line.strip() and not line.lstrip().startswith("#"):
                found.append((number, line.strip().encode("ascii", "replace").decode()))
            continue
        if not _is_understood(match["name"].lower(), match["value"]):
            found.append((number, f"{match['name']} {match['value']}"))
    return found


def _is_understood(name: str, value: str) -> bool:
    if name == "include" or " #" in value:  # a comment for ssh, part of the value for the parser
        return False
    if name == "canonicalizehostname":
        return value.lower() in ("no", "none")
    return name != "match" or _is_known(value)


def _is_known(criteria: str) -> bool:
    """Whether a Match line names only what the parser evaluates as ssh does."""
    if "user" in criteria and not user_name():
        return False  # the parser needs the user's name, and there is none
    words = criteria.split()
    while words:
        name = words.pop(0).removeprefix("!")
        if name not in _KNOWN_CRITERIA:
            return False
        if name in _WITH_VALUE and (not words or words.pop(0).startswith('"')):
            return False
    return True
