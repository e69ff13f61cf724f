"""Trace rows as data frames."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pandas as pd

from engine.trace.records import Consumption, Record

METRIC_PREFIX = "metric."
_DTYPES = {"int": "int64", "float": "float64", "bool": "bool"}


def to_frame(rows: Sequence[Record], record_type: type[Record]) -> pd.DataFrame:
    """One column per field of the record, in order of `t_s` (ties as written).

    Actors on several hosts report through one coordinator, so rows arrive almost, not exactly, in
    order of time. The index keeps the order of arrival. `Consumption.metrics` becomes one column
    `metric.<name>` each, NaN where a batch did not report it; `Staleness.steps_by_lag` is left to
    `staleness.lag_counts`.

    Args:
        rows: Rows of one table.
        record_type: Their type; gives the columns (and their dtypes) when there are no rows.
    """
    columns: dict[str, pd.Series] = {}
    for field in msgspec.structs.fields(record_type):
        if field.name in ("metrics", "steps_by_lag"):
            continue
        dtype = _DTYPES.get(getattr(field.type, "__name__", ""), "object")
        columns[field.name] = pd.Series([getattr(row, field.name) for row in rows], dtype=dtype)
    frame = pd.DataFrame(columns)
    metrics = [row.metrics for row in rows if isinstance(row, Consumption)]
    if any(metrics):
        frame = frame.join(pd.DataFrame(metrics, dtype="float64").add_prefix(METRIC_PREFIX))
    return frame.sort_values("t_s", kind="stable")
