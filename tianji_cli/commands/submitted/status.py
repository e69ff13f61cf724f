"""`tianji status` of a submitted run: its job and, while it runs, what its hosts say."""

from __future__ import annotations

import msgspec
from rich.text import Text

from engine.errors import ConfigError
from engine.trace.reader import read_summary
from tianji_cli.commands.status import Phase, StatusDocument, document_of, table_of_status
from tianji_cli.commands.submitted.files import bring_files
from tianji_cli.output import Output
from tianji_cli.runs.detached import DetachedRun
from tianji_cli.runs.resume import resume_hint
from tianji_cli.runs.submitted import SubmittedRun
from tianji_cli.slurm.job_state import JobState
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import DEPLOYMENT_NAME
from tianji_cli.storage.run_dir import RunPaths, command_for


def submitted_status(run: SubmittedRun, output: Output, consent: Consent) -> int:
    """Prints job and run.

    Raises:
        PreflightError: Slurm cannot be asked.
        ConfigError: A file of the run is damaged.
    """
    state = run.look()
    bring_files(run, state, output)
    document = _document(run, state, consent, output)
    if output.is_json:
        output.document(document)
        return 0
    output.data.print(Text(f"{run.words} {state.words()}"), soft_wrap=True)
    if run.runs:
        output.data.print(table_of_status(document, is_away=False), soft_wrap=True)
    output.say(_what_next(run, document))
    return 0


def _document(
    run: SubmittedRun, state: JobState, consent: Consent, output: Output
) -> StatusDocument:
    paths = run.current
    summary = read_summary(paths.summary)
    phase = phase_of_job(state, has_summary=summary is not None, has_begun=bool(run.runs))
    document = _asked(paths, state, consent, output) or StatusDocument(
        run_id=paths.run_id,
        phase=phase,
        is_collected=False,
        roles={},
        hosts={},
        failures=[],
        progress=None,
        summary_status=summary.status if summary else None,
    )
    return msgspec.structs.replace(document, phase=phase, job=state)


def _asked(
    paths: RunPaths, state: JobState, consent: Consent, output: Output
) -> StatusDocument | None:
    """What the run's hosts say while the job runs; None if they cannot be asked."""
    if not (paths.root / DEPLOYMENT_NAME).is_file():
        return None
    try:
        detached = DetachedRun(paths, consent=consent)
    except ConfigError as error:
        output.say(f"note: its hosts are not asked: {error}")
        return None
    is_asked = state.phase == "running" and not detached.deployment.is_collected
    # `up` in the job copies their files, so this command must not.
    return document_of(detached, detached.look(collects=False) if is_asked else [])


def phase_of_job(state: JobState, *, has_summary: bool, has_begun: bool) -> Phase:
    """The phase of a submitted run.

    Args:
        state: Its job.
        has_summary: Whether the summary of its last run is here.
        has_begun: Whether a run of it has begun.
    """
    match state.phase:
        case "pending":
            return "pending"
        case "running":
            return "running"
        case _:
            return "ended" if has_summary or not has_begun else "lost"


def _what_next(run: SubmittedRun, document: StatusDocument) -> str:
    root = run.first.root
    match document.phase:
        case "pending":
            return f"{command_for('logs -f', root)} follows it, {command_for('down', root)} ends it"
        case "running":
            return f"{command_for('logs -f', root)} follows it"
    if not document.is_collected and run.runs:
        return f"{command_for('down', root)} removes what may be left of it on its nodes"
    if document.summary_status != "ok" and (hint := resume_hint(run.current)):
        return f"to resume: {hint} --submit"
    return f"{command_for('logs', root)} shows what it said"
