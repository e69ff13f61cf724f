"""The trackers of one run: started, watched, and ended with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from engine.errors import TianJiError
from engine.host.process_identity import await_end
from engine.messages import TrackerFailed
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.tracking.state import TrackerState
from tianji_cli.tracking.tools import Tool
from tianji_cli.tracking.tracker import RunTracker, TrackerResult, failure_words, retry_command

FINISH_S = 60.0
"""Time for trackers to pass on the rest once the run has ended; then they are ended."""
REACH_S = 15.0
TELL_S = 3.0
"""After this long the user is told what the command waits for."""
LOOK_S = 0.25


class Trackers:
    """See the module's first line. Use in the main thread.

    Args:
        tools: Which.
        say: Tells the user something.
    """

    def __init__(self, tools: Sequence[Tool], say: Callable[[str], None]) -> None:
        self._tools = tools
        self._say = say
        self._trackers: list[RunTracker] = []
        self._lost: list[TrackerResult] = []
        self._told: set[Tool] = set()
        self._news: list[TrackerFailed] = []

    def start(self, paths: RunPaths) -> None:
        """Starts them for a run whose manifest is written.

        One that cannot be started has failed, like one that ends too early.
        """
        absolute = RunPaths(paths.root.absolute())
        for tool in self._tools:
            try:
                self._trackers.append(RunTracker(absolute, tool))
            except (OSError, TianJiError) as error:
                cause, retry = f"could not be started: {error}", retry_command(absolute, tool)
                state = TrackerState(tool=tool, state="failed", error=cause)
                self._lost.append(TrackerResult(paths.run_id, state, retry))
                self._tell(tool, cause, retry)

    def failures(self) -> list[TrackerFailed]:
        """The trackers that have ended since the last call, while the run goes on. The user has
        been told."""
        for tracker in self._trackers:
            if tracker.tool not in self._told and tracker.has_ended:
                self._tell(tracker.tool, tracker.cause(), tracker.retry)
        news, self._news = self._news, []
        return news

    @property
    def num_running(self) -> int:
        """How many of them have not ended."""
        return sum(not tracker.has_ended for tracker in self._trackers)

    def _tell(self, tool: Tool, cause: str, retry: str) -> None:
        self._told.add(tool)
        self._say(failure_words(tool, cause, retry))
        self._news.append(TrackerFailed(tool=tool, cause=cause))

    def finish(self, is_urgent: Callable[[], bool] = lambda: False) -> list[TrackerResult]:
        """Lets them pass on the rest of a run that has ended, within `FINISH_S`, and ends them; one
        that has not even reached its tool gets `REACH_S`.

        Args:
            is_urgent: Asked again and again; true ends them at once.

        Returns:
            Of all trackers, those that failed earlier included.
        """
        for tracker in self._trackers:
            tracker.tell_end()
        begin_s, has_told = time.monotonic(), False
        while not is_urgent():
            waited_s = time.monotonic() - begin_s
            busy = [tracker for tracker in self._trackers if _may_go_on(tracker, waited_s)]
            if not busy:
                break
            if waited_s > TELL_S and not has_told:
                has_told = True
                names = ", ".join(tracker.tool for tracker in busy)
                self._say(f"waiting for {names} to take the last rows; Ctrl-C skips that")
            await_end([t.process_id for t in busy[:1] if t.process_id is not None], LOOK_S)
        return self.close()

    def close(self) -> list[TrackerResult]:
        """Ends those that still run, now. Returns as `finish`."""
        trackers, self._trackers = self._trackers, []
        self._lost += [tracker.end() for tracker in trackers]
        return self._lost

    def lines(self, results: Sequence[TrackerResult]) -> list[str]:
        """What is left to tell the user of these: each failure is told once."""
        return [r.words for r in results if not (r.has_failed and r.state.tool in self._told)]


def _may_go_on(tracker: RunTracker, waited_s: float) -> bool:
    """Whether it works on, and may, so long after its run has ended."""
    if tracker.has_ended:
        return False
    return waited_s <= (FINISH_S if tracker.has_begun else REACH_S)
