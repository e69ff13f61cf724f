"""File descriptors: as many as the system allows, with some reserved from strangers.

A server accepts any connection, and a connection uses a descriptor until its handshake fails. So a
process whose port strangers can reach keeps its soft limit a little below the hard one, and raises
it only while it opens its own files: checkpoints can be written whatever strangers do.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

MOST = 65_536
"""A run needs no more, and some programs loop over all possible descriptors."""
NUM_SPARE = 64

_kept_from: int | None = None
"""The limit below which strangers cannot take descriptors; None: no reserve is kept."""


def raise_limit() -> int:
    """Raises the soft limit of this process and its children as far as possible; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def keep_spare() -> None:
    """Reserves the last descriptors of this process for `spare`."""
    global _kept_from
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _kept_from is None and soft != resource.RLIM_INFINITY and soft > 2 * NUM_SPARE:
        _kept_from = soft
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - NUM_SPARE, hard))


@contextlib.contextmanager
def spare() -> Iterator[None]:
    """Lets this process open its own files even if strangers have taken all other descriptors.

    It can be nested within a thread, and can decorate functions.
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
