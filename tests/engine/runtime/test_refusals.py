"""Refused frames are logged, and a flood of them does not fill the disk."""

from __future__ import annotations

import pytest

from engine.errors import WireError
from engine.runtime import loop as loop_module
from engine.runtime.loop import REFUSAL_EVERY_S, REFUSALS_SAID, Loop, LoopClock


def test_of_a_flood_of_refused_frames_few_are_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    now_s = [100.0]
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: now_s[0])
    loop = Loop({}, LoopClock(), None)
    for _ in range(1000):
        loop._refused(WireError("it is not sealed", where="frame from actor-0"))
    now_s[0] += REFUSAL_EVERY_S
    loop._refused(WireError("it is not sealed", where="frame from actor-1"))
    *first, last = capfd.readouterr().err.splitlines()
    assert first == ["refused a frame: frame from actor-0: it is not sealed"] * REFUSALS_SAID
    assert last.startswith("refused a frame: frame from actor-1")
    assert last.endswith(f"(since then: {1001 - REFUSALS_SAID} frames)")
