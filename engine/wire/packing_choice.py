"""Whether the rollouts of one connection are packed: decided by what the link was seen to take.

While rollouts are sent as they are, the share of time is measured in which something sent waits for
the other end to have it. If that is most of the time, the link is the limit, and some rollouts are
packed on trial. What counts is the time that each takes of the link and of packing together. If
packed ones take clearly less, they stay packed, until the link would be idle most of the time
without that; if not, they are sent as they are, and the next trial comes later.

Pure: no sockets, no clock.
"""

from __future__ import annotations

from enum import Enum, auto

WINDOW = 8
"""Rollouts that are judged together."""
UNSETTLED = 2
"""First rollouts after a change, which are not judged: earlier ones can still be on their way."""
LIMITING_SHARE = 0.5
"""The link is the limit if it is busy for this share of the time."""
IDLE_SHARE = 0.25
"""It is not any more if it would be busy for less than this without packing."""
MOST_COST = 0.8
"""Packed rollouts must take no more than this share of the time of others."""
FIRST_WAIT = 64
MOST_WAIT = 4096
"""Rollouts from a trial that failed to the next one; the wait doubles each time."""


class _Phase(Enum):
    PLAIN = auto()
    TRIAL = auto()
    PACKED = auto()


class PackingChoice:
    """The decision for one connection.

    Attributes:
        plain_s, packed_s: Time that a rollout took of the link, and of packing, when this was last
            compared.
    """

    def __init__(self) -> None:
        self.plain_s = self.packed_s = 0.0
        self._phase = _Phase.PLAIN
        self._wait = 0
        self._next_wait = FIRST_WAIT
        self._last: tuple[float, float] | None = None
        self._begin()

    @property
    def is_settled_on_packing(self) -> bool:
        """Whether rollouts are packed, and not only on trial."""
        return self._phase is _Phase.PACKED

    def next(self, now_s: float, busy_s: float | None) -> bool:
        """Whether to pack the next rollout.

        Args:
            now_s: Any clock.
            busy_s: So long the connection has had something to send since it began; None if that is
                unknown.
        """
        last, self._last = self._last, None if busy_s is None else (now_s, busy_s)
        if last is not None and busy_s is not None and busy_s >= last[1] and now_s > last[0]:
            self._add(now_s - last[0], busy_s - last[1])
        self._pack_s = 0.0
        return self._phase is not _Phase.PLAIN

    def packed(self, seconds: float) -> None:
        """The rollout that was asked about last took so long to pack."""
        self._pack_s = seconds

    def _begin(self) -> None:
        self._left_out = UNSETTLED
        self._count = 0
        self._total_s = self._busy_s = self._packing_s = 0.0
        self._pack_s = 0.0

    def _add(self, total_s: float, busy_s: float) -> None:
        if self._left_out:
            self._left_out -= 1
            return
        self._count += 1
        self._total_s += total_s
        self._busy_s += min(busy_s, total_s)
        self._packing_s += self._pack_s
        if self._count == WINDOW:
            self._judge()

    def _judge(self) -> None:
        cost_s, share = (self._busy_s + self._packing_s) / WINDOW, self._busy_s / self._total_s
        before = self._phase
        match before:
            case _Phase.PLAIN:
                self._wait = max(0, self._wait - WINDOW)
                self.plain_s = cost_s
                if share >= LIMITING_SHARE and not self._wait:
                    self._phase = _Phase.TRIAL
            case _Phase.TRIAL:
                self.packed_s = cost_s
                pays = cost_s <= MOST_COST * self.plain_s
                self._phase = _Phase.PACKED if pays else _Phase.PLAIN
                self._wait = 0 if pays else self._next_wait
                self._next_wait = FIRST_WAIT if pays else min(MOST_WAIT, 2 * self._next_wait)
            case _Phase.PACKED:
                share_without = share * self.plain_s / max(self.packed_s, 1e-9)
                if share_without < IDLE_SHARE or cost_s > MOST_COST * self.plain_s:
                    self._phase = _Phase.PLAIN
        left_out = self._phase is not before
        self._begin()
        if not left_out:
            self._left_out = 0
