"""Trace rows as data frames."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

import msgspec
import numpy as np
import pandas as pd

from engine.trace.columns import (
    OptionalColumn,
    column_of,
    optional_of,
    optional_type,
    type_name,
)
from engine.trace.optional_columns import OptionalMappings
from engine.trace.records import Consumption, Record

METRIC_PREFIX = "metric."
MAX_METRICS = 100
"""An algorithm has a dozen; a table of batches that each name others would be square."""
MAX_NAMES = 1_000_000
_DTYPES = {"int": "int64", "float": "float64", "bool": "bool"}


def to_frame(rows: Sequence[Record], record_type: type[Record]) -> pd.DataFrame:
    """One column per field of the record, in order of `t_s` (ties as written).

    Actors on several hosts report through one coordinator, so rows arrive almost, not exactly, in
    order of time. The index keeps the order of arrival. `Consumption.metrics` becomes one column
    `metric.<name>` each, NaN where a batch did not report it; `Staleness.steps_by_lag` is left to
    `staleness.lag_counts`. Fields that only the rows of a team have are left out where there are
    none; numbers by name become one column each, such as `agent_returns.<agent>`.

    Args:
        rows: Rows of one table.
        record_type: Their type; gives the columns (and their dtypes) when there are no rows.
    """
    columns: dict[str, pd.Series] = {}
    for field in msgspec.structs.fields(record_type):
        if field.name in ("metrics", "steps_by_lag"):
            continue
        if optional_type(field) is not None:
            columns |= _optional(optional_of(rows, field), field.name, len(rows))
            continue
        dtype = _DTYPES.get(type_name(field), "object")
        columns[field.name] = pd.Series(_plain(column_of(rows, field.name)), dtype=dtype)
    frame = pd.DataFrame(columns)
    metrics = _metrics(rows) if record_type is Consumption else []
    if any(metrics):
        frame = frame.join(pd.DataFrame(metrics, dtype="float64").add_prefix(METRIC_PREFIX))
    return frame.sort_values("t_s", kind="stable")


def _optional(column: OptionalColumn, name: str, num_rows: int) -> dict[str, pd.Series]:
    """The columns of a field that rows can be without; at most one for each of the first names."""
    if not isinstance(column, OptionalMappings):
        values = column.series(num_rows)
        return {} if values is None else {name: pd.Series(values)}
    return {
        f"{name}.{key}": pd.Series(column.series(key, num_rows))
        for key in column.names[:MAX_METRICS]
    }


def _metrics(rows: Sequence[Record]) -> list[dict[str, float]]:
    """Of each batch, the metrics that are among the first that the run had."""
    batches = [row.metrics for row in rows if isinstance(row, Consumption)]
    names = dict.fromkeys(itertools.islice(itertools.chain.from_iterable(batches), MAX_NAMES))
    kept = list(itertools.islice(names, MAX_METRICS))
    return [{name: metrics[name] for name in kept if name in metrics} for metrics in batches]


def _plain(column: Sequence[object]) -> Sequence[object] | np.ndarray:
    """Arrays as NumPy arrays, so that a data frame does not make an object of each number."""
    return np.asarray(column) if isinstance(column, array) else column
