"""Rollouts on their way to another host: packed where that makes them arrive sooner."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import zmq

from engine.spec import Compression
from engine.wire.header import Buffer
from engine.wire.link_meter import LinkMeter
from engine.wire.packing_choice import PackingChoice


class RolloutLink:
    """One connection that rollouts leave by.

    Args:
        peer: The process that they are for, in what is logged.
        client: The socket, before it connects.
        compression: Whether to decide, or the decision.

    Attributes:
        meter: Of the connection, if there is something to decide.
    """

    def __init__(self, peer: str, client: zmq.Socket[bytes], compression: Compression) -> None:
        self._peer = peer
        self._compression = compression
        self._choice = PackingChoice()
        self.meter = LinkMeter(client) if compression == "auto" else None

    def close(self) -> None:
        """Before the socket is closed."""
        if self.meter is not None:
            self.meter.close()

    def encode(self, encode: Callable[[bool], list[Buffer]]) -> list[Buffer]:
        """The frames of a rollout.

        Args:
            encode: Makes them, packed or not.
        """
        if self.meter is None:
            return encode(self._compression == "on")
        was_packed = self._choice.is_settled_on_packing
        start_s = time.perf_counter()
        packs = self._choice.next(start_s, self.meter.busy_s())
        if self._choice.is_settled_on_packing != was_packed:
            self._say(is_packed=not was_packed)
        frames = encode(packs)
        if packs:
            self._choice.packed(time.perf_counter() - start_s)
        return frames

    def _say(self, *, is_packed: bool) -> None:
        if is_packed:
            before_ms, now_ms = self._choice.plain_s * 1e3, self._choice.packed_s * 1e3
            words = (
                f"rollouts to {self._peer} are packed, since the link was the limit:"
                f" {before_ms:.3g} ms each before, {now_ms:.3g} ms now"
            )
        else:
            words = f"rollouts to {self._peer} are sent as they are again"
        print(words, file=sys.stderr, flush=True)
