"""`tianji fetch`: copies what a detached run has written on its hosts; the run continues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from engine.errors import HostUnreachableError, PreflightError
from engine.trace.reader import read_summary
from tianji_cli.commands.status import Phase, phase_of
from tianji_cli.output import Output
from tianji_cli.runs.detached import DetachedRun, HostAnswer
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run


class HostFetched(msgspec.Struct, frozen=True, kw_only=True):
    """A host in `fetch --json`: the state of its part of the run, and why files are missing."""

    phase: Literal["running", "ended", "unknown"]
    error: str = ""


class FetchDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `fetch --json` prints; `is_complete` if the run has ended and all of it is here."""

    schema_version: int = 1
    run_id: str
    phase: Phase
    is_complete: bool
    hosts: dict[str, HostFetched]


def fetch_command(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Copies what is there. It can be repeated; only new lines are copied again.

    Raises:
        ConfigError: No such run, or its summary is damaged.
        HostUnreachableError: A host does not answer; files of the others are here.
        PreflightError: Files did not arrive, or cannot be written here.
    """
    run = DetachedRun(resolve_run(results, name), consent=Consent(output, trusts))
    answers = [] if run.deployment.is_collected else run.fetch()
    document = _document(run, answers)
    if document.phase == "ended":
        run.note_ended()
    if output.is_json:
        output.document(document)
    else:
        for host, item in document.hosts.items():
            output.say(f"{host}: {item.phase}{f', but {item.error}' if item.error else ''}")
    refuse_incomplete(run.paths, answers)
    if not output.is_json:
        _say_what_next(document, run.paths, output)
    return 0


def _document(run: DetachedRun, answers: Sequence[HostAnswer]) -> FetchDocument:
    summary = read_summary(run.paths.summary)
    phase = phase_of(answers, has_summary=summary is not None)
    hosts = {answer.part.host.name: _row(answer) for answer in answers}
    has_come = all(row.phase == "ended" and not row.error for row in hosts.values())
    is_complete = has_come and phase in ("ended", "lost")
    return FetchDocument(
        run_id=run.deployment.run_id, phase=phase, is_complete=is_complete, hosts=hosts
    )


def _row(answer: HostAnswer) -> HostFetched:
    if answer.findings is None:
        return HostFetched(phase="unknown", error=answer.problem)
    error = answer.error.what if answer.error else ""
    return HostFetched(phase="running" if answer.is_running else "ended", error=error)


def refuse_incomplete(paths: RunPaths, answers: Sequence[HostAnswer]) -> None:
    """Raises if a host does not answer, or files of it did not come.

    Raises:
        HostUnreachableError: A host does not answer.
        PreflightError: All do, but files did not arrive, or cannot be written here.
    """
    bad = [answer for answer in answers if answer.error is not None]
    if not bad:
        return
    words = "".join(f"\n    {answer.part.host.name}: {answer.problem}" for answer in bad)
    kind = PreflightError if all(answer.findings for answer in bad) else HostUnreachableError
    raise kind(
        f"not all of the run is here{words}",
        where=paths.run_id,
        fix=f"fix that, then run: {command_for('fetch', paths.root)}",
    )


def _say_what_next(document: FetchDocument, paths: RunPaths, output: Output) -> None:
    down = command_for("down", paths.root)
    if document.phase == "running":
        output.say(f"the run continues; what it has written so far is here. {down} ends it")
    elif document.hosts:
        output.say(f"{down} removes what is on its hosts")
    output.say(f"results: {paths.root}   plots: {command_for('report', paths.root)}")
