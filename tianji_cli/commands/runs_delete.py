"""`tianji runs --delete`: removes runs from a results directory. Never asks a host."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer

from engine.errors import ConfigError, PreflightError
from engine.supervision.run_inspector import look
from tianji_cli import units
from tianji_cli.analysis.run import read_manifest
from tianji_cli.analysis.runs import row_of
from tianji_cli.bench.kinds import KINDS
from tianji_cli.output import Output
from tianji_cli.storage.deletion import RunFiles, delete, files_of
from tianji_cli.storage.deployment import left_on_hosts
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run

MAX_LEVELS = 4
"""So many directories above a run can hold the benchmark that it is a part of."""


class DeletedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `runs --delete --json`; `kept` are files in its directory that are not its own."""

    run_id: str
    path: str
    num_files: int
    freed_bytes: int
    kept: list[str]


class DeletedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `runs --delete --json` prints."""

    schema_version: int = 1
    deleted: list[DeletedRun]
    freed_bytes: int


def delete_command(results: Path, names: Sequence[str], output: Output, *, is_agreed: bool) -> None:
    """Deletes runs, after asking. All are checked before anything is removed.

    Args:
        results: The results directory.
        names: Ids, unique prefixes or paths.
        output: The command's output.
        is_agreed: By `--yes`; otherwise the user is asked.

    Raises:
        ConfigError: No name; one that is no run, that still runs, or of which something is left on
            its hosts; or nobody can be asked.
        PreflightError: A directory cannot be read.
        CleanupError: Not all of a run could be removed.
    """
    if not names:
        raise ConfigError("no run was given", where="--delete", fix="tianji runs lists them")
    found = {place.root: place for place in (_find(results, name) for name in names)}
    plans = [_check(paths) for paths in found.values()]
    total_bytes = sum(plan.freed_bytes for plan in plans)
    if not _may_delete(plans, total_bytes, output, is_agreed=is_agreed):
        output.say("nothing was deleted")
        return
    for plan in plans:
        delete(plan)
        output.say(
            f"{plan.paths.run_id}: deleted, {units.size(plan.freed_bytes)} freed{_kept(plan)}"
        )
    if output.is_json:
        rows = [_row(plan) for plan in plans]
        output.document(DeletedDocument(deleted=rows, freed_bytes=total_bytes))
    elif len(plans) > 1:
        output.say(f"{units.plural(len(plans), 'run')}: {units.size(total_bytes)} freed")


def _find(results: Path, name: str) -> RunPaths:
    """The run of this name, its directory as it was given: a link is not followed."""
    paths = resolve_run(results, name)
    given = Path(os.path.normpath(name))
    if given.is_symlink() and given.resolve() == paths.root:
        return RunPaths(given)
    return paths


def _check(paths: RunPaths) -> RunFiles:
    """Raises unless this is a run's own directory and nothing of the run is at work."""
    root = paths.root
    if root.is_symlink() or paths.manifest.is_symlink():
        link = root if root.is_symlink() else paths.manifest
        raise ConfigError(
            "it is a link, and what it leads to is not deleted", where=str(link), fix="remove it"
        )
    _refuse_others(paths)
    _refuse_running(paths)
    try:
        return files_of(paths)
    except OSError as error:
        raise PreflightError(
            f"it cannot be read: {error.strerror or error}", where=str(error.filename or root)
        ) from error


def _refuse_others(paths: RunPaths) -> None:
    """Raises ConfigError if the directory is not that of a run alone."""
    manifest = read_manifest(paths.manifest)
    if not manifest.text("run_id") or not manifest.section("experiment"):
        raise ConfigError("its manifest is not that of a run", where=str(paths.manifest))
    places = (paths.root, *list(paths.root.resolve().parents)[:MAX_LEVELS])
    for kind in KINDS.values():
        if kind.is_at(paths.root):
            raise ConfigError(f"it is {kind.title}, not a run", where=str(paths.root))
        holder = next((place for place in places if kind.is_at(place)), None)
        if holder is not None and not kind.journal:
            raise ConfigError(
                f"{kind.title} needs it for its report", where=str(paths.root), fix=str(holder)
            )


def _refuse_running(paths: RunPaths) -> None:
    """Raises ConfigError if a run is at work here, or was left on hosts by this user."""
    deployment, is_own = left_on_hosts(paths.root)
    if deployment is None:
        return
    down = command_for("down", paths.root)
    for part in deployment.parts:
        name = part.host.name
        if part.host.connection != "local":
            if is_own:
                raise ConfigError(
                    f"{name} may still run it, or hold files of it", where=paths.run_id, fix=down
                )
            continue
        findings = look(Path(part.run_dir), deployment.run_id, name, part.attempt)
        if findings.is_supervised or findings.marked:
            raise ConfigError(f"it still runs on {name}", where=paths.run_id, fix=down)


def _may_delete(
    plans: Sequence[RunFiles], total_bytes: int, output: Output, *, is_agreed: bool
) -> bool:
    if is_agreed:
        return True
    for plan in plans:
        row = row_of(plan.paths)
        size = f"{units.plural(plan.num_files, 'file')}, {units.size(plan.freed_bytes)}"
        output.say(f"{plan.paths.root}  {row.status}  {size}{_kept(plan)}")
    if output.is_json or sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            f"this deletes {units.plural(len(plans), 'run')}, and nobody can be asked",
            where="--delete",
            fix="add --yes",
        )
    question = f"Delete {units.plural(len(plans), 'run')}, {units.size(total_bytes)}?"
    return typer.confirm(question, default=False, err=True)


def _kept(plan: RunFiles) -> str:
    return f"; not TianJi's, so kept: {', '.join(plan.kept)}" if plan.kept else ""


def _row(plan: RunFiles) -> DeletedRun:
    return DeletedRun(
        run_id=plan.paths.run_id,
        path=str(plan.paths.root),
        num_files=plan.num_files,
        freed_bytes=plan.freed_bytes,
        kept=list(plan.kept),
    )
