"""Reports to the coordinator: what is reported within a moment goes in one message.

A fast run reports a thousand times a second, and a message costs more than its rows: both processes
and both of their I/O threads wake for it. So a process sends its first report at once, and what it
reports in the `REPORT_S` after that together. A slow run sends each report at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from engine.messages import COORDINATOR, AnyMessage, Report
from engine.trace.records import Record

REPORT_S = 0.05
"""Least time between two messages with reports."""


class Reports:
    """The reports of a process that are not sent yet.

    They must be sent before any other message to the coordinator, so that the order is kept.

    Args:
        send_out: Sends a message to an address.
        now_s: Any clock.
    """

    def __init__(
        self,
        send_out: Callable[[str, AnyMessage], object],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send_out = send_out
        self._now_s = now_s
        self._held: dict[str, list[Record]] = {}
        """By the address of the role that reports."""
        self._next_s = -math.inf
        """No message before this."""

    @property
    def due_s(self) -> float:
        """When `send_if_due` has something to send; infinite if there is nothing."""
        return self._next_s if self._held else math.inf

    def add(self, report: Report) -> None:
        """Takes a report, and sends it if none was sent a moment ago."""
        self._held.setdefault(report.address, []).extend(report.records)
        self.send_if_due(self._now_s())

    def send_if_due(self, now_s: float) -> None:
        """Must be called at `due_s`."""
        if now_s >= self.due_s:
            self._next_s = now_s + REPORT_S
            self.send()

    def send(self) -> None:
        """Sends all now, a message for each role."""
        held, self._held = self._held, {}
        for address, records in held.items():
            self._send_out(COORDINATOR, Report(address=address, records=records))
