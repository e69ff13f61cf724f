"""Observations and actions of several agents by name, as PettingZoo's parallel API has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from engine.envs.masks import flat_mask
from engine.envs.teams.moment import absent_value
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, Structure, leaf_values, leaves_of, structure_of
from engine.spaces.observations import MASK, OBSERVATION, has_mask_key
from engine.spaces.team import (
    AGENTS,
    CENTRAL_STATE,
    PRESENT,
    REWARD,
    TEAM,
    TERMINATED,
    agent_name,
)
from engine.trained.load import Trained

Array: TypeAlias = npt.NDArray[Any]
Masks: TypeAlias = Mapping[Any, Any]


class AgentValues:
    """Puts together what a team's policy is given, and takes apart what it chooses.

    Args:
        trained: Of a team.

    Attributes:
        observation_space: What each agent observes, by its name, without a mask.
    """

    def __init__(self, trained: Trained) -> None:
        assert trained.spaces.team is not None
        observed = trained.spaces.observation
        assert isinstance(observed, spaces.Dict)
        agents = observed[AGENTS]
        assert isinstance(agents, spaces.Dict)
        assert isinstance(trained.action_space, spaces.Dict)
        self._names = trained.spaces.team.agents
        self._spaces: dict[str, AnySpace] = {name: agents[name] for name in self._names}
        self._state = trained.spaces.team.state
        self._actions = trained.action_space
        self._has_masks = trained.spaces.has_action_mask
        self._mask_is_observed = has_mask_key(trained.observation_space)
        self.observation_space = spaces.Dict(OrderedDict(self._spaces))

    def together(
        self, observed: Structure, masks: npt.ArrayLike | Masks | None
    ) -> tuple[Structure, npt.NDArray[np.bool_] | None]:
        """The observation of the team, and a mask if it is not part of that.

        Args:
            observed: By agent, of those that are there; each a value of its space, or of a batch.
            masks: Valid choices by agent, if they are not beside what it observes.

        Raises:
            ValueError: Nobody is there, or somebody is whom the policy does not know; or masks are
                not as said, or not taken.
        """
        if masks is not None and not isinstance(masks, Mapping):
            raise ValueError("the action_mask of a team is one for each agent, by its name")
        known = {self._name_of(agent): agent for agent in self._given(observed)}
        lead = self._lead(next(iter(known)), observed)
        present = np.zeros((*lead, len(self._names)), np.int8)
        agents: dict[str, Structure] = {}
        for number, name in enumerate(self._names):
            if name in known:
                present[..., number] = 1
                agents[name] = observed[known[name]]
            else:
                agents[name] = self._absent(name, lead)
        nothing = np.zeros(present.shape, np.float32)
        of_team = {REWARD: nothing, PRESENT: present, TERMINATED: nothing.astype(np.int8)}
        joint: dict[str, Any] = {AGENTS: agents, TEAM: of_team}
        if self._state is not None:
            joint[CENTRAL_STATE] = np.zeros((*lead, *self._state.shape), self._state.dtype)
        if masks is not None and not self._has_masks:
            raise ValueError("the policy does not take an action_mask")
        if not self._has_masks:
            return joint, None
        mask = self._mask(known, observed, masks, lead)
        if not self._mask_is_observed:
            return joint, mask
        joint[MASK] = mask.astype(np.int8)
        return joint, None

    def apart(self, action: Structure, observed: Structure) -> dict[Any, Structure]:
        """The actions of those that are there, by the names that they were given with."""
        return {agent: action[self._name_of(agent)] for agent in observed}

    def _given(self, observed: Structure) -> Mapping[Any, Any]:
        if not isinstance(observed, Mapping) or not observed:
            raise ValueError(
                f"the observation is no value by agent: {observed!r:.60}; the agents are"
                f" {', '.join(self._names)}"
            )
        return observed

    def _name_of(self, agent: object) -> str:
        name = agent_name(agent)
        if name not in self._spaces:
            raise ValueError(f"no agent is called {agent!r}; they are {', '.join(self._names)}")
        return name

    def _lead(self, name: str, observed: Mapping[Any, Any]) -> tuple[int, ...]:
        """The axis of a batch, if the first agent's observation has one."""
        agent = next(iter(observed))
        leaf = leaves_of(self._spaces[name], OBSERVATION)[0].space
        try:
            shape: tuple[int, ...] = np.shape(leaf_values(self._spaces[name], observed[agent])[0])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"what {agent!r} observes is no value of {self._spaces[name]}: {error!r}"
            ) from error
        return shape[: len(shape) - len(leaf.shape or ())]

    def _absent(self, name: str, lead: tuple[int, ...]) -> Structure:
        """What is observed for somebody who is not there."""
        space = self._spaces[name]
        values = [absent_value(leaf.space) for leaf in leaves_of(space, OBSERVATION)]
        rows = (np.broadcast_to(value, (*lead, *value.shape)).copy() for value in values)
        return structure_of(space, rows)

    def _mask(
        self,
        known: Mapping[str, Any],
        observed: Mapping[Any, Any],
        masks: Masks | None,
        lead: tuple[int, ...],
    ) -> npt.NDArray[np.bool_]:
        """The valid choices of all agents, one after the other, [..., choices]; whoever gives none
        may do anything."""
        parts = []
        for name in self._names:
            space = self._actions[name]
            size, given = parts_of(space).num_logits, None
            if name in known:
                agent = known[name]
                seen = observed[agent]
                given = seen.get(MASK) if isinstance(seen, Mapping) else None
                given = given if masks is None else masks.get(agent, given)
            if given is None:
                parts.append(np.ones((*lead, size), np.bool_))
            elif lead:
                parts.append(np.asarray(given).reshape(*lead, -1) != 0)
            else:
                parts.append(flat_mask(space, given, None) != 0)
            if parts[-1].shape[-1] != size:
                raise ValueError(
                    f"the mask of {name} has {parts[-1].shape[-1]} entries; expected {size}"
                )
        return np.concatenate(parts, axis=-1)
