"""The names of a team's agents, here and in the environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.errors import ConfigError
from engine.spaces.team import agent_name


class AgentIds:
    """What an environment calls its agents, and what they are called here.

    A name is the text of what the environment has, with _ for the characters that have a meaning in
    names of fields.

    Args:
        possible: All agents that can ever be there, in order.
        env_id: For errors.

    Attributes:
        names: In order.
        by_name: What the environment has for a name.
        numbers: The number of an agent.

    Raises:
        ConfigError: There are none, or two have the same name.
    """

    def __init__(self, possible: Iterable[Any], env_id: str) -> None:
        self._possible = list(possible)
        self._env_id = env_id
        self.names = [agent_name(agent) for agent in self._possible]
        self.by_name = dict(zip(self.names, self._possible, strict=True))
        self.numbers = {agent: number for number, agent in enumerate(self._possible)}
        if not self.names:
            raise ConfigError(
                f"{env_id} does not say who its agents can be",
                where="env.id",
                fix="possible_agents has to list all that can ever be there",
            )
        if len(self.by_name) < len(self.names):
            raise ConfigError(
                f"the agents of {env_id} have equal names: {', '.join(self.names)}", where="env.id"
            )
