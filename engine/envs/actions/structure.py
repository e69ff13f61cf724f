"""Flat actions of a policy as values of the space that an environment declares."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium

from engine.envs.actions.choices import choices_of
from engine.envs.actions.scale import Array, Reals
from engine.spaces.action_parts import leaf_columns
from engine.spaces.leaves import AnySpace, LeafSpace, Structure, structure_of


class ActionStructure:
    """Takes flat actions of B environments apart.

    A flat action is a row of `engine.spaces.action_parts`: int64 [B] for a Discrete, int64 [B, K]
    for K categorical entries, float32 [B, K + D] if there are D reals too. Each choice is counted
    from its start, each real is scaled to the range of its Box (`Reals`).

    Args:
        space: Of one action, as the environment declares it.
        scales: Whether reals are in units of a range, as in `EnvSpec.scale_actions`.

    Raises:
        ConfigError: `leaves_of` does not take it apart.
    """

    def __init__(self, space: AnySpace, scales: bool = True) -> None:
        self._space = space
        self._parts = [(columns, _converter(leaf, scales)) for leaf, columns in leaf_columns(space)]

    def leaves(self, actions: Array) -> list[Array]:
        """The values [B, *shape] of each leaf, in the order of `leaves_of`."""
        rows = actions.reshape(len(actions), -1)
        return [convert(rows[:, columns]) for columns, convert in self._parts]

    def __call__(self, actions: Array) -> Structure:
        """A value of the batched space: arrays [B, *shape of the leaf] in its dicts and tuples."""
        return structure_of(self._space, iter(self.leaves(actions)))


def _converter(space: LeafSpace, scales: bool) -> Callable[[Array], Array]:
    return Reals(space, scales) if isinstance(space, gymnasium.spaces.Box) else choices_of(space)
