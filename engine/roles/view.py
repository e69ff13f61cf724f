"""Running totals as a snapshot for people."""

from __future__ import annotations

from engine.progress import Progress
from engine.roles.totals import RunTotals
from engine.spec import StopSpec


def describe(
    totals: RunTotals,
    stop: StopSpec,
    phase: str,
    roles: dict[str, str],
    now_s: float,
    is_started: bool,
) -> Progress:
    """How far the run is: share of the nearest stop rule, rates, lag, the state of each role."""
    recent = totals.recent_staleness
    shares = [0.0]
    if stop.env_steps:
        shares.append(totals.consumed.total / stop.env_steps)
    if stop.seconds and is_started:
        shares.append(now_s / stop.seconds)
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
        share_done=min(max(shares), 1.0),
        roles=roles,
    )
