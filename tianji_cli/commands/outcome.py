"""The end of `up`: the summary, failures, the next command, the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.errors import EXIT_INTERRUPTED, ConfigError, RunFailedError
from engine.executors.coordinator import write_summary
from engine.trace.reader import read_summary, read_table
from engine.trace.records import Profile
from engine.trace.summary import CONTROLLER_LOST, KILLED, RunStatus, Summary
from tianji_cli.output import Output
from tianji_cli.runs.joining import words_of_laggards
from tianji_cli.runs.monitor import RunOutcome
from tianji_cli.runs.resume import resume_hint
from tianji_cli.storage.run_dir import RunPaths, command_for


class DetachedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `up --detach --json` prints."""

    schema_version: int = 1
    run_id: str
    status: str = "detached"


def report_detached(paths: RunPaths, output: Output) -> int:
    """Prints the commands for a detached run."""
    run_id = paths.run_id
    verbs = ("attach", "status", "logs -f", "down")
    commands = ", ".join(command_for(verb, paths.root) for verb in verbs)
    output.say(f"run {run_id} continues in the background; {commands}")
    if output.is_json:
        output.document(DetachedDocument(run_id=run_id))
    return 0


def report_outcome(
    paths: RunPaths,
    outcome: RunOutcome,
    was_interrupted: bool,
    output: Output,
    end_tracking: Callable[[], Sequence[str]] = tuple,
) -> int:
    """Prints the summary and chooses the exit code. Always reports leftovers.

    Args:
        paths, outcome, was_interrupted: The run, and how it ended.
        output: The command's output.
        end_tracking: Called once there is a summary; returns lines for the user. What became of
            trackers does not change the exit code.

    Raises:
        RunFailedError: There is no summary, and none can be made.
    """
    for failure in outcome.failures:
        note = f"{failure.address} {failure.cause}; its log is in {paths.logs}"
        output.say(note, at_verbosity=1)
    try:
        summary = _find_summary(paths, outcome, was_interrupted, output)
        lines = end_tracking()
        _print(summary, paths, output)
        for line in lines:
            output.say(line)
    finally:
        if outcome.unclean is not None:
            output.error(outcome.unclean)
    if summary.stop_reason == CONTROLLER_LOST and outcome.lost and not was_interrupted:
        # The host ended the run by itself when it was cut off, and its files came all the same.
        error = RunFailedError(_cause(outcome), where=str(paths.logs), fix=resume_hint(paths))
        output.error(error)
        return error.exit_code
    if summary.status == "failed":
        late = words_of_laggards(paths) if summary.stop_reason == "join-deadline" else ""
        cause = f"{summary.error or 'unknown cause'}{late}"
        output.error(RunFailedError(cause, where=str(paths.logs), fix=resume_hint(paths)))
    elif summary.status == "interrupted" and (hint := resume_hint(paths)):
        output.say(f"to resume: {hint}")
    code = {"ok": 0, "failed": 1, "interrupted": EXIT_INTERRUPTED}[summary.status]
    return outcome.unclean.exit_code if outcome.unclean and code == 0 else code


def _find_summary(
    paths: RunPaths, outcome: RunOutcome, was_interrupted: bool, output: Output
) -> Summary:
    """The coordinator's summary; if it died before, one rebuilt from the traces.

    On a full disk the file is lost, not what the user sees.
    """
    if paths.summary.is_file():
        return _read(paths)
    status: RunStatus = "interrupted" if was_interrupted else "failed"
    summary = _make_missing_summary(paths, status, _cause(outcome))
    try:
        write_summary(paths.summary, summary)
    except OSError as error:
        output.say(f"the summary cannot be written: {error.strerror} ({paths.summary})")
    return summary


def _read(paths: RunPaths) -> Summary:
    """Reads the existing summary.

    Raises:
        RunFailedError: It is truncated, or something else is in its place.
    """
    try:
        summary = read_summary(paths.summary)
    except ConfigError as error:
        fix = f"remove it; tianji report {paths.run_id} then uses the traces alone"
        raise RunFailedError(error.what, where=error.where, fix=fix) from error
    assert summary is not None
    return summary


def _print(summary: Summary, paths: RunPaths, output: Output) -> None:
    if output.is_json:
        output.document(summary)
        return
    from tianji_cli.analysis.profile import profile_of
    from tianji_cli.render.run.profile import profile_table
    from tianji_cli.render.run.tables import summary_table

    output.data.print(summary_table(summary))
    if rows := read_table(paths.trace, Profile):
        output.data.print(profile_table(profile_of(rows)))
    if summary.trace_error:
        output.say(f"traces end early: {summary.trace_error}")
    output.say(where_results_are(paths))


def where_results_are(paths: RunPaths) -> str:
    """The last words about a run."""
    return f"results: {paths.root}   plots: {command_for('report', paths.root)}"


def _make_missing_summary(paths: RunPaths, status: RunStatus, cause: str) -> Summary:
    """A summary from what was traced until the coordinator died.

    Raises:
        RunFailedError: A file is damaged.
    """
    from tianji_cli.analysis.remains import summary_of_remains
    from tianji_cli.analysis.run import read_run

    try:
        rebuilt = summary_of_remains(read_run(paths))
    except ConfigError as error:
        raise RunFailedError(cause, where=str(paths.root), fix=error.fix) from error
    return msgspec.structs.replace(rebuilt, status=status, error=cause, stop_reason=KILLED)


def _cause(outcome: RunOutcome) -> str:
    """Why there is no summary. Only the coordinator writes it, so what happened on its host comes
    first: those on other hosts can have failed for that, or long before."""
    failures = [failed for failed in outcome.failures if not failed.is_survived]
    own = [failed for failed in failures if failed.host == outcome.head]
    if not own and (cause := outcome.lost.get(outcome.head)):
        return f"host {outcome.head} was lost: {cause}"
    for first in (*own, *failures):
        tail = "".join(f"\n    {text}" for text in first.log_tail)
        return f"{first.address} {first.cause}{tail}"
    for host, cause in outcome.lost.items():
        return f"host {host} was lost: {cause}"
    return "the run ended before it could write its summary"
