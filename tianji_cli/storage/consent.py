"""Asks before anything is done with hosts and programs that only a results directory names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgspec
import typer

from engine.errors import ConfigError
from tianji_cli.config.inventory import Host
from tianji_cli.storage.ownership import is_own, note_own

FLAG = "--trust"
_DECIDES = re.compile(r"PYTHON|LD_|PATH$|BASH_ENV|ENV$")
"""Variables that determine which programs run; values of others can be secrets."""

_TELLING = ("python", "command", "experiment", "id", "settings")
MAX_LINES = 30

Lines: TypeAlias = Sequence[str]


class Listener(Protocol):
    """A receiver of messages: the terminal (`tianji_cli.output`)."""

    is_json: bool

    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class Consent:
    """The user's consent to things that were not started here.

    Attributes:
        output: Where it is shown; None: the user is not asked.
        is_given: By `--trust`, on the command line.
    """

    output: Listener | None = None
    is_given: bool = False

    def need(self, checksum: str, what: str, where: str, lines: Lines) -> None:
        """Ensures that a document is the user's own or agreed to; the consent is recorded.

        Args:
            checksum: Of the document.
            what: Its kind, such as `run`.
            where: The document.
            lines: What would be used of it.

        Raises:
            ConfigError: The user does not agree, or cannot be asked.
        """
        if is_own(checksum):
            return
        self._show(what, where, lines)
        if not self.is_given and not self._is_agreed():
            shown = "".join(f"\n    {line}" for line in lines)
            raise ConfigError(
                f"you did not start this {what} here, so what it names is not used{shown}",
                where=where,
                fix=f"if it is yours, or you trust it: {FLAG}",
            )
        note_own(checksum)

    def _show(self, what: str, where: str, lines: Lines) -> None:
        if self.output is not None and (self.is_given or self._can_ask()):
            self.output.say(f"{where}: you did not start this {what} here; it names")
            for line in lines:
                self.output.say(f"  {line}")

    def _can_ask(self) -> bool:
        is_there = sys.stdin is not None and sys.stdin.isatty()
        return self.output is not None and not self.output.is_json and is_there

    def _is_agreed(self) -> bool:
        return self._can_ask() and typer.confirm("Use it?", default=False, err=True)


NOBODY = Consent()
"""There is no user to ask."""


def words_of(document: object) -> list[str]:
    """The hosts, programs and experiments that a benchmark or study would use."""
    found = dict.fromkeys(_words(document))
    shown = list(found)[:MAX_LINES]
    return [*shown, *([f"and {len(found) - MAX_LINES} more"] if len(found) > MAX_LINES else [])]


def _words(value: object) -> Iterator[str]:
    if isinstance(value, Host):
        yield words_of_host(value)
        return
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _TELLING and item and not isinstance(item, dict):
                yield f"{key}: {' '.join(item) if isinstance(item, list) else item}"
            else:
                yield from _words(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)


def _way_to(host: Host) -> str:
    if host.connection == "slurm":
        return f"a step of Slurm job {host.job}"
    if host.connection == "ray":
        return f"as a driver of Ray cluster {(host.ray and host.ray.address) or '$RAY_ADDRESS'}"
    user = f"{host.user}@" if host.user else ""
    port = f":{host.port}" if host.port else ""
    return f"ssh {user}{host.ssh_host}{port}"


def words_of_host(host: Host) -> str:
    """A host and what would be started on it, in one line."""
    if host.connection == "local":
        words = "this machine"
    else:
        words = _way_to(host)
        words += "".join(
            f", {key} {value}"
            for key in ("jump", "key", "known_hosts", "python")
            if (value := getattr(host, key))
        )
        words += f", directory {host.workdir}"
    env = [f"{k}={v}" if _DECIDES.match(k) else k for k, v in host.env.items()]
    return f"{host.name}: {words}" + (f", env {', '.join(env)}" if env else "")
