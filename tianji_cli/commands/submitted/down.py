"""`tianji down` of a submitted run: ends its job, and removes what a killed one has left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import msgspec

from engine.errors import CleanupError
from tianji_cli.commands.down import DownDocument, HostDown, is_bad, row_of, words_of_answer
from tianji_cli.commands.submitted.files import bring_files
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Node
from tianji_cli.output import Output
from tianji_cli.provisioning.reaching import Connect, connect
from tianji_cli.runs.detached import STOP_S, DetachedRun, HostAnswer
from tianji_cli.runs.job_files import borrowed
from tianji_cli.runs.resume import resume_hint
from tianji_cli.runs.submitted import SubmittedRun
from tianji_cli.slurm.job_state import JobState
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import DEPLOYMENT_NAME
from tianji_cli.storage.run_dir import RunPaths, command_for

KILLED_S = 30.0
"""Time-out for a killed job to be gone."""


def submitted_down(run: SubmittedRun, output: Output, consent: Consent) -> int:
    """Ends the job, brings its files here if they are elsewhere, and cleans up its nodes.

    Raises:
        ConfigError: It was not submitted here, and the user does not agree.
        PreflightError: Slurm cannot be asked.
        CleanupError: The job has not ended, or something is left on a node.
    """
    run.need_consent()
    state, was_forced = _end_job(run, output)
    hosts = {run.words: HostDown(left=[], was_forced=was_forced)}
    failed = bring_files(run, state, output)
    answers = [] if failed else [a for paths in run.runs for a in _clean(paths, state, consent)]
    is_clean = failed is None and not any(map(is_bad, answers))
    if output.is_json:
        hosts |= {answer.part.host.name: row_of(answer) for answer in answers}
        output.document(DownDocument(run_id=run.job.run_id, is_clean=is_clean, hosts=hosts))
    else:
        for answer in answers:
            output.say(f"{answer.part.host.name}: {words_of_answer(answer)}")
    if not is_clean:
        raise CleanupError(
            "the job has ended, but its files are not all here, or are left on its nodes",
            where=run.job.run_id,
            fix=f"once the nodes are free, run: {command_for('down', run.first.root)}",
        )
    if run.runs:
        output.say(f"results: {run.current.root}")
    if was_forced and (hint := resume_hint(run.current)):
        output.say(f"to resume from its newest checkpoint: {hint} --submit")
    return 0


def _end_job(run: SubmittedRun, output: Output) -> tuple[JobState, bool]:
    """Stops the run gracefully, then kills the job; a waiting one is cancelled.

    Returns:
        Its last state, and whether it was killed.
    """
    state, was_forced = run.look(), False
    if state.phase == "running":
        run.query.interrupt()
        state = run.await_end(STOP_S)
        was_forced = state.phase == "running"
    if was_forced:
        run.query.kill()
        state = run.await_end(KILLED_S)
    elif state.phase == "pending":
        run.query.cancel()
        state = run.await_end(KILLED_S)
    if not state.is_over:
        raise CleanupError(
            f"{run.words} {state.words()}",
            where=run.job.run_id,
            fix=f"see `scontrol show job {run.job.job}`, then run:"
            f" {command_for('down', run.first.root)}",
        )
    killed = f"; it did not end within {STOP_S:.0f} s, so it was killed" if was_forced else ""
    output.say(f"{run.words} {state.words()}{killed}")
    return state, was_forced


def _clean(paths: RunPaths, state: JobState, consent: Consent) -> list[HostAnswer]:
    """Brings home and removes what `up` could not, since the job was killed."""
    if not (paths.root / DEPLOYMENT_NAME).is_file():
        return []
    with _borrowing(state) as reach:
        detached = DetachedRun(paths, reach, consent)
        if detached.deployment.is_collected:
            return []
        answers = detached.end()
    if not any(map(is_bad, answers)):
        detached.note_collected()
    return answers


@contextlib.contextmanager
def _borrowing(like: JobState) -> Iterator[Connect]:
    """Reaches nodes of a job that is over by a short job on each."""
    with contextlib.ExitStack() as jobs:

        def reach(host: Host, cancel: threading.Event) -> Node:
            if host.connection != "slurm":
                return connect(host, cancel)
            job = jobs.enter_context(borrowed(host.name, like))
            return connect(msgspec.structs.replace(host, job=job), cancel)

        yield reach
