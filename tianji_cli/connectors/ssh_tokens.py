"""Expands what `ssh -G` leaves in the values of options: `%h`, `~`, `${NAME}`."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from engine.errors import ConfigError
from engine.host.account import expand, home, user_name

_VARIABLE = re.compile(r"\$\{([^}]*)\}")

Options: TypeAlias = Mapping[str, str | list[str]]
"""Lower-case names of options and their values, as from paramiko's parser."""


class SshConfigError(ConfigError):
    """The user's own configuration of ssh cannot be used."""


@dataclass(frozen=True)
class Tokens:
    """The percent tokens of ssh_config, for one host.

    Attributes:
        alias: The user's name for it.
        key_name: HostKeyAlias, or else the alias.
    """

    alias: str
    hostname: str
    port: int
    user: str
    key_name: str

    def replace(self, text: str) -> str:
        """The text with all tokens replaced; other percent signs are kept.

        >>> Tokens("a", "a.lab", 22, "ann", "a").replace("nc %h %p 100%% %r@%n %z")
        'nc a.lab 22 100% ann@a %z'
        """
        return re.sub(r"%(.)", lambda match: self._value(match[1]), text, flags=re.DOTALL)

    def path(self, text: str) -> str:
        """The expanded path of an option's file."""
        return str(expand(self.replace(without_variables(text))))

    def _value(self, letter: str) -> str:
        here = socket.gethostname()
        values = {
            "%": "%",
            "h": self.hostname,
            "n": self.alias,
            "p": str(self.port),
            "r": self.user,
            "k": self.key_name,
            "u": user_name(),
            "i": str(os.getuid()),
            "d": str(home() or ""),
            "l": here,
            "L": here.partition(".")[0],
            "j": "",
        }
        if letter == "C":
            joined = f"{here}{self.hostname}{self.port}{self.user}"
            return hashlib.sha1(joined.encode(), usedforsecurity=False).hexdigest()
        return values.get(letter, f"%{letter}")


def without_variables(text: str, *, optional: bool = False) -> str:
    """The text with `${NAME}` replaced by this process's environment.

    Args:
        optional: An unset variable is empty, rather than an error.

    Raises:
        ConfigError: A variable is not set; ssh refuses this, too.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None and not optional:
            raise ConfigError(
                f"the environment variable {match[1]} is not set",
                where=f"ssh's configuration: {text}",
            )
        return found or ""

    return _VARIABLE.sub(value, text)


def split_files(text: str) -> list[str]:
    """The files of one option; `ssh -G` joins them with blanks, without quoting.

    A name that contains a blank continues until a word starts another name.

    >>> split_files("/home/ann/.ssh/a /home/ann/my keys/b ~/c")
    ['/home/ann/.ssh/a', '/home/ann/my keys/b', '~/c']
    >>> split_files('"/with a blank" none relative')
    ['/with a blank', 'none', 'relative']
    """
    if '"' in text:
        words = re.findall(r'"([^"]*)"|(\S+)', text)
        return [quoted or plain for quoted, plain in words]
    found: list[str] = []
    for word in text.split(" "):
        is_new = word.startswith(("/", "~", "$", "%")) or word == "none"
        if found and not is_new and found[-1].startswith(("/", "~", "$", "%")):
            found[-1] += f" {word}"
        elif word:
            found.append(word)
    return found
