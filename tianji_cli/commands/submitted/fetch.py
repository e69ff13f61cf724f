"""`tianji fetch` of a submitted run: brings its files here if its job writes to another disk."""

from __future__ import annotations

from engine.trace.reader import read_summary
from tianji_cli.commands.fetch import FetchDocument, HostFetched
from tianji_cli.commands.submitted.files import bring_files
from tianji_cli.commands.submitted.status import phase_of_job
from tianji_cli.output import Output
from tianji_cli.runs.submitted import SubmittedRun


def submitted_fetch(run: SubmittedRun, output: Output) -> int:
    """Copies what is new; on a shared disk `up` in the job has done so.

    Raises:
        PreflightError: Slurm cannot be asked.
        TianJiError: The files do not come.
    """
    state = run.look()
    if (error := bring_files(run, state, output)) is not None:
        raise error
    has_summary = read_summary(run.current.summary) is not None
    phase = phase_of_job(state, has_summary=has_summary, has_begun=bool(run.runs))
    if output.is_json:
        document = FetchDocument(
            run_id=run.current.run_id,
            phase=phase,
            is_complete=state.is_over,
            hosts={run.words: HostFetched(phase="ended" if state.is_over else "running")},
        )
        output.document(document)
        return 0
    output.say(f"{run.words} {state.words()}")
    output.say(f"results: {run.current.root}")
    return 0
