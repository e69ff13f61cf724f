"""`tianji logs`: the output of a run's roles, during the run and afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.files import open_regular
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.plain_text import plain
from tianji_cli.runs.detached import DetachedRun, HostAnswer
from tianji_cli.runs.following import RunFollower, changes, has_ended, silent_hosts
from tianji_cli.slurm.batch_script import JOB_LOG
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.run_dir import RunPaths, resolve_run

FOLLOW_S = 1.0
"""How often hosts are asked whether the run still runs."""
POLL_S = 0.2
"""How often local files are read."""
DEFAULT_LINES = 50
JOB = "job"
"""The log of what `up` says in a Slurm job, as a role."""
MAX_TAIL_BYTES = 1 << 24
"""This much of a log's end is read; a supervisor keeps logs below this size."""


@dataclass(frozen=True)
class LogsRequest:
    """The logs that the user asks for.

    Attributes:
        run: Name of the run; None for the newest.
        role: `actor-1`, `actor-1@box2`, `actor` (all of them), `@box2`; None for all.
        follows: Continue until the run ends.
        num_lines: Last lines of each log.
        trusts: `--trust` was given.
    """

    run: str | None
    role: str | None
    follows: bool
    num_lines: int
    trusts: bool = False


class RoleLog(msgspec.Struct, frozen=True, kw_only=True):
    """One log of `logs --json`; that of a job has no host."""

    role: str
    host: str
    lines: list[str]


class LogsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `logs --json` prints."""

    schema_version: int = 1
    run_id: str
    logs: list[RoleLog]


def logs_command(results: Path, request: LogsRequest, output: Output) -> int:
    """Prints logs, each line with its role and host.

    Raises:
        ConfigError: No such run or role; or `--json` with `--follow`.
    """
    refuse_followed_json(request, output)
    run = DetachedRun(resolve_run(results, request.run), consent=Consent(output, request.trusts))
    is_local = run.deployment.is_collected
    silent = set() if is_local else _say_changes(run.look(), set(), output)
    positions = show_tails(run.paths.run_id, select(run.paths, request.role), request, output)
    if request.follows and not is_local:
        _follow(run, request, positions, silent, output)
    return 0


def refuse_followed_json(request: LogsRequest, output: Output) -> None:
    """Raises ConfigError for `--json` with `--follow`."""
    if request.follows and output.is_json:
        raise ConfigError(
            "--json prints one document, which cannot follow a run",
            where="--json",
            fix="leave out --follow or --json",
        )


def show_tails(
    run_id: str, logs: Sequence[Path], request: LogsRequest, output: Output
) -> dict[Path, int]:
    """Shows the last lines of logs.

    Returns:
        How far each was shown.
    """
    tails = {path: _tail(path, request.num_lines) for path in logs}
    if output.is_json:
        output.document(LogsDocument(run_id=run_id, logs=[log for log, _ in tails.values()]))
    else:
        for path, (log, _) in tails.items():
            _print(path, log.lines)
    return {path: end for path, (_, end) in tails.items()}


def _follow(
    run: DetachedRun,
    request: LogsRequest,
    positions: dict[Path, int],
    silent: set[str],
    output: Output,
) -> None:
    """Prints new lines until the run has ended or the user interrupts."""
    interrupts = Interrupts()
    follower = RunFollower(run, FOLLOW_S)
    with interrupts.installed(follower.stop):
        try:
            while not follower.is_stopped:
                answers = follower.next(POLL_S)
                if isinstance(answers, list):
                    silent = _say_changes(answers, silent, output)
                is_over = isinstance(answers, list) and has_ended(answers)
                print_new(select(run.paths, request.role), positions, is_last=is_over)
                if is_over:
                    output.say("the run has ended")
                    return
        finally:
            follower.stop()


def _say_changes(answers: Sequence[HostAnswer], silent: set[str], output: Output) -> set[str]:
    """Prints which hosts stopped or started to answer; returns those that do not answer now."""
    for text in changes(answers, silent):
        output.say(text)
    return silent_hosts(answers)


def select(paths: RunPaths, role: str | None) -> list[Path]:
    """The logs selected by a pattern such as `actor-1@box2`.

    Raises:
        ConfigError: There is none.
    """
    logs = sorted(paths.logs.glob("*/*.log"))
    wanted, _, host = (role or "").partition("@")
    chosen = [
        path
        for path in logs
        if host in ("", path.parent.name)
        and (wanted in ("", path.stem) or path.stem.startswith(f"{wanted}-"))
    ]
    if not chosen:
        known = [name_of(path) for path in logs]
        raise ConfigError(
            "there is no such log" if role else "there is no log yet",
            where=role or str(paths.logs),
            fix=suggest(role or "", known) if known else "",
        )
    return chosen


def name_of(log: Path) -> str:
    """`actor-1@box2`; what `up` says in a job is of no host's role."""
    return JOB if log.name == JOB_LOG else f"{log.stem}@{log.parent.name}"


def _tail(path: Path, num_lines: int) -> tuple[RoleLog, int]:
    """The last complete lines of a log, and the offset of their end."""
    with open_regular(path) as file:
        begin = max(0, file.seek(0, os.SEEK_END) - MAX_TAIL_BYTES)
        file.seek(begin)
        data = file.read(MAX_TAIL_BYTES)
    whole = data.rfind(b"\n") + 1
    lines = data[:whole].decode("utf-8", "replace").splitlines()[-num_lines:] if num_lines else []
    host = "" if path.name == JOB_LOG else path.parent.name
    return RoleLog(role=path.stem, host=host, lines=lines), begin + whole


def print_new(logs: Sequence[Path], positions: dict[Path, int], *, is_last: bool) -> None:
    """Prints new lines, log by log; an incomplete line only at the end."""
    for path in logs:
        known, size = positions.get(path, 0), path.stat().st_size
        if size != known:
            positions[path] = _print_from(path, known if known < size else 0, is_last=is_last)


def _print_from(path: Path, begin: int, *, is_last: bool) -> int:
    """Prints a log from a position on; returns the new position."""
    while True:
        with open_regular(path) as file:
            file.seek(begin)
            data = file.read(MAX_TAIL_BYTES)
        is_full = len(data) == MAX_TAIL_BYTES
        num_whole = data.rfind(b"\n") + 1
        if is_last or (is_full and not num_whole):
            num_whole = len(data)
        _print(path, data[:num_whole].decode("utf-8", "replace").splitlines())
        begin += num_whole
        if not is_full:
            return begin


def _print(path: Path, lines: list[str]) -> None:
    prefix = name_of(path)
    for text in lines:
        sys.stdout.write(plain(f"{prefix} | {text}\n"))
    sys.stdout.flush()
