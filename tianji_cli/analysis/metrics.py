"""What algorithms report of their updates, over time: losses, entropy, divergence, step sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.trace.records import ColumnDoc
from tianji_cli.analysis.tables import METRIC_PREFIX
from tianji_cli.analysis.throughput import bin_edges_s, nice_width_s

MAX_BINS = 80
"""A small plot is three hundred pixels wide."""
LARGEST = 1e100
"""Larger values are drawn as this one; a plot computes with sums and products of them."""


@dataclass(frozen=True)
class MetricDoc:
    """A metric of the algorithms that come with TianJi.

    Attributes:
        title: What figures call it.
        unit: Empty where the number has none.
        meaning: In one line.
    """

    title: str
    unit: str
    meaning: str


KNOWN: dict[str, MetricDoc] = {
    "loss": MetricDoc("loss", "", "the loss that the update minimises, mean over the batch"),
    "policy_loss": MetricDoc("policy loss", "", "surrogate objective of the policy, negated"),
    "value_loss": MetricDoc("value loss", "", "mean squared error of the value estimates"),
    "td_error": MetricDoc("TD error", "", "mean absolute error of temporal differences"),
    "q_mean": MetricDoc("mean Q", "", "mean value of the actions taken"),
    "entropy": MetricDoc("entropy", "nats", "mean entropy of the policy"),
    "approximate_kl": MetricDoc(
        "KL divergence",
        "nats",
        "of the acting policy (of PPO with `decoupled`, the one before the update) from the trained"
        " one, estimated",
    ),
    "rho_mean": MetricDoc("importance ratio", "", "mean clipped ratio of the two policies"),
    "ess": MetricDoc("effective sample size", "", "of the importance ratios, share of the batch"),
    "clip_fraction": MetricDoc("clip fraction", "", "share of the ratios that the loss limits"),
    "ratio_max": MetricDoc("largest ratio", "", "of the importance ratios of the batch"),
    "behaviour_kl": MetricDoc(
        "KL from behaviour", "nats", "of the policy that acted from the one that learnt, estimated"
    ),
    "log_ratio_first": MetricDoc(
        "first log-ratio", "nats", "mean absolute, before the first optimiser step of the batch"
    ),
    "rate_factor": MetricDoc("rate factor", "", "of the learning rate, by effective sample size"),
    "epsilon": MetricDoc("epsilon", "", "share of random actions"),
    "gradient_norm": MetricDoc("gradient norm", "", "before clipping, mean over the steps"),
    "learning_rate": MetricDoc("learning rate", "", "of the last optimiser step of the batch"),
}
"""By name, in the order in which figures show them."""


def doc_of(name: str) -> MetricDoc:
    """What is known of a metric; one of the user's own algorithm is called by its name."""
    return KNOWN.get(name) or MetricDoc(
        name.replace("_", " "), "", "reported by the algorithm, mean over the batch"
    )


def describe_columns(frame: pd.DataFrame, docs: Mapping[str, ColumnDoc]) -> pd.DataFrame:
    """What the columns of a trace table are, its metrics included.

    Args:
        frame: From `to_frame`.
        docs: Of the fields of its rows.

    Returns:
        By column: `dtype`, `unit`, `meaning`.
    """
    rows = {}
    for column in frame.columns:
        metric = doc_of(column.removeprefix(METRIC_PREFIX))
        field, _, _ = column.partition(".")
        unit, meaning = docs.get(field) or (metric.unit, metric.meaning)
        rows[column] = (str(frame[column].dtype), unit, meaning)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["dtype", "unit", "meaning"])


def metrics_over_time(consumption: pd.DataFrame, end_s: float) -> dict[str, pd.DataFrame]:
    """Each metric per time bin; per batch as long as there are at most 80 of them.

    Args:
        consumption: Rows of `Consumption`, of all learners.
        end_s: End of the run, in seconds since training started.

    Returns:
        By name, known ones first: `t_s`, and `mean`, `low` and `high` over the batches of the bin.
        Bins without a value are left out, and so are metrics without any.
    """
    names = [
        column.removeprefix(METRIC_PREFIX)
        for column in consumption.columns
        if column.startswith(METRIC_PREFIX)
    ]
    position = _bins(consumption["t_s"], end_s)
    found = {
        name: _binned(consumption["t_s"], consumption[f"{METRIC_PREFIX}{name}"], position)
        for name in [*(name for name in KNOWN if name in names), *sorted(set(names) - set(KNOWN))]
    }
    return {name: frame for name, frame in found.items() if len(frame)}


def _bins(t_s: pd.Series[float], end_s: float) -> np.ndarray:
    if len(t_s) <= MAX_BINS:
        return np.arange(len(t_s))
    edges = bin_edges_s(end_s, nice_width_s(end_s / MAX_BINS))
    return np.digitize(t_s, edges[1:-1])


def _binned(t_s: pd.Series[float], values: pd.Series[float], position: np.ndarray) -> pd.DataFrame:
    is_there = values.notna().to_numpy()
    kept = values[is_there].clip(-LARGEST, LARGEST)
    bins = kept.groupby(position[is_there])
    return pd.DataFrame(
        {
            "t_s": t_s[is_there].groupby(position[is_there]).mean(),
            "mean": bins.mean(),
            "low": bins.min(),
            "high": bins.max(),
        }
    ).reset_index(drop=True)
