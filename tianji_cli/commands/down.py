"""`tianji down`: stops a run on all hosts, copies its files here, verifies that nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.errors import CleanupError
from tianji_cli.output import Output
from tianji_cli.runs.detached import STOP_S, DetachedRun, HostAnswer
from tianji_cli.runs.resume import resume_hint
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run


class HostDown(msgspec.Struct, frozen=True, kw_only=True):
    """A host in `down --json`."""

    left: list[int]
    was_forced: bool = False
    error: str = ""


class DownDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `down --json` prints."""

    schema_version: int = 1
    run_id: str
    is_clean: bool
    hosts: dict[str, HostDown]


def down_command(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Stops a run; a second call only reports that it has ended.

    Raises:
        CleanupError: Something is left, or a host could not be reached.
    """
    run = DetachedRun(resolve_run(results, name), consent=Consent(output, trusts))
    run_id = run.deployment.run_id
    if run.deployment.is_collected:
        answers: list[HostAnswer] = []
        output.say(f"run {run_id} has ended, and nothing of it is left on any host")
    else:
        answers = run.end()
    is_clean = not any(is_bad(answer) for answer in answers)
    if output.is_json:
        hosts = {answer.part.host.name: row_of(answer) for answer in answers}
        output.document(DownDocument(run_id=run_id, is_clean=is_clean, hosts=hosts))
    else:
        for answer in answers:
            output.say(f"{answer.part.host.name}: {words_of_answer(answer)}")
    if not is_clean:
        raise _unclean(run.paths, [answer for answer in answers if is_bad(answer)])
    if answers:
        run.note_collected()
        output.say(f"results: {run.paths.root}")
    if any(_was_forced(answer) for answer in answers) and (hint := resume_hint(run.paths)):
        output.say(f"to resume from its newest checkpoint: {hint}")
    return 0


def row_of(answer: HostAnswer) -> HostDown:
    """A host, for `--json`."""
    left = answer.findings.marked if answer.findings else []
    forced = _was_forced(answer)
    return HostDown(left=left, was_forced=forced, error=str(answer.error or ""))


def _was_forced(answer: HostAnswer) -> bool:
    return answer.findings is not None and answer.findings.was_forced


def is_bad(answer: HostAnswer) -> bool:
    """Whether something of the run may be left there, or is not here."""
    return answer.error is not None or answer.is_running


def words_of_answer(answer: HostAnswer) -> str:
    """What became of a host's part."""
    if answer.findings is None:
        return f"not asked: {answer.error}"
    if answer.findings.marked:
        state = f"processes {answer.findings.marked} are left"
    elif answer.is_running:
        state = "its supervisor is still running"
    else:
        state = "nothing is left" if answer.error is None else "no process is left"
    if answer.findings.was_forced:
        state += f"; it did not end within {STOP_S:.0f} s, so it was killed"
    return f"{state}, but {answer.error.what}" if answer.error is not None else state


def _unclean(paths: RunPaths, bad: Sequence[HostAnswer]) -> CleanupError:
    """The error for hosts whose part has not ended, or whose files are not here."""
    words = "".join(f"\n    {answer.part.host.name}: {words_of_answer(answer)}" for answer in bad)
    if all(answer.findings and not answer.is_running for answer in bad):
        what, first = "the run has ended, but not all of it is here", "fix that, then run"
    else:
        what, first = "the run may not have ended everywhere", "once the host is back, run"
    fix = f"{first}: {command_for('down', paths.root)}"
    return CleanupError(f"{what}{words}", where=paths.run_id, fix=fix)
