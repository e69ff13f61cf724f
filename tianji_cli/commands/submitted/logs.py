"""`tianji logs` of a submitted run: of its roles, and what `up` says in its job."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from engine.errors import ConfigError, TianJiError
from tianji_cli.commands.logs import (
    JOB,
    POLL_S,
    LogsRequest,
    print_new,
    refuse_followed_json,
    select,
    show_tails,
)
from tianji_cli.commands.submitted.files import bring_files
from tianji_cli.connectors.base import Node
from tianji_cli.interrupts import Interrupts
from tianji_cli.output import Output
from tianji_cli.runs.job_files import bring, may_be_elsewhere, node_of
from tianji_cli.runs.submitted import SubmittedRun
from tianji_cli.slurm.job_state import JobState

ASK_S = 5.0
"""How often Slurm is asked while a run is followed: its controller serves everybody."""


def submitted_logs(run: SubmittedRun, request: LogsRequest, output: Output) -> int:
    """Prints logs; what `up` says is the log `job`.

    Raises:
        ConfigError: There is no such role, or no log yet.
        PreflightError: Slurm cannot be asked.
    """
    refuse_followed_json(request, output)
    state = run.look()
    bring_files(run, state, output)
    if state.phase != "running":
        output.say(f"{run.words} {state.words()}")
    positions = show_tails(run.job.run_id, selected(run, request), request, output)
    if request.follows and not state.is_over:
        _Follower(run, request, positions, state, output).follow()
    return 0


def selected(run: SubmittedRun, request: LogsRequest) -> list[Path]:
    """The logs that are wanted; none if the user waits for them.

    Raises:
        ConfigError: There is no such log.
    """
    job = [run.log] if request.role in (None, JOB) and run.log.exists() else []
    try:
        return [*job, *select(run.current, request.role)]
    except ConfigError:
        if job or request.follows:
            return job
        raise


class _Follower:
    """Prints new lines until the job is over or the user interrupts."""

    def __init__(
        self,
        run: SubmittedRun,
        request: LogsRequest,
        positions: dict[Path, int],
        state: JobState,
        output: Output,
    ) -> None:
        self._run = run
        self._request = request
        self._positions = positions
        self._state = state
        self._output = output
        self._stop = threading.Event()

    def follow(self) -> None:
        asked_s = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.enter_context(Interrupts().installed(self._stop.set))
            node: Node | None = None
            while not self._stop.wait(POLL_S):
                now_s = time.monotonic()
                if now_s - asked_s >= ASK_S:
                    asked_s = now_s
                    self._ask()
                    if node is None and may_be_elsewhere(self._run, self._state):
                        node = self._connected(stack)
                if node is not None and not self._bring(node):
                    node = None  # its job has ended, as the next question to Slurm tells
                print_new(
                    selected(self._run, self._request), self._positions, is_last=self._state.is_over
                )
                if self._state.is_over:
                    return

    def _bring(self, node: Node) -> bool:
        """Whether what is new could be brought."""
        try:
            bring(self._run, node, has_ended=self._state.is_over)
        except (TianJiError, OSError) as error:
            self._output.say(f"note: its files do not come any more: {error}", at_verbosity=1)
            return False
        return True

    def _ask(self) -> None:
        """Says what has changed in the job's state."""
        state, former = self._run.look(), self._state
        self._state = state
        if (state.state, state.restarts) != (former.state, former.restarts):
            self._output.say(f"{self._run.words} {state.words()}")

    def _connected(self, stack: contextlib.ExitStack) -> Node | None:
        try:
            return stack.enter_context(node_of(self._run, self._state))
        except TianJiError as error:
            self._output.say(f"note: its files are on another disk, and do not come: {error}")
            return None
