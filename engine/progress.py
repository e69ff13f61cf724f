"""How far a run is, for people who watch it."""

from __future__ import annotations

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot; rates are over the last few seconds, lag over the last batches.

    Attributes:
        phase: `starting`, `running` or `stopping`.
        share_done: Of the stop rule that is nearest, 0 to 1; 0 where only a return decides.
        roles: State of each role by address, for example `collecting` or `updating`.
    """

    phase: str
    t_s: float
    env_steps_collected: int = 0
    env_steps_consumed: int = 0
    env_steps_dropped: int = 0
    samples_trained: int = 0
    collect_per_s: float = 0.0
    consume_per_s: float = 0.0
    trained_per_s: float = 0.0
    balance: float | None = None
    lag_mean: float | None = None
    lag_max: int | None = None
    weights_version: int = 0
    episodes: int = 0
    return_mean: float | None = None
    threshold: float | None = None
    share_done: float = 0.0
    roles: dict[str, str] = {}
