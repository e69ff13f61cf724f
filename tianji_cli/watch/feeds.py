"""What viewers are sent: each feed is refreshed once for all of them, never without any."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec

from engine.errors import ConfigError
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.watch.live_run import LiveRun
from tianji_cli.watch.roles import shown
from tianji_cli.watch.run_files import LogRow, logs_of, tail_of
from tianji_cli.watch.run_list import RunList

LIVE_S = 0.5
"""How often a run that goes on is read, and told."""
CALM_S = 2.0
"""How often everything else is."""
SHOW_S = 0.25
"""While a long run is read for the first time, as often it is shown."""
KEPT_RUNS = 4
"""Runs that stay in memory without viewers, so that coming back costs nothing."""


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """The logs of a run, and the end of one of them."""

    logs: list[LogRow]
    name: str
    lines: list[str]
    problem: str = ""


class Absent(msgspec.Struct, frozen=True, kw_only=True):
    """There is no run of this name."""

    run_id: str


@dataclass(frozen=True)
class Refreshed:
    """Attributes:
    kind: Of the event.
    data: Its JSON.
    next_s: When to refresh again.
    """

    kind: str
    data: bytes
    next_s: float


class LiveFeed:
    """Keeps the newest state of one thing, as long as somebody views it.

    Args:
        refresh: Makes the state; called in another thread, one call at a time.
        changed: Notified of every new state.
    """

    def __init__(self, refresh: Callable[[], Refreshed], changed: asyncio.Condition) -> None:
        self._refresh = refresh
        self._changed = changed
        self._alone = threading.Lock()
        self.viewers = 0
        self._task: asyncio.Task[None] | None = None
        self.version = 0
        self.event = b""
        """The newest state as a server-sent event."""
        self.failure: BaseException | None = None

    def has_news(self, seen: int) -> bool:
        """Whether there is a newer state than this version, or will never be one."""
        return self.failure is not None or (bool(self.event) and self.version != seen)

    def enter(self) -> None:
        """One viewer more."""
        self.viewers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep())
            self._task.add_done_callback(self._note_failure)

    def leave(self) -> None:
        """One viewer less."""
        self.viewers -= 1
        if not self.viewers and self._task is not None:
            self._task.cancel()
            self._task = None

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        """An error of the program ends the streams that would wait for its results."""
        if not task.cancelled():
            self.failure = task.exception()
            self._notifying = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _keep(self) -> None:
        while True:
            state = await asyncio.to_thread(self._refreshed)
            self.event = b"event: %s\ndata: %s\n\n" % (state.kind.encode(), state.data)
            self.version += 1
            await self._notify()
            await asyncio.sleep(state.next_s)

    def _refreshed(self) -> Refreshed:
        with self._alone:
            return self._refresh()


class LiveFeeds:
    """All that can be viewed of one results directory.

    Args:
        runs: Of the directory.
    """

    def __init__(self, runs: RunList) -> None:
        self._runs = runs
        self._changed = asyncio.Condition()
        self._is_closed = False
        self._list = LiveFeed(self._refresh_list, self._changed)
        self._of_runs: OrderedDict[str, LiveFeed] = OrderedDict()

    async def close(self) -> None:
        """Ends all streams."""
        self._is_closed = True
        async with self._changed:
            self._changed.notify_all()

    async def stream(self, run_id: str, log: str) -> AsyncIterator[bytes]:
        """Server-sent events: `runs`, or of one run `run` and `logs`; the newest states only.

        Args:
            run_id: Empty: the list.
            log: The log whose end is sent; empty: none.
        """
        feeds = [self._list]
        if run_id:
            feeds = [
                self._feed_of(run_id),
                LiveFeed(self._log_refresher(run_id, log), self._changed),
            ]
        seen = dict.fromkeys(feeds, -1)
        for feed in feeds:
            feed.enter()
        try:
            while not self._is_closed:
                for feed in feeds:
                    if feed.failure is not None:
                        raise feed.failure
                    if feed.has_news(seen[feed]):
                        seen[feed] = feed.version
                        yield feed.event
                async with self._changed:
                    await self._changed.wait_for(lambda: self._is_closed or _has_news(seen))
        finally:
            for feed in feeds:
                feed.leave()

    def _feed_of(self, run_id: str) -> LiveFeed:
        """The feed of a run, shared by its viewers; of those without any, few are kept."""
        feed = self._of_runs.pop(run_id, None)
        if feed is None or feed.failure is not None:
            feed = LiveFeed(_RunRefresher(self._runs, run_id), self._changed)
        self._of_runs[run_id] = feed
        idle = [name for name, kept in self._of_runs.items() if not kept.viewers]
        for name in idle[: max(0, len(self._of_runs) - KEPT_RUNS)]:
            if name != run_id:
                del self._of_runs[name]
        return feed

    def _refresh_list(self) -> Refreshed:
        return Refreshed("runs", msgspec.json.encode(self._runs.view()), CALM_S)

    def _log_refresher(self, run_id: str, log: str) -> Callable[[], Refreshed]:
        def refresh() -> Refreshed:
            paths = self._runs.paths_of(run_id)
            view = _log_view(paths, log) if paths else LogView(logs=[], name=log, lines=[])
            return Refreshed("logs", msgspec.json.encode(view), CALM_S)

        return refresh


def _has_news(seen: dict[LiveFeed, int]) -> bool:
    return any(feed.has_news(version) for feed, version in seen.items())


class _RunRefresher:
    """Finds a run, and reads on in it."""

    def __init__(self, runs: RunList, run_id: str) -> None:
        self._runs = runs
        self._run_id = run_id
        self._run: LiveRun | None = None

    def __call__(self) -> Refreshed:
        if self._run is None or self._runs.leads_out(self._run.paths):
            paths = self._runs.paths_of(self._run_id)
            if paths is None:
                self._run = None
                return Refreshed("absent", msgspec.json.encode(Absent(run_id=self._run_id)), CALM_S)
            self._run = LiveRun(paths)
        deadline_s = time.monotonic() + SHOW_S
        while (is_behind := self._run.advance()) and time.monotonic() < deadline_s:
            pass
        view = self._run.view()
        next_s = 0.0 if is_behind else LIVE_S if view.liveness == "live" else CALM_S
        return Refreshed("run", msgspec.json.encode(view), next_s)


def _log_view(paths: RunPaths, log: str) -> LogView:
    logs = logs_of(paths)
    try:
        lines = tail_of(paths, log) if log else []
    except ConfigError as error:
        return LogView(logs=logs, name=log, lines=[], problem=shown(str(error), 500))
    return LogView(logs=logs, name=log, lines=lines)
