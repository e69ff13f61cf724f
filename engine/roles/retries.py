"""Requests of a learner to other roles: when to repeat one, and which answer is valid.

If a connection between hosts breaks, messages in flight are lost without notice. So a learner that
waits for an answer repeats its request, and a late answer to an abandoned request is ignored.
"""

from __future__ import annotations

import msgspec

from engine.messages import BatchRequested, BatchSent

ASK_AGAIN_S = 5.0
"""A learner that has waited this long for a batch asks again."""
FIRST_PATIENCE_S = 10.0
"""Time-out of the first answer of a reducer; it doubles with each repetition."""
ROUND_TRIPS = 5.0
"""Time-out of an answer, as a multiple of the time that the last one took."""


class BatchRequests:
    """The one batch that a learner waits for.

    A buffer answers a repeated request with `BatchSent`. Messages on a connection stay in order, so
    the batch is lost if this answer arrives first; then another one is requested in its place.

    Args:
        learner: The learner that asks.
        first: Number of the first batch.
    """

    def __init__(self, learner: str, first: int) -> None:
        self._learner = learner
        self._next = first
        self._open: BatchRequested | None = None

    def new(self, consumed_env_steps: int) -> BatchRequested:
        """Asks for the next batch."""
        self._open = BatchRequested(
            learner=self._learner, batch=self._next, consumed_env_steps=consumed_env_steps
        )
        self._next += 1
        return self._open

    def again(self, consumed_env_steps: int) -> BatchRequested | None:
        """The same request again; None if there is no open one."""
        if self._open is None:
            return None
        return msgspec.structs.replace(self._open, consumed_env_steps=consumed_env_steps)

    def arrived(self, batch: int) -> bool:
        """Handles a batch; False if it is not the requested one."""
        if self._open is None or self._open.batch != batch:
            return False
        self._open = None
        return True

    def missed(self, sent: BatchSent, consumed_env_steps: int) -> BatchRequested | None:
        """Requests another batch in place of one that was sent and has not arrived.

        Returns:
            None if it has arrived, or if another was requested already.
        """
        request = self._open
        if request is None or (request.batch, request.attempt) != (sent.batch, sent.attempt):
            return None
        self._open = msgspec.structs.replace(
            request, attempt=request.attempt + 1, consumed_env_steps=consumed_env_steps
        )
        return self._open


class Offers:
    """Decides when a learner offers its model to the reducer: one at a time, with repetition.

    Args:
        every_updates: Fewest versions between two offers.
        version: Version of the initial model.
    """

    def __init__(self, every_updates: int, version: int) -> None:
        self._every_updates = every_updates
        self._next_version = version + every_updates
        self._offered: int | None = None
        self._offered_s = 0.0
        self._patience_s = FIRST_PATIENCE_S
        self.answered = -1
        """Version of the last offered model whose answer arrived."""

    def is_due(self, version: int, now_s: float) -> bool:
        """Whether to offer the model of this version now; it then counts as offered."""
        if version < self._next_version:
            return False
        if self._offered is not None:
            if now_s < self._offered_s + self._patience_s:
                return False
            self._patience_s *= 2
        self._next_version = version + self._every_updates
        self._offered, self._offered_s = version, now_s
        return True

    def take(self, version: int, now_s: float) -> bool:
        """Whether an answer belongs to the last offer."""
        if version != self._offered:
            return False
        self._patience_s = max(FIRST_PATIENCE_S, ROUND_TRIPS * (now_s - self._offered_s))
        self._offered, self.answered = None, version
        return True
