"""`deployment.json`: where the parts of a run are, for commands that come later."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from engine.errors import ConfigError
from tianji_cli.config.inventory import Host, check_host
from tianji_cli.storage.consent import NOBODY, Consent, words_of_host
from tianji_cli.storage.json_files import decode, read_document, write_json
from tianji_cli.storage.ownership import checksum_of, is_own, note_own
from tianji_cli.storage.run_dir import command_for
from tianji_cli.storage.safe_files import PRIVATE_MODE
from tianji_cli.storage.takings import Share

SCHEMA_VERSION = 1
DEPLOYMENT_NAME = "deployment.json"
INSPECTOR = "engine.supervision.run_inspector"
"""The module of this release that inspects runs on a host (`tianji_cli.runs.host_control`)."""
FORMER_INSPECTOR = "engine.runtime.inspect"
"""The same module in releases that did not record it."""
_MODULE = re.compile(r"engine(\.[a-z][a-z_]*)+")


class HostPart(msgspec.Struct, frozen=True, kw_only=True):
    """One host's part of a run.

    Attributes:
        host: As in the inventory, its address filled in.
        python: Interpreter.
        source: Directory of the packages.
        run_dir: The run's directory there.
        inspector: The module in `source` that inspects and ends the run: a host has the sources
            with which the run started, not those of this program. Older files lack it, and still
            do when they are written again.
        attempt: Of the `up` that started the run; empty for earlier releases.
        learners: Learners there, which write checkpoints; None in older files.
        buffers: Buffers there, which may save their replay stores; older files lack it.
    """

    host: Host
    python: str
    source: str
    run_dir: str
    inspector: str | msgspec.UnsetType = msgspec.UNSET
    attempt: str = ""
    learners: tuple[int, ...] | None = None
    buffers: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET

    @property
    def inspecting_module(self) -> str:
        """The module to run in `source`."""
        return FORMER_INSPECTOR if self.inspector is msgspec.UNSET else self.inspector


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """All parts of a run, the coordinator's host first.

    Attributes:
        is_collected: Everything was copied here and removed there.
        is_detached: The command that started it has detached.
        has_ended: A later command has seen its end.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    is_collected: bool = False
    is_detached: bool = False
    has_ended: bool = False
    parts: Annotated[tuple[HostPart, ...], msgspec.Meta(min_length=1)]


def shares_of(parts: Sequence[HostPart]) -> dict[str, Share]:
    """What is accepted from each host of a run; the coordinator's host is the first."""
    return {
        part.host.name: Share(
            part.host.name,
            number == 0,
            part.learners,
            () if part.buffers is msgspec.UNSET else part.buffers,
        )
        for number, part in enumerate(parts)
    }


def write_deployment(run_root: Path, deployment: Deployment) -> None:
    """Replaces the file in `results/<run-id>`, and records that it is this user's own."""
    data = write_json(run_root / DEPLOYMENT_NAME, deployment, PRIVATE_MODE)
    note_own(_checksum_of(data))


def _checksum_of(document: bytes) -> str:
    return checksum_of(document, but=("is_collected", "is_detached", "has_ended"))


def read_deployment(run_root: Path, consent: Consent = NOBODY) -> Deployment:
    """Reads where the parts of a run are.

    Args:
        run_root: `results/<run-id>`.
        consent: Asked unless this user started the run here; a collected run is on no host any
            more, and needs no consent.

    Raises:
        ConfigError: The run was not started by a release that writes this, or ran in one process;
            or the file cannot be read, is damaged, newer than this program, or without consent.
    """
    path = run_root / DEPLOYMENT_NAME
    if not os.path.lexists(path):
        raise ConfigError(
            "this run had no processes of its own: it ran inside its command (policy local) and"
            " ended with it; its only log is what the terminal showed",
            where=str(run_root),
            fix=f"tianji report {run_root.name}",
        )
    data = read_document(path)
    deployment = decode(data, Deployment, SCHEMA_VERSION, "a run", str(path))
    if not deployment.is_collected:
        _check(deployment, str(path))
        lines = [_words_of(part) for part in deployment.parts]
        consent.need(_checksum_of(data), "run", str(path), lines)
    return deployment


