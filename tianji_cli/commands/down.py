"""`tianji down`: ends a run everywhere, brings its files here, proves that nothing is left."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.errors import CleanupError
from tianji_cli.detached import DetachedRun, HostAnswer
from tianji_cli.output import Output
from tianji_cli.run_dir import resolve_run


class HostDown(msgspec.Struct, frozen=True, kw_only=True):
    """One host of `down --json`."""

    left: list[int]
    error: str = ""


class DownDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `down --json` prints."""

    schema_version: int = 1
    run_id: str
    is_clean: bool
    hosts: dict[str, HostDown]


def down_command(results: Path, name: str | None, output: Output) -> int:
    """Ends a run; a second time it only says so.

    Raises:
        CleanupError: Something is left, or a host could not be asked.
    """
    run = DetachedRun(resolve_run(results, name))
    run_id = run.deployment.run_id
    if run.deployment.is_collected:
        answers: list[HostAnswer] = []
        output.say(f"run {run_id} has ended and nothing of it is on any host")
    else:
        answers = run.end()
    hosts = {answer.part.host.name: _row(answer) for answer in answers}
    is_clean = not any(row.left or row.error for row in hosts.values())
    if output.is_json:
        output.document(DownDocument(run_id=run_id, is_clean=is_clean, hosts=hosts))
    else:
        for host, row in hosts.items():
            output.say(f"{host}: {_words(row)}")
    if not is_clean:
        bad = "".join(f"\n    {host}: {_words(row)}" for host, row in hosts.items() if _is_bad(row))
        raise CleanupError(
            f"the run may not have ended everywhere{bad}",
            where=run_id,
            fix=f"once the host is back: tianji down {run_id}",
        )
    if answers:
        output.say(f"results: {run.paths.root}")
    return 0


def _row(answer: HostAnswer) -> HostDown:
    if answer.error is not None:
        return HostDown(left=[], error=str(answer.error))
    assert answer.findings is not None
    return HostDown(left=answer.findings.marked)


def _is_bad(row: HostDown) -> bool:
    return bool(row.left or row.error)


def _words(row: HostDown) -> str:
    if row.error:
        return f"not asked: {row.error}"
    return f"processes {row.left} are left" if row.left else "nothing is left"
