"""What all copies of a team return at one moment, written copy by copy and checked on the way.

NumPy would broadcast an array of a wrong shape silently, and an agent that nobody has declared
would be lost: both are refused here, naming the copy and the agent, and so is an agent that is
there without an observation or a reward, since zeros would stand for them. Values of observations
are checked later, all copies at once (`engine.envs.checked`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from gymnasium import spaces

from engine.envs.masks import flat_mask
from engine.envs.teams.agent_ids import AgentIds
from engine.envs.teams.returned import ByAgent, Occasion, of_step, reward_of
from engine.envs.teams.vector import Array, Bools, TeamVectorEnv, observation_of
from engine.errors import RunFailedError
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, leaf_values, leaves_of, structure_of
from engine.spaces.observations import MASK, OBSERVATION


@dataclass(frozen=True)
class _AgentLayout:
    """How the values of one agent are kept.

    Attributes:
        name: Of the agent.
        observation: Space, without a mask.
        absent: Value of each leaf while it is not there: zeros, or the first choice.
        leaf_names: For errors.
        action: Space.
        choices: Its columns of a mask.
        first_choices: Where each of its choices to make begins in these.
    """

    name: str
    observation: AnySpace
    absent: tuple[Array, ...]
    leaf_names: tuple[str, ...]
    action: AnySpace
    choices: slice
    first_choices: tuple[int, ...]


def _agent_layout(env: TeamVectorEnv, name: str, choices: slice) -> _AgentLayout:
    space = env.agent_observations[name]
    leaves = leaves_of(space, OBSERVATION)
    return _AgentLayout(
        name,
        space,
        tuple(absent_value(leaf.space) for leaf in leaves),
        tuple(_leaf_name(leaf.path) for leaf in leaves),
        env.agent_actions[name],
        choices,
        tuple(accumulate(parts_of(env.agent_actions[name]).nvec[:-1], initial=0)),
    )


def _leaf_name(path: Sequence[str]) -> str:
    """`observation`, or `observation camera.left`; the key beside a mask says nothing more."""
    inner = path[1:] if path[:1] == (OBSERVATION,) else path
    return " ".join((OBSERVATION, ".".join(inner))).rstrip()


class TeamLayout:
    """What is the same at every moment.

    Args:
        env: Whose moments they are.
        ids: Its agents.
        env_id: For errors.
    """

    def __init__(self, env: TeamVectorEnv, ids: AgentIds, env_id: str) -> None:
        sizes = [parts_of(action).num_logits for action in env.agent_actions.values()]
        firsts = accumulate(sizes, initial=0)
        self.agents = [
            _agent_layout(env, name, slice(first, first + size))
            for name, size, first in zip(ids.names, sizes, firsts, strict=False)
        ]
        self.ids, self.env_id = ids, env_id
        self.num_envs, self.num_choices = env.num_envs, sum(sizes)
        self.state_space = env.state_space
        self.has_mask_key = env.has_action_mask


class TeamMoment:
    """All copies after a reset or a step; whatever is not written is as if nobody were there.

    Args:
        layout: Of all moments.
        reads_infos: Whether masks are in the agents' infos.
        num_steps: Steps of the vector so far, for errors.

    Attributes:
        present: Who chooses an action now, bool [B, agents].
        reward: Of each agent for the step before, float32 [B, agents].
        terminated: Whose own episode has ended for good, bool [B, agents].
        team_terminated, team_truncated: How the episode of each copy has ended, bool [B].
    """

    def __init__(self, layout: TeamLayout, reads_infos: bool, num_steps: int) -> None:
        self._layout, self._reads_infos, self._num_steps = layout, reads_infos, num_steps
        size = (layout.num_envs, len(layout.agents))
        self.present: Bools = np.zeros(size, np.bool_)
        self.reward: Array = np.zeros(size, np.float32)
        self.terminated: Bools = np.zeros(size, np.bool_)
        self.team_terminated: Bools = np.zeros(size[0], np.bool_)
        self.team_truncated: Bools = np.zeros(size[0], np.bool_)
        self._leaves = [
            [np.repeat(value[None], size[0], axis=0) for value in agent.absent]
            for agent in layout.agents
        ]
        self._mask: Bools | None = None
        if layout.has_mask_key or reads_infos:
            self._mask = np.ones((size[0], layout.num_choices), np.bool_)
        self._state: Array | None = None
        if layout.state_space is not None:
            space = layout.state_space
            self._state = np.zeros((size[0], *space.shape), space.dtype)

    def begin(self, copy: int, agents: Iterable[Any], observed: ByAgent, infos: ByAgent) -> None:
        """Writes what a reset of a copy has returned, with its agents after it."""
        self._mark_present(copy, agents)
        self._write(copy, observed, infos)

    def enter(self, copy: int, agents: Iterable[Any], result: object, before: Bools) -> None:
        """Writes what a step of a copy has returned: observations, rewards, terminations,
        truncations and infos; with its agents after it, and who was present before, [agents]."""
        occasion = self._occasion(copy)
        observed, rewards, terminations, truncations, infos = of_step(result, occasion)
        self._mark_present(copy, agents)
        row, present = self.terminated[copy], self.present[copy]
        for agent, reward in rewards.items():
            number = self._number_of(copy, agent)
            name = self._layout.agents[number].name
            self.reward[copy, number] = reward_of(name, reward, occasion)
        self._refuse_missing(copy, before, rewards, "was there and has no reward")
        for agent, has_ended in terminations.items():
            row[self._number_of(copy, agent)] = has_ended
        cut_short = np.zeros_like(present)
        for agent, has_ended in truncations.items():
            cut_short[self._number_of(copy, agent)] = has_ended
        cut_short &= ~row
        present &= ~(row | cut_short)
        if not present.any():
            is_cut = bool(cut_short.any()) or not row.any()
            self.team_truncated[copy], self.team_terminated[copy] = is_cut, not is_cut
            present |= cut_short  # what they would have gone on to earn counts
        self._write(copy, observed, infos)

    def put_state(self, copy: int, state: object) -> None:
        """Writes the central state of a copy."""
        assert self._state is not None
        self._put(copy, self._state, state, "the central state")

    @property
    def observation(self) -> dict[str, Any]:
        """The observation of all copies."""
        observed = {
            agent.name: structure_of(agent.observation, iter(leaves))
            for agent, leaves in zip(self._layout.agents, self._leaves, strict=True)
        }
        mask = self._mask if self._layout.has_mask_key else None
        return observation_of(
            observed, self.reward, self.present, self.terminated, self._state, mask
        )

    @property
    def info(self) -> dict[str, Any]:
        """The masks, if they come from infos."""
        return {MASK: self._mask} if self._reads_infos else {}

    def _mark_present(self, copy: int, agents: Iterable[Any]) -> None:
        for agent in agents:
            self.present[copy, self._number_of(copy, agent)] = True

    def _number_of(self, copy: int, agent: object) -> int:
        number = self._layout.ids.numbers.get(agent)
        if number is None:
            names = ", ".join(self._layout.ids.names)
            raise self._refused(copy, f"there is an agent {agent!r}, which is none of {names}")
        return number

    def _refuse_missing(self, copy: int, needed: Bools, given: ByAgent, fault: str) -> None:
        """Refuses an agent that needs a value, [agents], and has been given none."""
        ids = self._layout.ids
        for number in np.flatnonzero(needed):
            name = ids.names[number]
            if ids.by_name[name] not in given:
                raise self._refused(copy, f"{name} {fault}")

    def _write(self, copy: int, observed: ByAgent, infos: ByAgent) -> None:
        needed = self.present[copy]
        self._refuse_missing(copy, needed, observed, f"is there and has no {OBSERVATION}")
        for agent, given in observed.items():
            number = self._number_of(copy, agent)
            layout = self._layout.agents[number]
            try:
                values = leaf_values(layout.observation, given)
            except (LookupError, TypeError, ValueError) as error:
                raise self._refused(
                    copy,
                    f"the observation of {layout.name} is {given!r:.60}; its space is"
                    f" {layout.observation}",
                ) from error
            targets = zip(self._leaves[number], layout.leaf_names, values, strict=True)
            for target, name, value in targets:
                self._put(copy, target, value, f"the {name} of {layout.name}")
            if self._layout.has_mask_key and isinstance(given, Mapping) and MASK in given:
                self._put_mask(copy, number, given[MASK])
        for agent, info in infos.items() if self._reads_infos else ():
            if info and MASK in info:
                self._put_mask(copy, self._number_of(copy, agent), info[MASK])

    def _put(self, copy: int, target: Array, value: object, what: str) -> None:
        """Writes one array [B, ...] for one copy; refuses another shape or kind of number."""
        array = np.asarray(value)
        is_sound = array.shape == target.shape[1:] and np.can_cast(
            array.dtype, target.dtype, "same_kind"
        )
        if not is_sound:
            raise self._refused(
                copy,
                f"{what} has shape {array.shape} and dtype {array.dtype}; its space declares"
                f" {target.shape[1:]} and {target.dtype}",
            )
        target[copy] = array

    def _put_mask(self, copy: int, number: int, given: object) -> None:
        """The valid choices of an agent that chooses now."""
        if given is None or self._mask is None or not self.present[copy, number]:
            return
        layout = self._layout.agents[number]
        mask = flat_mask(layout.action, given, None)
        size = layout.choices.stop - layout.choices.start
        if mask.size != size:
            raise self._refused(
                copy, f"the {MASK} of {layout.name} has {mask.size} entries; expected {size}"
            )
        has_ended = self.team_terminated[copy] or self.team_truncated[copy]
        valid = mask != 0
        if size and not (has_ended or np.logical_or.reduceat(valid, layout.first_choices).all()):
            fix = "it needs a 1 for each choice to make; docs/extending.md shows how"
            what = f"the {MASK} of {layout.name} has no valid choice"
            raise self._occasion(copy).refused(what, fix)
        self._mask[copy, layout.choices] = valid

    def _occasion(self, copy: int) -> Occasion:
        return Occasion(self._layout.env_id, copy, self._num_steps)

    def _refused(self, copy: int, what: str) -> RunFailedError:
        return self._occasion(copy).refused(what)


def absent_value(space: spaces.Space[Any]) -> Array:
    """A leaf's value for somebody who is not there: zeros, or the first choice where 0 is none."""
    start = getattr(space, "start", 0)
    return np.broadcast_to(np.asarray(start, space.dtype), space.shape or ()).copy()