def deployment_of_bytes(data: bytes, where: str) -> Deployment:
    """Where the parts of a run are, as another machine has written it down.

    Raises:
        ConfigError: It is damaged, or names something impossible.
    """
    deployment = decode(data, Deployment, SCHEMA_VERSION, "a run", where)
    _check(deployment, where)
    return deployment


def take_deployment(run_root: Path, deployment: Deployment) -> None:
    """Keeps what another machine has written down. It is not this user's own: whoever uses hosts
    that it names is asked before.

    Raises:
        OSError: It cannot be written.
    """
    write_json(run_root / DEPLOYMENT_NAME, deployment, PRIVATE_MODE)


def _words_of(part: HostPart) -> str:
    words = words_of_host(part.host)
    if part.host.connection == "local":
        return f"{words}, run in {part.run_dir}"
    return f"{words}: {part.python} in {part.source}, run in {part.run_dir}"


def _check(deployment: Deployment, where: str) -> None:
    """Checks values of a file, which can be anything, by the rules of an inventory.

    Raises:
        ConfigError: It names an impossible host, run or directory.
    """
    if not deployment.run_id or set(deployment.run_id) & set("/\0"):
        raise ConfigError(f"{deployment.run_id!r} is no run", where=where)
    for part in deployment.parts:
        check_host(part.host, where)
        for text in (part.python, part.source, part.run_dir):
            if not text or "\0" in text or ".." in PurePosixPath(text).parts:
                raise ConfigError(f"{text!r} is no path of a run", where=where)
        if not _MODULE.fullmatch(part.inspecting_module):
            raise ConfigError(f"{part.inspector!r} is no module of TianJi", where=where)


def note_ended(run_root: Path, deployment: Deployment) -> None:
    """Records that a run has ended, for commands that ask no host. This makes it no one's own.

    Another command can have recorded more since this one has read the file, which stays.

    Raises:
        OSError: It cannot be written.
    """
    found, path = _peek(run_root), run_root / DEPLOYMENT_NAME
    current = found or deployment
    if current.has_ended or current.is_collected:
        return
    done: object = msgspec.structs.replace(deployment, has_ended=True)
    if found is not None:  # as it is written: a key that older files lack would change its checksum
        written = msgspec.json.decode(read_document(path), type=dict[str, object])
        done = {**written, "has_ended": True}
    write_json(path, done, PRIVATE_MODE)


def _peek(run_root: Path) -> Deployment | None:
    """The contents of the file, for display only: nothing that it names is used."""
    path = run_root / DEPLOYMENT_NAME
    try:
        return decode(read_document(path), Deployment, SCHEMA_VERSION, "a run", str(path))
    except ConfigError:
        return None


def whereabouts(run_root: Path) -> str:
    """The place of a run's results if there is no summary here, and the command that copies them.

    Uses only files here. Empty if the run was not detached, or all of it was copied here.
    """
    found = _peek(run_root)
    if found is None or found.is_collected or not found.is_detached:
        return ""
    fetch = command_for("fetch", run_root)
    if found.has_ended:
        return f"ended, results still on its hosts: {fetch} brings them"
    return f"detached, its hosts know whether it has ended: {fetch} brings what is there"


def left_on_hosts(run_root: Path) -> tuple[Deployment | None, bool]:
    """What the file here says of a run that may still be on its hosts, and whether it is this
    user's own. Nothing that it names is used. None for a run of which nothing is left there."""
    found = _peek(run_root)
    if found is None or found.is_collected:
        return None, False
    return found, is_own(_checksum_of(read_document(run_root / DEPLOYMENT_NAME)))


def is_of_slurm(run_root: Path) -> bool:
    """Whether a run had nodes of a Slurm job, according to the files here; another job can have
    other nodes."""
    found = _peek(run_root)
    return found is not None and any(part.host.job for part in found.parts)


def is_over(run_root: Path) -> bool:
    """Whether a run has ended and nothing of it is on any host, according to the files here."""
    found = _peek(run_root)
    return found is not None and found.is_collected
