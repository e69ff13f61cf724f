"""Asks a host what it is, before anything of TianJi is there (`engine/host/host_probe.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.errors import PreflightError
from tianji_cli.connectors.base import Node
from tianji_cli.provisioning.bundle import source_root

PROBE_S = 20.0
_SCRIPT = "engine/host/host_probe.py"


class ProbeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts from an interpreter on a host; see the script."""

    hostname: str
    executable: str
    python: str
    packages: dict[str, str | None]
    num_cores: int
    memory_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    is_writable: bool
    gpus: list[str]
    leftovers: dict[str, str]
    has_venv: bool

    @property
    def minor(self) -> str:
        """`3.11` of `3.11.4`."""
        return minor_of(self.python)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Python and of the installed packages."""
        there = {name: version for name, version in self.packages.items() if version is not None}
        return {"python": self.python, **there}

    @property
    def missing(self) -> list[str]:
        """Requested packages that are not installed."""
        return [name for name, version in self.packages.items() if version is None]


def minor_of(version: str) -> str:
    """
    >>> minor_of("3.11.4")
    '3.11'
    """
    return ".".join(version.split(".")[:2])


def probe_command(python: str, *arguments: str) -> list[str]:
    """The command line that runs the probe with an interpreter of the host."""
    return script_command(python, _SCRIPT, *arguments)


def script_command(python: str, path: str, *arguments: str) -> list[str]:
    """The command line that runs a script of this source, sent as text, with such an interpreter.

    Args:
        path: Relative to the packages' directory.
    """
    script = (source_root() / path).read_text()
    return [python, "-c", script, *arguments]


def probe(node: Node, python: str, workdir: str, packages: Sequence[str]) -> ProbeFacts | None:
    """The facts from an interpreter on a host; None if there is no such interpreter.

    Raises:
        PreflightError: It exists and does not work.
    """
    done = node.run(probe_command(python, "facts", workdir, *packages), PROBE_S)
    if done.code in (126, 127):
        return None
    try:
        return msgspec.json.decode(done.stdout, type=ProbeFacts)
    except msgspec.DecodeError:
        raise PreflightError(
            f"{python} does not work (exit code {done.code}){done.last_words}",
            where=node.name,
            fix="give the path of a working Python 3 with `python:` in the inventory",
        ) from None
