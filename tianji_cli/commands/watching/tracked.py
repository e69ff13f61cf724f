"""`tianji track`: passes runs on to experiment trackers, finished ones or while they train."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import EXIT_INTERRUPTED
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.runs.detached import DetachedRun
from tianji_cli.runs.following import RunFollower, changes, has_ended, silent_hosts
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import DEPLOYMENT_NAME
from tianji_cli.storage.run_dir import RunPaths, resolve_run
from tianji_cli.tracking.state import State
from tianji_cli.tracking.tools import Tool, check_tools
from tianji_cli.tracking.tracker import TrackerResult
from tianji_cli.tracking.trackers import Trackers

ASK_S = 5.0
"""How often hosts are asked whether a run still runs."""
LOOK_S = 0.5


@dataclass(frozen=True)
class TrackRequest:
    """What the user asks for.

    Attributes:
        runs: Ids, unique prefixes or paths; none: the newest.
        tools: Names of trackers.
        results: The results directory.
        trusts: `--trust` was given.
    """

    runs: Sequence[str]
    tools: Sequence[str]
    results: Path
    trusts: bool = False


class TrackedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run in one tracker, in `track --json`."""

    run_id: str
    tool: Tool
    state: State
    where: str
    rows: dict[str, int]
    error: str | None


class TrackDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `track --json` prints."""

    schema_version: int = 1
    runs: list[TrackedRun]


def track_command(request: TrackRequest, output: Output) -> int:
    """Passes each run on to all trackers, one run after the other, those that train last.

    Returns:
        The exit code: 1 if a tracker failed.

    Raises:
        ConfigError: No such run or tracker, or a package of one is missing.
    """
    tools = check_tools(request.tools, "--to")
    names: Sequence[str | None] = request.runs or [None]
    found = dict.fromkeys(resolve_run(request.results, name) for name in names)
    paths = sorted(found, key=lambda run: not run.summary.is_file())
    consent = Consent(output, request.trusts)
    results: list[TrackerResult] = []
    interrupts, stop = Interrupts(), threading.Event()
    with interrupts.installed(stop.set):
        for run in paths:
            results += _track(run, tools, consent, stop, output)
            if stop.is_set():
                break
    if output.is_json:
        output.document(TrackDocument(runs=[_row(result) for result in results]))
    if interrupts.count:
        return EXIT_INTERRUPTED
    return int(any(result.has_failed for result in results))


def _track(
    run: RunPaths, tools: Sequence[Tool], consent: Consent, stop: threading.Event, output: Output
) -> list[TrackerResult]:
    """Passes one run on; follows it first if it still trains."""
    detached = _training(run, consent)
    trackers = Trackers(tools, output.say)
    with closing(trackers):
        trackers.start(run)
        if detached is not None:
            _follow(detached, trackers, stop, output)
        results = trackers.finish(stop.is_set)
    for line in trackers.lines(results):
        output.say(f"{run.run_id} · {line}")
    return results


def _training(run: RunPaths, consent: Consent) -> DetachedRun | None:
    """The run, if it may still train, or if its files are not all here."""
    if run.summary.is_file() or not os.path.lexists(run.root / DEPLOYMENT_NAME):
        return None
    found = DetachedRun(run, consent=consent)
    return None if found.deployment.is_collected else found


def _follow(run: DetachedRun, trackers: Trackers, stop: threading.Event, output: Output) -> None:
    """Waits for the end of a run, while its files come here; then brings the rest."""
    follower, silent = RunFollower(run, ASK_S), set[str]()
    is_over = False
    try:
        while not (is_over or stop.is_set() or run.paths.summary.is_file()):
            trackers.failures()
            if not trackers.num_running:
                return
            match follower.next(LOOK_S):
                case list() as answers:
                    for text in changes(answers, silent):
                        output.say(text)
                    silent, is_over = silent_hosts(answers), has_ended(answers)
    finally:
        follower.stop()
    if is_over and not run.paths.summary.is_file():
        for answer in run.fetch():
            if answer.error is not None:
                output.say(f"{answer.part.host.name} {answer.problem}")


def _row(result: TrackerResult) -> TrackedRun:
    state = result.state
    return TrackedRun(
        run_id=result.run_id,
        tool=state.tool,
        state=state.state,
        where=state.where,
        rows=state.rows,
        error=state.error,
    )
