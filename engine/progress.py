"""How far a run is, for people who watch it."""

from __future__ import annotations

import msgspec


class RoleState(msgspec.Struct, frozen=True):
    """One role: `starting`, `running`, `stopped` or `gone`; cores used lately, if known."""

    state: str
    cores: float | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot; rates are over the last few seconds, lag over the last batches.

    Attributes:
        phase: `starting`, `running` or `stopping`.
        env_steps_limit, seconds_limit, threshold: The stop rules; None where there is none.
        roles: State of each role by address, and the share of a core that it uses.
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
    env_steps_limit: int | None = None
    seconds_limit: float | None = None
    roles: dict[str, RoleState] = {}
