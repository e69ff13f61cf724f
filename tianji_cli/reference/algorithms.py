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

    from engine.algorithms.base import Algorithm
    from engine.algorithms.registry import Entry

NUM_KINDS = 4
"""Kinds of action spaces that are tried."""


class AlgorithmRow(ListedRow, frozen=True, kw_only=True):
    """An algorithm.

    Attributes:
        name: For `algorithm.name`.
        about: The first line of its hyperparameters' docstring.
        samples: `queue`: each rollout is learnt from once. `replay`: from a store.
        actions: Kinds of action spaces that it takes.
        has_memory: Whether it takes `network.core`.
        corrects_staleness: Whether it needs no bound on lag.
    """

    name: str
    about: str
    samples: str
    actions: tuple[str, ...]
    has_memory: bool
    corrects_staleness: bool

    headings = ("algorithm", "samples", "memory", "actions", "about")

    @property
    def cells(self) -> tuple[str, ...]:
        memory = "yes" if self.has_memory else "no"
        actions = "any" if len(self.actions) == NUM_KINDS else ", ".join(self.actions)
        return self.name, self.samples, memory, actions, self.about


def algorithms() -> list[AlgorithmRow]:
    """All that are registered, in the order in which they were."""
    from engine.algorithms.registry import ALGORITHMS

    return [_row(name, entry) for name, entry in ALGORITHMS.items()]


def _row(name: str, entry: Entry) -> AlgorithmRow:
    kinds = _kinds_of_actions()
    made = {kind: _made(entry, space, NetworkSpec()) for kind, space in kinds.items()}
    taken = {kind: algorithm for kind, algorithm in made.items() if algorithm is not None}
    assert taken, f"{name} takes no action at all"
    kind, algorithm = next(iter(taken.items()))
    samples = algorithm.samples()
    core = NetworkSpec(core=CoreSpec(name="gru", size=8))
    return AlgorithmRow(
        name=name,
        about=class_paragraphs(entry.config)[0],
        samples=samples.kind,
        actions=tuple(taken),
        has_memory=_made(entry, kinds[kind], core) is not None,
        corrects_staleness=samples.corrects_staleness,
    )


def _made(entry: Entry, action: Space[object], network: NetworkSpec) -> Algorithm | None:
    """The algorithm with its own defaults; None if it refuses."""
    import numpy as np
    from gymnasium.spaces import Box

    from engine.algorithms.base import Spaces

    spaces = Spaces(Box(-1.0, 1.0, (4,), np.float32), action)
    try:
        return entry.make(entry.config(), network, spaces)
    except ConfigError:
        return None


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
