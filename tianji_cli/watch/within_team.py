"""Learning curves of the policies and agents of a team, in bounded memory (pure)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from engine.trace.records import Episode
from tianji_cli.watch.roles import shown
from tianji_cli.watch.tallies import ReturnBins
from tianji_cli.watch.views import NamedReturns

MAX_NAMED = 12
"""Agents and policies whose curves are kept."""
MAX_CURVES = 6
"""Of these in one picture."""
Kind: TypeAlias = Literal["policy", "agent"]


class WithinTeam:
    """Adds up the returns of policies and agents.

    Args:
        window: Episodes in the moving mean.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._bins: dict[tuple[Kind, str], ReturnBins] = {}

    def add(self, row: Episode) -> None:
        """Adds an episode; one of a single agent says nothing here."""
        if not row.agent_returns:
            return
        named: list[tuple[Kind, str, float]] = [
            *(("policy", name, value) for name, value in (row.policy_returns or {}).items()),
            *(("agent", name, value) for name, value in row.agent_returns.items()),
        ]
        for kind, name, value in named:
            if (kind, name) not in self._bins:
                if len(self._bins) >= MAX_NAMED:
                    return
                self._bins[kind, name] = ReturnBins(self._window)
            self._bins[kind, name].add(row.t_s, value, row.env_steps_collected)

    def views(self) -> list[NamedReturns]:
        """The first curves; of policies those that say more than an agent's or the team's does."""
        policies, agents = (
            [name for kind, name in self._bins if kind == wanted] for wanted in ("policy", "agent")
        )
        told = agents if len(policies) > 1 else policies
        curves = [
            (kind, name, bins.curve())
            for (kind, name), bins in self._bins.items()
            if kind == "agent" or name not in told
        ]
        return [
            NamedReturns(
                name=shown(name),
                kind=kind,
                t_s=[one.t_s for one in bins],
                mean=[one.mean for one in bins],
            )
            for kind, name, bins in curves[:MAX_CURVES]
        ]
