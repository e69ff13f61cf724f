"""Slurm's commands: sbatch, scontrol, sacct, scancel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from engine.errors import PreflightError
from tianji_cli.slurm.job_state import (
    FORGOTTEN,
    SACCT_FIELDS,
    JobState,
    job_state,
    job_state_of_accounting,
)

ASK_S = 30.0
_UNKNOWN = "Invalid job id"

Call = Callable[[Sequence[str], str], str]
"""Runs a program with this standard input, and returns its output; PreflightError if it fails."""


def call(command: Sequence[str], text: str = "", *, fix: str = "") -> str:
    """The output of one of Slurm's commands.

    Args:
        command: The program and its arguments.
        text: Its standard input.
        fix: What the user can do if it fails.

    Raises:
        PreflightError: It is missing, fails, or does not answer.
    """
    program = command[0]
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        raise PreflightError(
            f"{program} is not there",
            where="this machine",
            fix="run this where Slurm's commands are, such as its login node",
        ) from None
    except subprocess.TimeoutExpired:
        raise PreflightError(
            f"{program} does not answer within {ASK_S:.0f} s",
            where="this machine",
            fix="see whether slurmctld runs: scontrol ping",
        ) from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = said[-1].removeprefix(f"{program}: error: ") if said else ""
        raise PreflightError(
            f"{program}: {last or f'exit code {done.returncode}'}",
            where="this machine",
            fix=fix,
        )
    return done.stdout


def submit(script: str, ask: Call = call) -> tuple[str, str]:
    """Gives a batch script to Slurm.

    Returns:
        The job's number, and its cluster if there are several.

    Raises:
        PreflightError: Slurm refuses it.
    """
    job, _, cluster = ask(["sbatch", "--parsable"], script).strip().partition(";")
    if not job.isdigit():
        raise PreflightError(f"sbatch answers {job!r}, which is no job", where="this machine")
    return job, cluster


class JobQuery:
    """One job, asked about and ended with Slurm's commands.

    Args:
        job: Its number.
        cluster: Of several, the one that has it.
        ask: Runs the commands; tests give their own.
    """

    def __init__(self, job: str, cluster: str = "", ask: Call = call) -> None:
        self.job = job
        self._clusters = [f"--clusters={cluster}"] if cluster else []
        self._ask = ask

    def state(self) -> JobState:
        """What Slurm says now; where it has forgotten the job, what its accounting says.

        Raises:
            PreflightError: Slurm cannot be asked.
        """
        try:
            text = self._ask(
                ["scontrol", *self._clusters, "--oneliner", "show", "job", self.job], ""
            )
        except PreflightError as error:
            if _UNKNOWN not in error.what:
                raise
            return self._accounted()
        return job_state(text)

    def _accounted(self) -> JobState:
        try:
            text = self._ask(
                [
                    *("sacct", *self._clusters, "--parsable2", "--noheader", "--allocations"),
                    *(f"--format={SACCT_FIELDS}", f"--jobs={self.job}"),
                ],
                "",
            )
        except PreflightError:
            return FORGOTTEN  # this cluster keeps no accounts
        return job_state_of_accounting(text)

    def interrupt(self) -> None:
        """Asks `up` to stop the run; a job that still waits is cancelled.

        Raises:
            PreflightError: Slurm refuses.
        """
        self._cancel("--batch", "--signal=INT")

    def cancel(self) -> None:
        """Ends it: SIGTERM to every process, SIGKILL after `KillWait`. It does not start again.

        Raises:
            PreflightError: Slurm refuses.
        """
        self._cancel()

    def kill(self) -> None:
        """SIGKILL to every process, then ends it.

        Raises:
            PreflightError: Slurm refuses.
        """
        self._cancel("--full", "--signal=KILL")
        self._cancel()

    def _cancel(self, *options: str) -> None:
        self._ask(["scancel", *self._clusters, "--quiet", *options, self.job], "")
