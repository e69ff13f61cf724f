"""One tracker, from the command's side.

It has a process of its own, which the kernel ends with this one. What its tool starts (Weights &
Biases has a service) carries a token in its environment, by which it is found and ended as well.
"""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from msgspec.structs import replace

from engine.errors import TianJiError
from engine.host.process import describe_returncode
from engine.host.process_identity import ProcessId, end_all, find_marked
from engine.host.tether import tethered
from engine.search_path import with_own_path
from tianji_cli.storage.run_dir import RunPaths, command_for
from tianji_cli.storage.safe_files import append_descriptor
from tianji_cli.tracking.hints import masked_text, secrets_of
from tianji_cli.tracking.process import END
from tianji_cli.tracking.state import TrackerState, make_directory, read_state, write_state
from tianji_cli.tracking.tools import Tool

CLOSE_S = 3.0
LAST_WORDS_S = 0.5
"""A process that the tool has started can keep the output open that says why it ended."""
MAX_LOG_BYTES = 1 << 22
TOKEN = "TIANJI_TRACKER"
_DEFAULTS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "WANDB_ERROR_REPORTING": "false",
}
"""Unless the user says otherwise: no reports about their use to those who made the tools, no
threads that nothing here needs, and about a minute of patience with a server instead of many."""


@dataclass(frozen=True)
class TrackerResult:
    """What became of one tracker.

    Attributes:
        run_id: The run.
        state: As it was last written, or as this command knows better.
        retry: The command that passes on what is missing; empty if nothing is.
    """

    run_id: str
    state: TrackerState
    retry: str = ""

    @property
    def has_failed(self) -> bool:
        return self.state.state == "failed"

    @property
    def words(self) -> str:
        """One line for the user."""
        state = self.state
        if self.has_failed:
            return failure_words(state.tool, state.error or "failed", self.retry)
        shown = f"   {state.hint}" if state.hint not in ("", state.where) else ""
        partly = f"   the run may not have ended; later: {self.retry}" if self.retry else ""
        return f"{state.tool}: {state.where}{shown}{partly}"


def failure_words(tool: Tool, cause: str, retry: str) -> str:
    """One line about a tracker that has failed."""
    return f"tracker {tool} {cause}; training is not affected, the rest goes with: {retry}"


def retry_command(paths: RunPaths, tool: Tool) -> str:
    """The command that passes on what is missing."""
    return f"{command_for('track', paths.root)} --to {tool}"


class RunTracker:
    """One tracker's process. Start it in the main thread: it ends with the thread that starts it.

    Args:
        paths: The run, by an absolute path.
        tool: Which.

    Raises:
        OSError: It cannot be started.
        PreflightError: A link leads out of the run's directory.
    """

    def __init__(self, paths: RunPaths, tool: Tool) -> None:
        self.tool = tool
        self._paths = paths
        self._token = uuid.uuid4().hex
        self._last_line = ""
        log = make_directory(paths, tool) / "tracker.log"
        log.unlink(missing_ok=True)
        with os.fdopen(append_descriptor(log), "ab", buffering=0) as file:
            self._process = subprocess.Popen(
                tethered("tianji_cli.tracking.process", str(paths.root), tool),
                env=with_own_path({**_DEFAULTS, **os.environ, TOKEN: self._token}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            kept = os.dup(file.fileno())
        self.process_id = ProcessId.of(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._reader = threading.Thread(
            target=self._keep,
            args=(self._process.stdout, kept, secrets_of()),
            name=f"log of {tool}",
            daemon=True,
        )
        self._reader.start()

    def _keep(self, output: IO[bytes], descriptor: int, secrets: Sequence[str]) -> None:
        """Copies what the process and its children say to the log, bounded and without secrets."""
        num_bytes = 0
        with output, os.fdopen(descriptor, "ab", buffering=0) as log:
            for line in output:
                words = masked_text(line.decode("utf-8", "replace"), secrets)
                self._last_line = words.strip() or self._last_line
                data = words.encode()
                num_bytes += len(data)
                if num_bytes <= MAX_LOG_BYTES:
                    with suppress(OSError):  # the disk is full
                        log.write(data)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def retry(self) -> str:
        return retry_command(self._paths, self.tool)

    @property
    def has_begun(self) -> bool:
        """Whether its tool has opened the run."""
        return bool(self._read().where)

    def tell_end(self) -> None:
        """The run has ended: the tracker passes on the rest, and ends."""
        with suppress(OSError):  # it has ended
            self._input.write(END)
            self._input.close()

    def cause(self) -> str:
        """Why it has ended, as far as it is known."""
        code = self._process.wait()
        if code > 0:
            self._reader.join(LAST_WORDS_S)
        said = self._last_line.removeprefix("error: ") if code > 0 else ""
        return f"ended: {said}" if said else describe_returncode(code)

    def end(self) -> TrackerResult:
        """Ends it, if it still runs, and what its tool has left."""
        is_late = not self.has_ended
        if is_late:
            self._process.kill()
        self._process.wait()
        end_all(self._left, CLOSE_S)
        self._reader.join(CLOSE_S)
        with suppress(OSError):
            self._input.close()
        reached = "passed on everything" if self.has_begun else "reached where it writes to"
        return self._result(f"had not {reached} in time" if is_late else "")

    def _left(self) -> list[ProcessId]:
        found = (ProcessId.of(pid) for pid in find_marked(self._token, TOKEN))
        return [process for process in found if process is not None]

    def _result(self, problem: str) -> TrackerResult:
        """Its own last state, corrected by how it ended."""
        state, code = self._read(), self._process.returncode
        run_id, retry = self._paths.run_id, self.retry
        if code == 0 and state.state in ("complete", "partial"):
            return TrackerResult(run_id, state, retry if state.state == "partial" else "")
        state = replace(state, state="failed", error=problem or self.cause())
        if code <= 0:  # otherwise it has written the same itself, or was not the only one
            with suppress(OSError):  # the disk is full; the user is told all the same
                write_state(self._paths, state)
        return TrackerResult(run_id, state, retry)

    def _read(self) -> TrackerState:
        try:
            return read_state(self._paths, self.tool)
        except TianJiError:
            return TrackerState(tool=self.tool)
