"""What a run has left behind whose coordinator did not live to write a summary. No pandas here:
`up` counts it while its user waits, who may have pressed Ctrl-C twice."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from engine.progress import Resumed
from engine.roles.coordinator.totals import RunInfo, RunTotals
from engine.spec import Experiment
from engine.trace.columns import column_of
from engine.trace.records import Ledger, Record
from engine.trace.summary import UNKNOWN, LagSummary, Summary
from tianji_cli.analysis.run import ManifestView, RunData
from tianji_cli.storage.deployment import whereabouts

RESTART_KIND = "restarted"
NO_SUMMARY = "there is no summary.json: the run is still going, or its controller died"


def summary_of_remains(run: RunData) -> Summary:
    """The summary the coordinator would have written if each table ended with its last row.

    The rows are counted as the coordinator counts them during a run.
    """
    identity = identity_of(run)
    totals = RunTotals(_experiment(run.manifest), _resumed(run.manifest))
    for row in _counted_rows(run):
        totals.add(row, row.t_s)
    totals.restarts = sum(event.kind == RESTART_KIND for event in run.events)
    totals.close_ledger(last_ledger(run))
    info = RunInfo(
        run_id=identity.run_id,
        num_hosts=identity.num_hosts,
        num_actors=identity.num_actors,
        num_groups=identity.num_groups,
        resumed=_resumed(run.manifest),
    )
    return totals.summary(
        info,
        status=identity.status,
        error=identity.error,
        stop_reason=identity.stop_reason,
        now_s=run.end_s,
    )


def _counted_rows(run: RunData) -> Iterator[Record]:
    """In order of time; of equal times, in this order of the tables."""
    tables: tuple[Sequence[Record], ...] = (
        run.production,
        run.consumption,
        run.replay,
        run.staleness,
        run.weights,
        run.episodes,
        run.evaluations,
    )
    return heapq.merge(*map(_in_order, tables), key=lambda row: row.t_s)


def _in_order(rows: Sequence[Record]) -> Iterator[Record]:
    """Rows come almost in order of time; a long table is not made into a list of them for that."""
    order = np.argsort(np.asarray(column_of(rows, "t_s")), kind="stable")
    return (rows[int(number)] for number in order)


def _experiment(manifest: ManifestView) -> Experiment:
    """Raises msgspec.ValidationError for that of another version of this program."""
    return msgspec.convert(manifest.section("experiment"), Experiment)


def _resumed(manifest: ManifestView) -> Resumed | None:
    run_id = manifest.text("resumed_from", "run_id")
    if not run_id:
        return None
    return Resumed(
        run_id=run_id,
        checkpoint="",
        version=int(manifest.number("resumed_from", "version") or 0),
        updates=int(manifest.number("resumed_from", "updates") or 0),
        counters=manifest.before,
        resumes=1,
    )


def last_ledger(run: RunData) -> Ledger:
    """What was collected and consumed by the tables of that, the rest by the last ledger row.

    If the coordinator could not close the books, that row may be older than the others or younger,
    as the tables may end at different moments: what any of them has counted stands, what was
    consumed had been collected, and what is not accounted for was in flight.
    """
    before, last = run.manifest.before, run.ledger[-1] if run.ledger else None
    collected = before.env_steps_collected + sum(row.env_steps for row in run.production)
    consumed = before.env_steps_consumed + sum(row.env_steps for row in run.consumed)
    dropped = last.dropped if last else before.env_steps_dropped
    in_flight = last.in_flight if last else 0
    if not run.is_whole:
        consumed = max(consumed, last.consumed if last else 0)
        collected = max(collected, consumed + dropped, last.collected if last else 0)
        in_flight = collected - consumed - dropped
    return Ledger(
        t_s=run.end_s, collected=collected, consumed=consumed, dropped=dropped, in_flight=in_flight
    )


def no_summary(run: RunData) -> str:
    """Why a run has no summary here."""
    return whereabouts(run.paths.root) or NO_SUMMARY


def identity_of(run: RunData) -> Summary:
    """A summary of an unfinished run whose counters are still to be filled in."""
    manifest: ManifestView = run.manifest
    return Summary(
        run_id=run.paths.run_id,
        status="interrupted",
        error=no_summary(run),
        stop_reason=UNKNOWN,
        algorithm=manifest.text("experiment", "algorithm", "name"),
        env_id=manifest.text("experiment", "env", "id"),
        policy=manifest.text("experiment", "policy"),
        seed=int(manifest.number("experiment", "seed") or 0),
        resumed_from=manifest.text("resumed_from", "run_id") or None,
        judge="evaluation" if manifest.judge == "evaluation" else "training",
        return_of=manifest.return_of,
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
