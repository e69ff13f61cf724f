"""`status`, `logs`, `fetch` and `down` of any run: of a submitted one, its job comes first."""

from __future__ import annotations

from pathlib import Path

from tianji_cli.commands.down import down_command
from tianji_cli.commands.fetch import fetch_command
from tianji_cli.commands.logs import LogsRequest, logs_command
from tianji_cli.commands.status import status_command
from tianji_cli.commands.submitted.down import submitted_down
from tianji_cli.commands.submitted.fetch import submitted_fetch
from tianji_cli.commands.submitted.logs import submitted_logs
from tianji_cli.commands.submitted.status import submitted_status
from tianji_cli.output import Output
from tianji_cli.runs.submitted import find_submitted
from tianji_cli.storage.consent import Consent


def status_of_run(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Prints the state of a run.

    Raises:
        ConfigError: No such run, or a file of it is damaged.
        PreflightError: Slurm cannot be asked about its job.
        HostUnreachableError: No host of it answers.
    """
    if (run := find_submitted(results, name, Consent(output, trusts))) is not None:
        return submitted_status(run, output, Consent(output, trusts))
    return status_command(results, name, output, trusts=trusts)


def logs_of_run(results: Path, request: LogsRequest, output: Output) -> int:
    """Prints logs, each line with its role and host.

    Raises:
        ConfigError: No such run or role; or `--json` with `--follow`.
        PreflightError: Slurm cannot be asked about its job.
    """
    if (run := find_submitted(results, request.run, Consent(output, request.trusts))) is not None:
        return submitted_logs(run, request, output)
    return logs_command(results, request, output)


def fetch_of_run(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Copies what is there. It can be repeated; only new lines are copied again.

    Raises:
        ConfigError: No such run, or a file of it is damaged.
        HostUnreachableError: A host does not answer; files of the others are here.
        PreflightError: Files did not arrive, cannot be written here, or Slurm cannot be asked.
    """
    if (run := find_submitted(results, name, Consent(output, trusts))) is not None:
        return submitted_fetch(run, output)
    return fetch_command(results, name, output, trusts=trusts)


def end_run(results: Path, name: str | None, output: Output, *, trusts: bool = False) -> int:
    """Stops a run; a second call only reports that it has ended.

    Raises:
        CleanupError: Something is left, or a host could not be reached.
        PreflightError: Slurm cannot be asked about its job.
    """
    if (run := find_submitted(results, name, Consent(output, trusts))) is not None:
        return submitted_down(run, output, Consent(output, trusts))
    return down_command(results, name, output, trusts=trusts)
