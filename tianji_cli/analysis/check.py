"""Checks that the files of a run agree with each other and with the guarantees of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

from engine.trace.records import IRREPRODUCIBLE
from engine.trace.summary import Summary
from engine.wording import plural
from tianji_cli.analysis.history import MAX_FINDINGS, Disagreement, Number, check_history
from tianji_cli.analysis.old_samples.lag_bound import largest_bound
from tianji_cli.analysis.old_samples.lag_history import check_moving_bound
from tianji_cli.analysis.old_samples.ratios import off_policy_warnings
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.remains import no_summary
from tianji_cli.analysis.run import RunData
from tianji_cli.analysis.team_history import check_team

EXACT = (
    "env_steps_collected",
    "env_steps_consumed",
    "env_steps_dropped",
    "env_steps_in_flight",
    "samples_trained",
    "updates",
    "weights_version",
    "episodes",
    "reached",
    "steps_to_threshold",
    "restarts",
)
LAG = ("min", "mean", "p95", "max")
ROUNDED = ("return_mean", "evaluation_return", "replay_ratio")
TEAM_COUNT, TEAM_MEAN = "agent_steps_collected", "team_return"
TEAM_MEANS = ("agent_returns", "policy_returns")
"""What a summary says of a team; there is nothing to check of another run."""
RATES = ("collect_per_s", "consume_per_s", "trained_per_s", "balance")
TIMES = ("time_to_threshold_s",)
ROUNDING = 1e-9
RATE_TOLERANCE = 1e-3
"""Above 65,536 rows the coordinator keeps only some of them for its rates."""
TIME_TOLERANCE_S = 1.0
"""An episode's row holds when it ended, the summary when its report reached the coordinator."""


def rebuild_counters(run: RunData, rebuilt: Summary | None = None) -> list[Disagreement]:
    """Recomputes every counter of `summary.json` from the trace tables, balances the ledger, and
    checks that the tables describe a possible history (`history`).

    Counters and lags must agree exactly, means to rounding, rates to 0.1 %, times to 1 s.

    Args:
        run: Its files.
        rebuilt: From `rebuild_summary`, if the caller has it already.

    Returns:
        The disagreements; empty if everything agrees. Where the coordinator could not write its
        last rows and a summary, only what each table says by itself can be compared.
    """
    found = _check_ledger(run) + _check_running_totals(run) + _check_lag_steps(run)
    found += check_history(run)
    found += islice(check_team(run), MAX_FINDINGS)
    found += islice(check_moving_bound(run), MAX_FINDINGS)
    if run.is_whole and run.summary is not None:
        found += _check_summary(run.summary, rebuilt or rebuild_summary(run))
    return found


def num_checks(run: RunData) -> tuple[int, int]:
    """How many summary fields and ledger rows `rebuild_counters` compares."""
    num_fields = sum(len(names) for names in (EXACT, LAG, ROUNDED, RATES, TIMES))
    if run.summary is not None and run.summary.agent_returns:
        num_fields += len(_team_rows(run.summary, run.summary))
    return (num_fields if run.is_whole else 0), len(run.ledger)


def _check_ledger(run: RunData) -> list[Disagreement]:
    """Every row balances, and the last one counts what the other tables hold."""
    found = [
        Disagreement(
            where=f"trace/ledger.jsonl:{number}",
            name="collected = consumed + dropped + in_flight",
            written=row.collected,
            rebuilt=row.consumed + row.dropped + row.in_flight,
        )
        for number, row in enumerate(run.ledger, start=1)
        if row.collected != row.consumed + row.dropped + row.in_flight
    ]
    if not run.ledger or not run.is_whole:  # a running count can lag behind the other tables
        return found
    where, last = f"trace/ledger.jsonl:{len(run.ledger)}", run.ledger[-1]
    before = run.manifest.before
    collected = before.env_steps_collected + sum(row.env_steps for row in run.production)
    consumed = before.env_steps_consumed + sum(row.env_steps for row in run.consumed)
    for name, written, rebuilt in (
        ("collected", last.collected, collected),
        ("consumed", last.consumed, consumed),
    ):
        if written != rebuilt:
            found.append(Disagreement(where=where, name=name, written=written, rebuilt=rebuilt))
    return found


def _check_lag_steps(run: RunData) -> list[Disagreement]:
    """Each batch's histogram holds each of its env steps once."""
    return [
        Disagreement(
            where=f"trace/staleness.jsonl:{number}",
            name="env_steps = sum of steps_by_lag",
            written=row.env_steps,
            rebuilt=sum(row.steps_by_lag.values()),
        )
        for number, row in enumerate(run.staleness, start=1)
        if row.env_steps != sum(row.steps_by_lag.values())
    ]


