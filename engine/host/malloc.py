"""The heaps of a process: what Python need not scan, and what the C library need not map again.

Python's cyclic garbage collector scans all objects repeatedly while their number grows. But
libraries stay: scanning them takes a fifth of the time of importing torch, and in a forked process
it would copy each page that it marks.

By default glibc maps every block above 32 MB anew, unmaps it when it is freed, and also returns the
top of its heap. A batch of images makes dozens of such blocks in each update, and the kernel then
fills in and zeroes page after page: a third of the time of a learner on images. Threads other than
the main one get heaps of 64 MB, which are unmapped when they are empty; so all threads share one
here, or blocks received by ZeroMQ's thread would be mapped anew each time.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MAPPED_BYTES = 2**30
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keeps blocks of up to 1 GiB in this process and those forked from it.

    Such a process does not shrink.

    Returns:
        Whether this C library supports it; if not, nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # not glibc
    settings = (
        (_M_MMAP_THRESHOLD, _MAPPED_BYTES),
        (_M_TRIM_THRESHOLD, _MOST),
        (_M_ARENA_MAX, 1),
    )
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings)


@contextmanager
def reading_libraries() -> Iterator[None]:
    """Import libraries within the block; the garbage collector never scans them afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_on:
            gc.enable()


def keep_what_is_there() -> None:
    """Collects garbage since libraries were imported; the rest is never scanned again."""
    gc.collect()
    gc.freeze()
