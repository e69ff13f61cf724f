"""Brings the files of a submitted run here for a command, if they are elsewhere."""

from __future__ import annotations

from engine.errors import TianJiError
from tianji_cli.output import Output
from tianji_cli.runs.job_files import bring, may_be_elsewhere, node_of
from tianji_cli.runs.submitted import SubmittedRun
from tianji_cli.slurm.job_state import JobState


def bring_files(run: SubmittedRun, state: JobState, output: Output) -> TianJiError | None:
    """Copies what is new; says what is wrong if that cannot be done.

    Returns:
        That error.
    """
    if not may_be_elsewhere(run, state):
        return None
    try:
        with node_of(run, state) as node:
            bring(run, node, has_ended=state.is_over)
    except TianJiError as error:
        output.say(f"note: its files are on another disk, and do not come: {error}")
        return error
    except OSError as error:
        failed = TianJiError(f"they cannot be kept here: {error}", where=str(run.results))
        output.say(f"note: its files are on another disk: {failed}")
        return failed
    return None
