"""A summary rebuilt from the trace tables alone: the second opinion on `summary.json`."""

from __future__ import annotations

import msgspec
import pandas as pd

from engine.trace.records import Consumption, Episode, Evaluation, Ledger, Production, Replay
from engine.trace.summary import LagSummary, Summary, summarise_lag
from tianji_cli.analysis.convergence import (
    Crossing,
    episode_curve,
    evaluation_curve,
    threshold_crossing,
)
from tianji_cli.analysis.run import Manifest, RunData
from tianji_cli.analysis.staleness import lag_counts
from tianji_cli.analysis.tables import to_frame
from tianji_cli.analysis.throughput import steady_rates

RESTART_KIND = "restarted"
STOP_KIND = "stopping"
NO_SUMMARY = "there is no summary.json: the run is still going, or its controller died"


def rebuild_summary(run: RunData) -> Summary:
    """What `summary.json` should say, from the trace tables.

    What no table can know is taken from the summary, or from the manifest where there is none:
    names, status, `wall_s`, the number of hosts, actors and groups, the threshold.
    """
    written, before = run.summary or _identity_of(run), run.manifest.before
    rates = steady_rates(
        to_frame(run.production, Production),
        to_frame(run.consumption, Consumption),
        to_frame(run.replay, Replay),
    )
    collect_per_s, consume_per_s = rates["collect_per_s"], rates["consume_per_s"]
    curve = episode_curve(to_frame(run.episodes, Episode), run.manifest.return_window)
    crossing = _crossing(run, curve, written.threshold)
    ledger = _last_ledger(run)
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
        evaluation_return=run.evaluations[-1].return_mean if run.evaluations else None,
        replay_ratio=_replay_ratio(run),
    )


def _last_ledger(run: RunData) -> Ledger:
    """What was collected and consumed by the tables of that, the rest by the last ledger row.

    If the coordinator could not close the books, that row may be older than the others, and the
    tables may end at different moments: what was consumed had been collected, and what is not
    accounted for was in flight.
    """
    before, last = run.manifest.before, run.ledger[-1] if run.ledger else None
    collected = before.env_steps_collected + sum(row.env_steps for row in run.production)
    consumed = before.env_steps_consumed + sum(row.env_steps for row in run.consumed)
    dropped = last.dropped if last else before.env_steps_dropped
    in_flight = last.in_flight if last else 0
    if not run.is_whole:
        collected = max(collected, consumed + dropped)
        in_flight = collected - consumed - dropped
    return Ledger(
        t_s=run.end_s, collected=collected, consumed=consumed, dropped=dropped, in_flight=in_flight
    )


def _crossing(run: RunData, curve: pd.DataFrame, threshold: float | None) -> Crossing | None:
    """By whom the experiment chose as its judge."""
    manifest = run.manifest
    if manifest.judge == "evaluation":
        evaluations = evaluation_curve(to_frame(run.evaluations, Evaluation))
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


def _heard_at_s(run: RunData, crossing: Crossing | None) -> float | None:
    """When the coordinator knew: the moment it began to stop, if the threshold was the reason."""
    if crossing is None:
        return None
    stops = (e.t_s for e in run.events if (e.kind, e.detail) == (STOP_KIND, "return_threshold"))
    return next(stops, crossing.t_s)


def _identity_of(run: RunData) -> Summary:
    """A summary of an unfinished run whose counters are still to be filled in."""
    manifest: Manifest = run.manifest
    return Summary(
        run_id=run.paths.run_id,
        status="interrupted",
        error=NO_SUMMARY,
        stop_reason="unknown",
        algorithm=manifest.text("experiment", "algorithm", "name"),
        env_id=manifest.text("experiment", "env", "id"),
        policy=manifest.text("experiment", "policy"),
        seed=int(manifest.number("experiment", "seed") or 0),
        resumed_from=manifest.text("resumed_from", "run_id") or None,
        judge="evaluation" if manifest.judge == "evaluation" else "training",
        num_hosts=len(manifest.section("hosts")),
        num_actors=int(manifest.number("experiment", "actors") or 0),
        num_groups=int(manifest.number("experiment", "groups") or 1),
        wall_s=run.end_s,
        env_steps_collected=0,
        env_steps_consumed=0,
        env_steps_dropped=0,
        env_steps_in_flight=0,
        samples_trained=0,
        collect_per_s=None,
        consume_per_s=None,
        trained_per_s=None,
        updates=0,
        weights_version=0,
        lag=LagSummary(),
        balance=None,
        return_mean=None,
        episodes=0,
        threshold=manifest.threshold,
        reached=None,
        time_to_threshold_s=None,
        steps_to_threshold=None,
        restarts=0,
    )
