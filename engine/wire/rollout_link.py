"""Rollouts on their way to another host: packed where that makes them arrive sooner."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from engine.spec import Compression
from engine.wire.header import Buffer
from engine.wire.link_meter import LinkMeter
from engine.wire.packing_choice import PackingChoice


class RolloutLink:
    """One connection that rollouts leave by.

    Args:
        peer: The process that they are for, in what is logged.
        meter: Of the connection.
        compression: Whether to decide, or the decision.
    """

    def __init__(self, peer: str, meter: LinkMeter, compression: Compression) -> None:
        self._peer = peer
        self._compression = compression
        self._choice = PackingChoice()
        self._meter = meter

    def encode(self, encode: Callable[[bool], list[Buffer]]) -> list[Buffer]:
        """The frames of a rollout.

        Args:
            encode: Makes them, packed or not.
        """
        if self._compression != "auto":
            return encode(self._compression == "on")
        was_packed = self._choice.is_settled_on_packing
        start_s = time.perf_counter()
        packs = self._choice.next(start_s, self._meter.busy_s())
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
