"""Clock offsets from question and answer over the control channel.

If an answer was written at time r of the host's clock, between sending at t0 and receiving at t1,
the host's clock is ahead by r - (t0 + t1) / 2, wrong by at most (t1 - t0) / 2. The fastest of
several answers has the best bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

NUM_PINGS = 8


class ClockAnswer(msgspec.Struct, frozen=True):
    """One question and its answer, in nanoseconds of the clocks of both sides."""

    sent_ns: int
    answered_ns: int
    heard_ns: int


class ClockOffset(msgspec.Struct, frozen=True):
    """A host's monotonic clock minus another's, and the error bound."""

    offset_ns: int
    error_ns: int


def estimate(answers: Iterable[ClockAnswer]) -> ClockOffset:
    """The offset from the fastest answer.

    >>> estimate([ClockAnswer(0, 1050, 100), ClockAnswer(200, 1300, 400)])
    ClockOffset(offset_ns=1000, error_ns=50)
    """
    best = min(answers, key=lambda answer: answer.heard_ns - answer.sent_ns)
    middle_ns = (best.sent_ns + best.heard_ns) // 2
    return ClockOffset(best.answered_ns - middle_ns, (best.heard_ns - best.sent_ns + 1) // 2)


def relative_to(reference: str, offsets: Mapping[str, ClockOffset]) -> dict[str, ClockOffset]:
    """Converts offsets measured from here to offsets relative to one of the hosts.

    The reference's own offset is exactly zero; the errors of two measurements add up.
    """
    base = offsets[reference]
    found = {
        name: ClockOffset(item.offset_ns - base.offset_ns, item.error_ns + base.error_ns)
        for name, item in offsets.items()
    }
    return {**found, reference: ClockOffset(0, 0)}
