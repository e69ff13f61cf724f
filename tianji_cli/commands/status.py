"""`tianji status`: what a run is doing, asked on its hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.errors import HostUnreachableError
from engine.progress import Progress
from engine.trace.reader import read_summary
from tianji_cli.output import Output
from tianji_cli.render.live import line
from tianji_cli.runs.detached import DetachedRun, HostAnswer
from tianji_cli.slurm.job_state import JobState
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run

Phase = Literal["pending", "running", "ended", "lost", "unknown"]


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A role in `status --json`."""

    host: str
    pid: int
    is_alive: bool


class StatusDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `status --json` prints; `phase` is `pending`, `running`, `ended`, `lost` or `unknown`.

    A run is lost if no process of it is left and it wrote no summary. Neither this nor its end is
    known while the hosts that would know do not answer. A submitted one is pending while its job
    waits; `job` is what Slurm says of it.
    """

    schema_version: int = 1
    run_id: str
    phase: Phase
    is_collected: bool
    roles: dict[str, RoleStatus]
    hosts: dict[str, str]
    failures: list[str]
    progress: Progress | None
    summary_status: str | None
    job: JobState | None = None


def status_command(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Prints the state of a run.

    Raises:
        ConfigError: No such run, or its summary is damaged.
        HostUnreachableError: No host of it answers.
    """
    run = DetachedRun(resolve_run(results, name), consent=Consent(output, trusts))
    answers = [] if run.deployment.is_collected else run.look()
    if answers and all(answer.findings is None for answer in answers):
        assert answers[0].error is not None
        raise HostUnreachableError(answers[0].error.what, where=answers[0].error.where)
    document = document_of(run, answers)
    if document.phase == "ended":
        run.note_ended()
    if output.is_json:
        output.document(document)
        return 0
    is_away = any(part.host.connection != "local" for part in run.deployment.parts)
    output.data.print(table_of_status(document, is_away), soft_wrap=True)
    if words := _what_next(document, is_away, run.paths):
        output.say(words)
    return 0


def _what_next(document: StatusDocument, is_away: bool, paths: RunPaths) -> str:
    if document.phase == "running":
        return f"{command_for('logs -f', paths.root)} follows it"
    if document.phase == "unknown":
        return f"once the hosts answer: {command_for('status', paths.root)}"
    if document.is_collected:
        return ""
    down = command_for("down", paths.root)
    if is_away and document.summary_status is None:
        fetch = command_for("fetch", paths.root)
        return f"{fetch} brings its results here; {down} also removes them there"
    return f"its results are here; {down} removes what is left of it on its hosts"


def document_of(run: DetachedRun, answers: Sequence[HostAnswer]) -> StatusDocument:
    """The state of a run from what its hosts say, and its files here.

    Raises:
        ConfigError: Its summary is damaged.
    """
    summary = read_summary(run.paths.summary)
    states = [a.findings.state for a in answers if a.findings and a.findings.state]
    return StatusDocument(
        run_id=run.deployment.run_id,
        phase=phase_of(answers, has_summary=summary is not None),
        is_collected=run.deployment.is_collected,
        roles={
            address: RoleStatus(
                host=answer.part.host.name,
                pid=process.pid,
                is_alive=address in answer.findings.alive,
            )
            for answer in answers
            if answer.findings and answer.findings.state
            for address, process in answer.findings.state.roles.items()
        },
        hosts={answer.part.host.name: _host_words(answer) for answer in answers},
        failures=[
            f"{failure.host}: {failure.address} {failure.cause}"
            for state in states
            for failure in state.failures
        ],
        progress=next((state.progress for state in states if state.progress), None),
        summary_status=summary.status if summary else None,
    )


def phase_of(answers: Sequence[HostAnswer], *, has_summary: bool) -> Phase:
    """The phase of a run, as far as its hosts answer.

    A host's part can end before the run. So only the coordinator's host knows whether the run has
    ended; while that host is silent, the state of other parts does not decide.

    Args:
        answers: The coordinator's host first; empty if everything was copied here.
        has_summary: Whether the run's summary is here.
    """
    if any(answer.is_running for answer in answers):
        return "running"
    if has_summary or any(_has_ended(answer) for answer in answers[:1]):
        return "ended"
    if any(answer.findings is None for answer in answers):
        return "unknown"
    return "ended" if any(_has_ended(answer) for answer in answers) else "lost"


def _has_ended(answer: HostAnswer) -> bool:
    state = answer.findings.state if answer.findings else None
    return state is not None and state.phase == "ended"


def _host_words(answer: HostAnswer) -> str:
    if answer.findings is None:
        return answer.problem
    if answer.findings.is_supervised:
        state = "running"
    elif answer.is_running:
        state = f"processes {answer.findings.marked} without a supervisor"
    else:
        state = "ended"
    return f"{state}, but {answer.error.what}" if answer.error is not None else state


def table_of_status(document: StatusDocument, is_away: bool) -> RenderableType:
    """What people see of it; `is_away` if hosts have files that this machine lacks."""
    title = f"run {document.run_id}: {document.phase}"
    is_here = document.is_collected or document.summary_status is not None
    if document.phase == "ended" and is_away and not is_here:
        title += ", results still on its hosts"
    parts: list[RenderableType] = [Text(title, style="bold")]
    if document.summary_status:
        parts.append(Text(f"its summary says {document.summary_status}"))
    if document.progress is not None and document.phase == "running":
        parts.append(Text(line(document.progress)))
    table = Table("host", "state", "roles", box=None, pad_edge=False, header_style="dim")
    for host, words in document.hosts.items():
        roles = [
            f"{address} ({role.pid}{'' if role.is_alive else ', dead'})"
            for address, role in document.roles.items()
            if role.host == host
        ]
        table.add_row(host, words, ", ".join(sorted(roles)))
    if document.hosts:
        parts.append(table)
    parts += [Text(failure, style="red") for failure in document.failures]
    return Group(*parts)