def _check_running_totals(run: RunData) -> list[Disagreement]:
    """Each learner's totals must grow by exactly what each row adds."""
    found = []
    totals: dict[int, tuple[int, int]] = {}
    for number, row in enumerate(run.consumption, start=1):
        where = f"trace/consumption.jsonl:{number}"
        written = (row.env_steps_total, row.samples_trained_total)
        if row.learner in totals:
            steps, samples = totals[row.learner]
            rebuilt = (steps + row.env_steps, samples + row.samples_trained)
            found += [
                Disagreement(where=where, name=name, written=w, rebuilt=r)
                for name, w, r in zip(
                    ("env_steps_total", "samples_trained_total"), written, rebuilt, strict=True
                )
                if w != r
            ]
        totals[row.learner] = written
    return found


_Compared: TypeAlias = tuple[str, Number, Number, float, float]
"""Name, value of the summary, rebuilt value, and how far they may be apart: relative, absolute."""


def _check_summary(written: Summary, rebuilt: Summary) -> list[Disagreement]:
    rows: list[_Compared] = []
    for names, relative, absolute in (
        (EXACT, 0.0, 0.0),
        (ROUNDED, ROUNDING, ROUNDING),
        (RATES, RATE_TOLERANCE, 0.0),
        (TIMES, 0.0, TIME_TOLERANCE_S),
    ):
        rows += [
            (name, getattr(written, name), getattr(rebuilt, name), relative, absolute)
            for name in names
        ]
    for name in LAG:
        lags = getattr(written.lag, name), getattr(rebuilt.lag, name)
        rows.append((f"lag.{name}", *lags, ROUNDING, ROUNDING))
    rows += _team_rows(written, rebuilt)
    return [
        Disagreement(where="summary.json", name=name, written=w, rebuilt=r)
        for name, w, r, relative, absolute in rows
        if not _agree(w, r, relative, absolute)
    ]


def _team_rows(written: Summary, rebuilt: Summary) -> list[_Compared]:
    rows: list[_Compared] = [
        (name, getattr(written, name), getattr(rebuilt, name), rounding, rounding)
        for name, rounding in ((TEAM_COUNT, 0.0), (TEAM_MEAN, ROUNDING))
    ]
    for name in TEAM_MEANS:
        means, own = getattr(written, name), getattr(rebuilt, name)
        rows += [
            (f"{name}.{key}", means.get(key), own.get(key), ROUNDING, ROUNDING)
            for key in dict.fromkeys((*means, *own))
        ]
    return rows


def _agree(written: Number, rebuilt: Number, relative: float, absolute: float) -> bool:
    if written is None or rebuilt is None:
        return written is rebuilt
    return math.isclose(written, rebuilt, rel_tol=relative, abs_tol=absolute)


def warnings_of(run: RunData, summary: Summary, disagreements: Sequence[Disagreement]) -> list[str]:
    """Notes that a reader needs to judge the figures; empty for a clean run.

    Args:
        run: The run.
        summary: Its summary, the rebuilt one if it has written none.
        disagreements: From `rebuild_counters`; only counted here.
    """
    found: list[str] = []
    if run.summary is None:
        why = no_summary(run)
        found.append(f"Unfinished: {why}. Its figures are rebuilt from the traces.")
    elif summary.status != "ok":
        reason = summary.error or summary.stop_reason
        says_more = reason != summary.status
        found.append(f"The run {_ENDED[summary.status]}" + (f": {reason}" if says_more else "."))
    if summary.reached is False:
        found.append(f"The threshold of {summary.threshold:g} was not reached.")
    bound = largest_bound(run)
    if bound is not None and summary.lag.max is not None and summary.lag.max > bound:
        found.append(
            f"Lag reached {plural(summary.lag.max, 'version')}, above the bound of {bound}."
        )
    if summary.restarts:
        found.append(f"Roles restarted during the run: {summary.restarts}.")
    if event := next((event for event in run.events if event.kind == IRREPRODUCIBLE), None):
        found.append(f"Equal seeds give other weights elsewhere, {event.detail}.")
    if names := _not_finite(run):
        found.append(f"No finite number at the end: {names}. The training may have diverged.")
    found += off_policy_warnings(run.events)
    if summary.trace_error:
        found.append(f"Trace tables end early: {summary.trace_error}.")
    if disagreements:
        places = f"{len(disagreements)} place{'s' if len(disagreements) > 1 else ''}"
        found.append(f"Its files contradict each other in {places} (see Check).")
    if run.manifest.section("git").get("dirty") is True:
        found.append("The working tree had uncommitted changes, so the commit is not all of it.")
    return found


def _not_finite(run: RunData) -> str:
    """Metrics of each learner's last update that are not finite."""
    last = {row.learner: row.metrics for row in run.consumption}
    values = [item for metrics in last.values() for item in metrics.items()]
    return ", ".join(sorted({name for name, value in values if not math.isfinite(value)}))


_ENDED = {"ok": "ended well", "failed": "failed", "interrupted": "was interrupted"}
