"""The algorithms, and what each can do: found out by making them. Imports PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.errors import ConfigError
from engine.spec import CoreSpec, NetworkSpec
from tianji_cli.reference.docstrings import class_paragraphs
from tianji_cli.reference.rows import ListedRow

if TYPE_CHECKING:
    from gymnasium import Space

    from engine.algorithms.base import Algorithm, Spaces
    from engine.algorithms.registry import Entry

NUM_KINDS = 4
"""Kinds of action spaces that are tried."""
_WITH_CORE = NetworkSpec(core=CoreSpec(name="gru", size=8))


class AlgorithmRow(ListedRow, frozen=True, kw_only=True):
    """An algorithm.

    Attributes:
        name: For `algorithm.name`.
        agents: `one`, or `several` if it is for teams.
        about: The first line of its hyperparameters' docstring.
        samples: `queue`: each rollout is learnt from once. `replay`: from a store.
        actions: Kinds of action spaces that it takes.
        has_memory: Whether it takes `network.core`.
        corrects_staleness: Whether it needs no bound on lag.
    """

    name: str
    agents: str
    about: str
    samples: str
    actions: tuple[str, ...]
    has_memory: bool
    corrects_staleness: bool

    headings = ("algorithm", "agents", "samples", "memory", "actions", "about")

    @property
    def cells(self) -> tuple[str, ...]:
        memory = "yes" if self.has_memory else "no"
        actions = "any" if len(self.actions) == NUM_KINDS else ", ".join(self.actions)
        return self.name, self.agents, self.samples, memory, actions, self.about


def algorithms() -> list[AlgorithmRow]:
    """All that are registered, in the order in which they were."""
    from engine.algorithms.registry import ALGORITHMS

    return [_row(name, entry) for name, entry in ALGORITHMS.items()]


def _row(name: str, entry: Entry) -> AlgorithmRow:
    kinds = {kind: (_spaces(space), _team(space)) for kind, space in _kinds_of_actions().items()}
    plain = NetworkSpec()
    made = {kind: [_made(entry, spaces, plain) for spaces in both] for kind, both in kinds.items()}
    taken = {kind: both for kind, both in made.items() if any(both)}
    assert taken, f"{name} takes no action at all"
    kind, (for_one, for_team) = next(iter(taken.items()))
    algorithm = for_one or for_team
    assert algorithm is not None
    samples = algorithm.samples()
    with_core = _made(entry, kinds[kind][for_one is None], _WITH_CORE)
    return AlgorithmRow(
        name=name,
        agents="several" if for_one is None else "one",
        about=class_paragraphs(entry.config)[0],
        samples=samples.kind,
        actions=tuple(taken),
        has_memory=with_core is not None and _remembers(with_core),
        corrects_staleness=samples.corrects_staleness,
    )


def _remembers(algorithm: Algorithm) -> bool:
    """Whether it uses the memory of its network."""
    return any(field.name == "state" for field in algorithm.samples().fields)


def _made(entry: Entry, spaces: Spaces, network: NetworkSpec) -> Algorithm | None:
    """The algorithm with its own defaults; None if it refuses."""
    try:
        return entry.make(entry.config(), network, spaces)
    except ConfigError:
        return None


def _spaces(action: Space[object]) -> Spaces:
    """Of an environment for one agent."""
    import numpy as np
    from gymnasium.spaces import Box

    from engine.algorithms.base import Spaces

    return Spaces(Box(-1.0, 1.0, (4,), np.float32), action)


def _team(action: Space[object]) -> Spaces:
    """Of two agents that share a policy."""
    from engine.algorithms.base import Spaces
    from engine.spaces.team import Team, joint_action, joint_observation, shared_policies

    agents = ("a", "b")
    observations = dict.fromkeys(agents, _spaces(action).observation)
    actions = dict.fromkeys(agents, action)
    team = Team(agents, shared_policies({"shared": agents}, observations, actions))
    return Spaces(joint_observation(observations), joint_action(actions), team=team)


def _kinds_of_actions() -> Mapping[str, Space[object]]:
    import numpy as np
    from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

    box = Box(-1.0, 1.0, (2,), np.float32)
    return {
        "discrete": Discrete(3),
        "multi-discrete": MultiDiscrete([2, 3]),
        "continuous": box,
        "hybrid": Dict({"choice": Discrete(2), "amount": box}),
    }
