"""Converts raw records to TianJi's trace tables: pure, and the same for every system."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from engine.trace.records import Consumption, Episode, Event, Production, Record
from tianji_cli.bench.systems.raw import (
    CLAIMED,
    RECEIVED,
    Claimed,
    EpisodeEnd,
    Phase,
    RawRecord,
    Steps,
    TrainedTotals,
)

UNKNOWN = -1
"""The weights version of a system that states none."""


class _Totals:
    """Running counts over all processes of one system."""

    def __init__(self) -> None:
        self.by_source: dict[str, Steps] = {}
        self.trained = TrainedTotals(t=0.0, env_steps=0, samples=0, updates=0)

    @property
    def env_steps(self) -> int:
        return sum(steps.total for steps in self.by_source.values())

    def actor(self, source: str) -> int:
        """A number for each process, in the order of their first records."""
        known = list(self.by_source)
        return known.index(source) if source in known else len(known)


def to_trace(records: Sequence[RawRecord], launched_s: float) -> list[Record]:
    """Trace rows in order of time; `t_s` is seconds since the system was launched.

    Args:
        records: Of all processes.
        launched_s: CLOCK_MONOTONIC at launch.
    """
    totals = _Totals()
    rows: list[Record] = []
    for record in sorted(records, key=lambda each: each.t):
        t_s = record.t - launched_s
        match record:
            case Steps():
                rows.append(_production(record, t_s, totals))
            case TrainedTotals():
                rows.append(_consumption(record, t_s, totals))
            case EpisodeEnd():
                rows.append(
                    Episode(
                        t_s=t_s,
                        actor=totals.actor(record.source),
                        episode_return=record.episode_return,
                        length_env_steps=record.length,
                        version=UNKNOWN,
                        env_steps_collected=totals.env_steps,
                    )
                )
            case Phase():
                rows.append(_event(t_s, "phase", record.name))
            case Claimed():
                kind = RECEIVED if record.is_received else CLAIMED
                rows.append(_event(t_s, kind, str(record.env_steps)))
    return rows


def _production(record: Steps, t_s: float, totals: _Totals) -> Production:
    actor = totals.actor(record.source)
    before = totals.by_source.get(record.source)
    totals.by_source[record.source] = record
    return Production(
        t_s=t_s,
        actor=actor,
        epoch=0,
        sequence=0,
        env_steps=record.total - (before.total if before else 0),
        env_steps_total=record.total,
        version_min=UNKNOWN,
        version_max=UNKNOWN,
        collect_s=record.t - before.t if before else 0.0,
        wait_s=0.0,
        agent_steps=_agent_steps(record, before),
    )


def _agent_steps(record: Steps, before: Steps | None) -> int | UnsetType:
    """Since the record before; unset where the environment has one agent."""
    if record.agent_total is None:
        return UNSET
    return record.agent_total - (before.agent_total or 0 if before else 0)


def _consumption(record: TrainedTotals, t_s: float, totals: _Totals) -> Consumption:
    before, totals.trained = totals.trained, record
    return Consumption(
        t_s=t_s,
        learner=0,
        version=UNKNOWN,
        env_steps=record.env_steps - before.env_steps,
        env_steps_total=record.env_steps,
        samples_trained=record.samples - before.samples,
        samples_trained_total=record.samples,
        updates_total=record.updates,
        wait_s=0.0,
        update_s=0.0,
        metrics={},
    )


def _event(t_s: float, kind: str, detail: str) -> Event:
    return Event(t_s=t_s, kind=kind, host="localhost", role="system", detail=detail)
