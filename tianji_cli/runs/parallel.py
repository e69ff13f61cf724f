"""Runs one action for several hosts in parallel, with a time limit, so none delays the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from engine.errors import TianJiError

LOOK_S = 0.1
HURRY_S = 5.0
"""Time left for all of them once the user is in a hurry."""


def in_parallel(
    actions: Mapping[str, Callable[[], None]],
    within_s: float,
    is_urgent: Callable[[], bool] = lambda: False,
) -> dict[str, TianJiError]:
    """Runs one action per host, each in its own thread.

    Args:
        actions: By host.
        within_s: Time limit for all; a thread that is not done by then is abandoned.
        is_urgent: Polled; once it is true, only `HURRY_S` are left.

    Returns:
        By host, why its action failed, or that it was not done in time.
    """
    errors: dict[str, TianJiError] = {}

    def one(host: str, action: Callable[[], None]) -> None:
        try:
            action()
        except TianJiError as error:
            errors[host] = error
        except OSError as error:
            errors[host] = TianJiError(str(error), where=host)

    threads = {
        host: threading.Thread(target=one, args=(host, action), name=f"end {host}", daemon=True)
        for host, action in actions.items()
    }
    for thread in threads.values():
        thread.start()
    join_all(list(threads.values()), within_s, is_urgent)
    found = dict(errors)
    for host, thread in threads.items():
        if thread.is_alive() and host not in found:
            found[host] = TianJiError(f"not done within {within_s:.0f} s", where=host)
    return found


def join_all(
    threads: Sequence[threading.Thread],
    within_s: float,
    is_urgent: Callable[[], bool] = lambda: False,
) -> None:
    """Waits for all threads together for at most this time; see `in_parallel`."""
    deadline_s = time.monotonic() + within_s
    is_hurried = False
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline_s:
        next((thread for thread in threads if thread.is_alive()), threads[0]).join(LOOK_S)
        if not is_hurried and is_urgent():
            is_hurried = True
            deadline_s = min(deadline_s, time.monotonic() + HURRY_S)
