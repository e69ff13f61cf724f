"""Who was dropped: env steps and episodes of dropped rollouts against those of all others.

A bound that drops late rollouts drops those of slow actors and, where long episodes are slow, those
of long episodes: what is learnt from is then no longer what was collected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from msgspec import UNSET

from engine.trace.records import DROP, Event

LENGTH_CLASSES = 4
"""Classes of episode lengths, equally large as far as lengths differ."""
UNEVEN = 1.5
"""Share of a class, as a multiple of that of all, from which on dropping is called uneven."""


def dropped_rollouts(events: Sequence[Event]) -> pd.DataFrame:
    """`actor`, `epoch`, `sequence` and `env_steps` of each dropped rollout."""
    rows = [
        (int(row.role.rpartition("-")[2]), row.epoch, row.sequence, row.env_steps)
        for row in events
        if row.kind == DROP and row.sequence is not UNSET
    ]
    return pd.DataFrame(rows, columns=["actor", "epoch", "sequence", "env_steps"], dtype="int64")


def dropped_by_actor(production: pd.DataFrame, dropped: pd.DataFrame) -> pd.DataFrame:
    """Of each actor, its sent env steps and how many of them were dropped.

    Args:
        production: Rows of `Production`.
        dropped: From `dropped_rollouts`.

    Returns:
        `actor`, `env_steps`, `dropped`, `share`; in order of actors.
    """
    sent = production[production["sent"]].groupby("actor")["env_steps"].sum()
    lost = dropped.groupby("actor")["env_steps"].sum().reindex(sent.index, fill_value=0)
    return _shares(pd.DataFrame({"env_steps": sent, "dropped": lost}).reset_index(), "env_steps")


def dropped_by_length(
    production: pd.DataFrame, episodes: pd.DataFrame, dropped: pd.DataFrame
) -> pd.DataFrame:
    """Finished episodes by length, and how many of them ended in a dropped rollout.

    Args:
        production: Rows of `Production`.
        episodes: Rows of `Episode`. One ended in the rollout of its actor that was complete next.
        dropped: From `dropped_rollouts`.

    Returns:
        `shortest` and `longest` of the class in env steps, `episodes`, `dropped`, `share`.
    """
    columns = ["shortest", "longest", "episodes", "dropped", "share"]
    if episodes.empty or production.empty:
        return pd.DataFrame(columns=columns)
    ended_in = pd.merge_asof(
        episodes.sort_values("t_s"),
        production[["t_s", "actor", "epoch", "sequence", "sent"]].sort_values("t_s"),
        on="t_s",
        by="actor",
        direction="forward",
    ).dropna(subset=["sequence"])
    ended_in = ended_in[ended_in["sent"].astype(bool)]
    if ended_in.empty:
        return pd.DataFrame(columns=columns)
    keys = ["actor", "epoch", "sequence"]
    lost = pd.MultiIndex.from_frame(dropped[keys])
    is_dropped = pd.MultiIndex.from_frame(ended_in[keys].astype("int64")).isin(lost)
    length = ended_in["length_env_steps"]
    edges = np.unique(np.quantile(length, np.linspace(0, 1, LENGTH_CLASSES + 1)))
    place = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, max(len(edges) - 2, 0))
    grouped = pd.DataFrame({"length": length.to_numpy(), "lost": is_dropped}).groupby(place)
    table = pd.DataFrame(
        {
            "shortest": grouped["length"].min(),
            "longest": grouped["length"].max(),
            "episodes": grouped["lost"].count(),
            "dropped": grouped["lost"].sum(),
        }
    ).reset_index(drop=True)
    return _shares(table, "episodes")


def _shares(table: pd.DataFrame, of: str) -> pd.DataFrame:
    return table.assign(share=table["dropped"] / table[of].clip(lower=1))


def uneven(table: pd.DataFrame, of: str) -> pd.Series[bool]:
    """The rows of a table whose share is far above that of all together."""
    overall = table["dropped"].sum() / max(float(table[of].sum()), 1.0)
    return table["share"] > UNEVEN * overall
