"""File descriptors: as many as the system allows, with some reserved from strangers.

A server accepts whoever connects, and a connection is a descriptor until its handshake has failed.
So a process whose port strangers can reach lets its limit stay a little below what it may have, and
takes the rest only while it opens files of its own: checkpoints can be written whoever calls.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

MOST = 65_536
"""More are of no use to a run, and some programs go through all that could be open."""
NUM_SPARE = 64

_kept_from: int | None = None
"""The limit below which strangers cannot take descriptors; None: no reserve is kept."""


def raise_limit() -> int:
    """Lets this process, and those that it starts, open as many as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def keep_spare() -> None:
    """From now on only `spare` reaches the last descriptors of this process."""
    global _kept_from
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _kept_from is None and soft != resource.RLIM_INFINITY and soft > 2 * NUM_SPARE:
        _kept_from = soft
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - NUM_SPARE, hard))


@contextlib.contextmanager
def spare() -> Iterator[None]:
    """Opens files of this process's own, also where others have taken all descriptors.

    One may be within another, in the same thread. Decorates functions, too.
    """
    if _kept_from is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_kept_from, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
