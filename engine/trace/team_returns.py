"""Whose return it is: the team's, an agent's or a policy's."""

from __future__ import annotations

import math

from engine.trace.records import Episode, Evaluation


def return_of(row: Episode | Evaluation, name: str | None) -> float:
    """The return, or mean return, that a row has of the named agent or policy; NaN if it has none.

    Args:
        row: Of training or of an evaluation.
        name: Of an agent or a policy; None: the whole environment's.
    """
    if name is None:
        return row.episode_return if isinstance(row, Episode) else row.return_mean
    for returns in (row.agent_returns, row.policy_returns):
        if returns and name in returns:
            return returns[name]
    return math.nan
