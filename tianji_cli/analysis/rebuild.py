"""Rebuilds a summary from the trace tables alone, as an independent check of `summary.json`."""

from __future__ import annotations

import msgspec
import pandas as pd

from engine.trace.records import Consumption, Production, Replay
from engine.trace.summary import Summary, summarise_lag
from engine.trace.team_returns import return_of
from tianji_cli.analysis.convergence import (
    ReturnCrossing,
    episode_curve,
    evaluation_curve,
    threshold_crossing,
)
from tianji_cli.analysis.remains import RESTART_KIND, identity_of, last_ledger
from tianji_cli.analysis.run import RunData
from tianji_cli.analysis.staleness import lag_counts
from tianji_cli.analysis.tables import to_frame
from tianji_cli.analysis.teams import TeamMeans, agent_steps_of
from tianji_cli.analysis.throughput import steady_rates

STOP_KIND = "stopping"


def rebuild_summary(run: RunData) -> Summary:
    """Computes what `summary.json` should contain, from the trace tables.

    Values that are in no table are taken from the summary, or else from the manifest:
    names, status, `wall_s`, the number of hosts, actors and groups, the threshold.
    """
    written, before = run.summary or identity_of(run), run.manifest.before
    rates = steady_rates(
        to_frame(run.production, Production),
        to_frame(run.consumption, Consumption),
        to_frame(run.replay, Replay),
    )
    collect_per_s, consume_per_s = rates["collect_per_s"], rates["consume_per_s"]
    window, name = run.manifest.return_window, run.manifest.return_of
    curve = episode_curve(run.episodes, window, name)
    team = TeamMeans.of(run.episodes, window)
    crossing = _crossing(run, curve, written.threshold)
    ledger = last_ledger(run)
    return msgspec.structs.replace(
        written,
        wall_s=written.wall_s if run.is_closed else run.end_s,
        env_steps_collected=ledger.collected,
        env_steps_consumed=ledger.consumed,
        env_steps_dropped=ledger.dropped,
        env_steps_in_flight=ledger.in_flight,
        samples_trained=_samples_trained(run),
        collect_per_s=collect_per_s,
        consume_per_s=consume_per_s,
        trained_per_s=rates["trained_per_s"],
        updates=max(
            (row.updates_total for row in run.consumption),
            default=int(run.manifest.number("resumed_from", "updates") or 0),
        ),
        weights_version=max(
            (row.version for row in run.weights),
            default=int(run.manifest.number("resumed_from", "version") or 0),
        ),
        lag=summarise_lag(lag_counts(run.staleness)),
        balance=collect_per_s / consume_per_s
        if collect_per_s is not None and consume_per_s
        else None,
        return_mean=float(curve["return_mean"].iloc[-1]) if len(curve) else None,
        episodes=before.episodes + len(run.episodes),
        reached=None if written.threshold is None else crossing is not None,
        time_to_threshold_s=_heard_at_s(run, crossing),
        steps_to_threshold=crossing.env_steps if crossing else None,
        restarts=sum(event.kind == RESTART_KIND for event in run.events),
        evaluation_return=return_of(run.evaluations[-1], name) if run.evaluations else None,
        replay_ratio=_replay_ratio(run),
        return_of=name,
        team_return=team.team,
        agent_returns=team.agents,
        policy_returns=team.policies,
        agent_steps_collected=agent_steps_of(run.production),
    )


def _crossing(run: RunData, curve: pd.DataFrame, threshold: float | None) -> ReturnCrossing | None:
    """The crossing, by the judge that the experiment chose."""
    manifest = run.manifest
    if manifest.judge == "evaluation":
        evaluations = evaluation_curve(run.evaluations, manifest.return_of)
        return threshold_crossing(evaluations, threshold, manifest.sustained)
    streak = 1 + (manifest.sustained - 1) * manifest.return_window
    return threshold_crossing(curve, threshold, streak)


def _replay_ratio(run: RunData) -> float | None:
    collected = run.manifest.before.env_steps_collected
    collected += sum(row.env_steps for row in run.production)
    return _samples_trained(run) / collected if run.replay and collected else None


def _samples_trained(run: RunData) -> int:
    own = sum(row.samples_trained for row in run.consumption)
    return run.manifest.before.samples_trained + own


def _heard_at_s(run: RunData, crossing: ReturnCrossing | None) -> float | None:
    """When the coordinator saw it: the moment it began to stop, if the threshold was the reason."""
    if crossing is None:
        return None
    stops = (e.t_s for e in run.events if (e.kind, e.detail) == (STOP_KIND, "return_threshold"))
    return next(stops, crossing.t_s)
