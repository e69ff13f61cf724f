"""Running totals as a snapshot for the user."""

from __future__ import annotations

from engine.progress import Progress, RoleState
from engine.roles.coordinator.totals import RunTotals
from engine.spec import StopSpec


def describe(
    totals: RunTotals, stop: StopSpec, phase: str, roles: dict[str, RoleState], now_s: float
) -> Progress:
    """The run's progress: rates, lag, stop rules, the state of each role."""
    recent = totals.recent_staleness
    ledger = totals.ledger
    return Progress(
        phase=phase,
        t_s=now_s,
        env_steps_collected=totals.collected.total,
        env_steps_consumed=totals.consumed.total,
        env_steps_dropped=ledger.dropped if ledger else 0,
        samples_trained=totals.trained.total,
        collect_per_s=totals.collected.recent_per_s(),
        consume_per_s=totals.consumed.recent_per_s(),
        trained_per_s=totals.trained.recent_per_s(),
        balance=totals.balance,
        lag_mean=sum(row.lag_mean for row in recent) / len(recent) if recent else None,
        lag_max=max(row.lag_max for row in recent) if recent else None,
        weights_version=totals.weights_version,
        episodes=totals.num_episodes,
        return_mean=totals.return_mean,
        threshold=stop.return_threshold,
        env_steps_limit=stop.env_steps,
        seconds_limit=stop.seconds,
        roles=roles,
    )
