"""What the hosts of a detached run tell while a command follows it, from threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from queue import Empty, Queue
from typing import TypeAlias

from engine.errors import TianJiError
from engine.supervision.host_state import HostState
from tianji_cli.runs.detached import DetachedRun, HostAnswer

News: TypeAlias = list[HostAnswer] | HostState
"""The answers of all hosts, or what the supervisor of one of them has last written down."""


def changes(answers: Sequence[HostAnswer], silent: Collection[str]) -> list[str]:
    """Changes in the set of hosts that do not answer.

    Args:
        answers: Current answers of all hosts.
        silent: Hosts that did not answer the last time.
    """
    news = []
    for answer in answers:
        host = answer.part.host.name
        if answer.error is not None and host not in silent:
            news.append(f"{host} {answer.problem}")
        elif answer.error is None and host in silent:
            news.append(f"{host} answers again")
    return news


def silent_hosts(answers: Sequence[HostAnswer]) -> set[str]:
    """The hosts that do not answer, or whose files do not come."""
    return {answer.part.host.name for answer in answers if answer.error is not None}


def has_ended(answers: Sequence[HostAnswer]) -> bool:
    """Whether a run is certainly over: a host that does not answer can still be running."""
    return not any(answer.error is not None or answer.is_running for answer in answers)


class RunFollower:
    """Copies what a run's hosts write, and asks all of them now and then whether it still runs.

    A slow host delays neither the others nor the command that reads the news.

    Args:
        run: The run.
        look_s: Time between two questions to all hosts.
        reads_states: Also give each host's state as its supervisor writes it down.
    """

    def __init__(self, run: DetachedRun, look_s: float, *, reads_states: bool = False) -> None:
        self._run = run
        self._look_s = look_s
        self._stop = threading.Event()
        self._ask_now = threading.Event()
        self._news: Queue[News | TianJiError] = Queue()
        threading.Thread(target=self._look, name="look", daemon=True).start()
        run.bring_along(self._stop, self._take if reads_states else None)

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Ends the threads soon; can be called in a signal handler."""
        self._stop.set()
        self._ask_now.set()

    def next(self, timeout_s: float) -> News | None:
        """The next news; None if there is none in time.

        Raises:
            TianJiError: The hosts can no longer be asked.
        """
        try:
            found = self._news.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(found, TianJiError):
            raise found
        return found

    def _take(self, state: HostState) -> None:
        self._news.put(state)
        if state.phase == "ended":
            self._ask_now.set()

    def _look(self) -> None:
        """Asks all hosts again and again until the run has ended."""
        while not self._stop.is_set():
            self._ask_now.wait(self._look_s)
            self._ask_now.clear()
            if self._stop.is_set():
                return
            try:
                answers = self._run.look()
            except TianJiError as error:
                self._news.put(error)
                return
            self._news.put(answers)
            if has_ended(answers):
                return
