"""In which order tests are run by several workers, so that none of them is waited for in the end.

Each worker begins with an equal part of all tests (`--dist worksteal`) and takes from the end of
another's part when it is done. So each part begins with the tests that may take long: those that
are taken, and those that are left in the end, are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import TypeVar

Test = TypeVar("Test")


def dealt(tests: Sequence[Test], is_long: Sequence[bool], num_workers: int) -> list[Test]:
    """All tests, one worker's part after another's.

    Args:
        tests: As they were collected. A worker gets neighbours among the short ones, as those
            share fixtures; long ones are dealt like cards, as neighbours are alike.
        is_long: Which of them may take long.
        num_workers: Who run them. One runs them as they were collected.
    """
    if num_workers == 1:
        return list(tests)
    long = list(compress(tests, is_long))
    short = list(compress(tests, (not each for each in is_long)))
    order: list[Test] = []
    for worker in range(num_workers):
        order += long[worker::num_workers]
        begin, end = (len(short) * part // num_workers for part in (worker, worker + 1))
        order += short[begin:end]
    return order
