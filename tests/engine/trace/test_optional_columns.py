"""A table keeps every row, with or without the fields of a team, in little memory."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from engine.trace.columns import Table, mappings_of, optional_of
from engine.trace.records import Episode, Production

NAMES = st.sampled_from(["a", "b", "c"])
RETURNS = st.one_of(st.just(UNSET), st.dictionaries(NAMES, st.floats(-9, 9), min_size=1))


def episode(number: int, **returns: object) -> Episode:
    row = Episode(t_s=number, actor=0, episode_return=0.0, length_env_steps=1, version=0)
    return msgspec.structs.replace(row, **returns)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(RETURNS, RETURNS), max_size=8))
def test_a_table_gives_back_what_it_took(rows: list[tuple[object, object]]) -> None:
    written = [
        episode(number, agent_returns=agents, policy_returns=policies)
        for number, (agents, policies) in enumerate(rows)
    ]
    table = Table(Episode)
    for row in written:
        table.append(row)
    assert list(table) == written
    assert not written or table[-1] == written[-1]
    column = mappings_of(table, Episode, "agent_returns")
    for name in column.names:
        wanted = [
            row.agent_returns.get(name, math.nan) if row.agent_returns else math.nan
            for row in written
        ]
        assert np.array_equal(column.series(name, len(written)), wanted, equal_nan=True)


def test_numbers_are_kept_where_there_are_any() -> None:
    table = Table(Production)
    steps = (UNSET, UNSET, 7, UNSET, 0, UNSET)
    for number, agent_steps in enumerate(steps):
        table.append(
            Production(
                t_s=number, actor=0, epoch=0, sequence=number, env_steps=4, env_steps_total=4,
                version_min=0, version_max=0, collect_s=0.0, wait_s=0.0, agent_steps=agent_steps,
            )
        )  # fmt: skip
    assert [row.agent_steps for row in table] == list(steps)
    field = next(f for f in msgspec.structs.fields(Production) if f.name == "agent_steps")
    for rows in (table, list(table)):
        found = optional_of(rows, field).series(len(rows))  # type: ignore[call-arg]
        assert np.array_equal(found, [math.nan, math.nan, 7, math.nan, 0, math.nan], equal_nan=True)
