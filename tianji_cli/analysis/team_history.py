"""Checks that what tables tell of the agents of a team adds up to what they tell of the team."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from engine.trace.columns import column_of, mappings_of
from engine.trace.optional_columns import OptionalMappings
from engine.trace.records import Episode, Evaluation, Production
from tianji_cli.analysis.history import Disagreement, broken
from tianji_cli.analysis.run import RunData
from tianji_cli.analysis.teams import agent_steps_in

TOLERANCE = 1e-4
"""Relative to the agents' returns: their rewards are float32, those of the team are not, and those
of one episode can nearly cancel each other."""


def check_team(run: RunData) -> Iterator[Disagreement]:
    """In each episode and evaluation the agents' returns add up to the team's, and so do those of
    policies; no rollout has more agent steps than its env steps allow."""
    yield from _check_sums(Episode, run.episodes, "episode_return")
    yield from _check_sums(Evaluation, run.evaluations, "return_mean")
    steps = agent_steps_in(run.production)
    if steps is None or not run.episodes:
        return
    num_agents = len(mappings_of(run.episodes, Episode, "agent_returns").names)
    most = num_agents * np.asarray(column_of(run.production, "env_steps"), np.float64)
    for index in np.flatnonzero((steps < 0) | (steps > most)):  # NaN, where unknown, is neither
        rule = ("agent_steps of those that are there", int(steps[index]), int(most[index]), False)
        yield from broken(Production, int(index) + 1, rule)


def _check_sums(
    kind: type[Episode | Evaluation], rows: Sequence[Episode] | Sequence[Evaluation], whole: str
) -> Iterator[Disagreement]:
    agents = mappings_of(rows, kind, "agent_returns")
    if not agents.names:
        return
    policies = mappings_of(rows, kind, "policy_returns")
    team = np.asarray(column_of(rows, whole), np.float64)
    by_agent, size = _sums(agents, len(rows))
    by_policy, _ = _sums(policies, len(rows))
    for name, sums in (("agent_returns", by_agent), ("policy_returns", by_policy)):
        wrong = abs(sums - team) > TOLERANCE * (1.0 + size)
        for index in np.flatnonzero(wrong):
            rule = (f"{name} add up to {whole}", float(sums[index]), float(team[index]), False)
            yield from broken(kind, int(index) + 1, rule)


def _sums(column: OptionalMappings, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Over all names: of the values, and of their sizes; [rows]."""
    total, size = np.zeros(num_rows), np.zeros(num_rows)
    for name in column.names:
        values = column.series(name, num_rows)
        total += values
        size += abs(values)
    return total, size
