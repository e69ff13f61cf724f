"""What old samples did to a run, as tables: importance ratios by lag, and who was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.trace.records import Episode, Production
from engine.wording import plural
from tianji_cli import units
from tianji_cli.analysis.old_samples.dropped import (
    dropped_by_actor,
    dropped_by_length,
    dropped_rollouts,
    uneven,
)
from tianji_cli.analysis.old_samples.ratios import (
    RatiosOfLag,
    num_ratio_batches,
    ratios_by_lag,
)
from tianji_cli.analysis.run import RunData
from tianji_cli.analysis.tables import to_frame
from tianji_cli.render.run.profile import percent

if TYPE_CHECKING:
    import pandas as pd

MAX_ACTORS = 50
RATIO_HEADINGS = (
    *("lag", "samples", "effective sample size", "clipped", "largest ratio", "KL (nats)"),
    "first log-ratio",
)


@dataclass(frozen=True)
class StalenessTable:
    """One table of the page.

    Attributes:
        title: What it is about.
        headings, rows: Its cells.
        note: One sentence for new readers.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def staleness_tables(run: RunData) -> list[StalenessTable]:
    """All tables that a run has anything for."""
    tables = []
    if ratios := ratios_by_lag(run.staleness):
        tables.append(_ratio_table(ratios, num_ratio_batches(run.staleness)))
    return [*tables, *_drop_tables(run)]


def _ratio_table(ratios: dict[int, RatiosOfLag], num_batches: int) -> StalenessTable:
    rows = [
        [
            _bin_text(lag),
            units.count(int(of_lag.ratios)),
            _share(of_lag.ess),
            _share(of_lag.clip_fraction),
            units.number(of_lag.ratio_max, 2),
            units.number(of_lag.behaviour_kl, 4),
            units.number(of_lag.log_ratio_first, 4),
        ]
        for lag, of_lag in ratios.items()
    ]
    return StalenessTable(
        "Importance ratios by lag",
        RATIO_HEADINGS,
        rows,
        f"Of {plural(num_batches, 'batch')}: the first ones, and a sample of the rest."
        " Ratios of the probabilities that the learning and the acting policy give to an action,"
        " after the update; the first log-ratio is the largest before it: at lag 0 it shows how far"
        " acting and learning disagree.",
    )


def _bin_text(lag: int) -> str:
    """
    >>> _bin_text(3), _bin_text(16)
    ('3', '16 to 31')
    """
    return str(lag) if lag < 8 else f"{lag} to {2 * lag - 1}"


def _share(value: float | None) -> str:
    return units.NONE if value is None else percent(value)


def _drop_tables(run: RunData) -> list[StalenessTable]:
    dropped = dropped_rollouts(run.events)
    if dropped.empty:
        return []
    production = to_frame(run.production, Production)
    by_actor = dropped_by_actor(production, dropped)
    by_length = dropped_by_length(production, to_frame(run.episodes, Episode), dropped)
    first = StalenessTable(
        "Dropped by actor",
        ("actor", "env steps sent", "dropped", "share"),
        _rows(by_actor, [f"actor-{index}" for index in by_actor["actor"]], "env_steps")[
            :MAX_ACTORS
        ],
        "Whole rollouts that were too old; an actor with a far larger share than the others is too"
        " slow for the bound.",
    )
    if by_length.empty:
        return [first]
    lengths = [
        f"{short} to {long}" if short < long else f"{short}"
        for short, long in zip(by_length["shortest"], by_length["longest"], strict=True)
    ]
    return [
        first,
        StalenessTable(
            "Dropped by episode length",
            ("length (env steps)", "episodes", "ended in a dropped rollout", "share"),
            _rows(by_length, lengths, "episodes"),
            "If shares grow with length, what is learnt from has fewer long episodes than what was"
            " collected.",
        ),
    ]


def _rows(table: pd.DataFrame, names: Sequence[str], of: str) -> list[list[str]]:
    shown = zip(names, table[of], table["dropped"], table["share"], uneven(table, of), strict=True)
    return [
        [
            str(name),
            units.count(int(total)),
            units.count(int(lost)),
            percent(float(share)) + (" (uneven)" if is_uneven else ""),
        ]
        for name, total, lost, share, is_uneven in shown
    ]
