"""What a reducer does: keeps models and merges them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.roles.commands import Command, ForgetModel, MergeModel
from engine.roles.events import Event, ModelsMerged
from engine.rollout import Weights
from engine.runtime.blueprint import Blueprint
from engine.runtime.checkpoint import load_checkpoint
from engine.wire.codec import allocate_framed

Vector = npt.NDArray[np.float32]


class ReducerBody:
    """Performs a reducer's commands.

    Args:
        blueprint: The run; its cut says how to merge.
        checkpoint: JSON file of what all learners go on from, if they do.
    """

    is_busy = False

    def __init__(self, blueprint: Blueprint, checkpoint: Path | None = None) -> None:
        self._num_bytes = blueprint.weights.num_bytes
        state = blueprint.algorithm.init(blueprint.experiment.seed)
        if checkpoint is not None:
            load_checkpoint(checkpoint, state)
        initial = state.weights.vector
        accumulates = blueprint.cut.merge == "accumulate"
        self._rule = Accumulation(initial.detach().cpu().numpy()) if accumulates else Mean()

    def perform(self, command: Command) -> list[Event]:
        match command:
            case MergeModel(group=group, weights=weights, shares=shares):
                model = weights.buffer.view(np.float32).copy()
                merged = self._rule.merge(group, model, shares)
                buffer = allocate_framed(self._num_bytes)
                buffer.view(np.float32)[:] = merged
                return [ModelsMerged(group, Weights(weights.version, buffer))]
            case ForgetModel(group=group):
                self._rule.forget(group)
                return []
        raise RuntimeError(f"a reducer cannot perform {type(command).__name__}")

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("a reducer's commands are done when performed")

    def close(self) -> None:
        """Nothing to release."""


class Mean:
    """The weighted mean of the newest model of every group that has offered one."""

    def __init__(self) -> None:
        self._models: dict[int, Vector] = {}

    def merge(self, group: int, model: Vector, shares: Mapping[int, float]) -> Vector:
        """Takes in a model [P] and returns the mean; `shares` add up to 1."""
        self._models[group] = model
        merged = np.zeros_like(model)
        for number, share in shares.items():
            merged += np.float32(share) * self._models[number]
        return merged

    def forget(self, group: int) -> None:
        self._models.pop(group, None)


class Accumulation:
    """A parameter server (Gorila, 2015): adds up what every worker has learnt since it last asked.

    Args:
        initial: Parameters [P] that every worker starts from.
    """

    def __init__(self, initial: Vector) -> None:
        self._centre = initial.copy()
        self._initial = initial.copy()
        self._known: dict[int, Vector] = {}

    def merge(self, group: int, model: Vector, shares: Mapping[int, float]) -> Vector:
        """Adds the worker's progress to the centre and returns it, [P]."""
        self._centre += model - self._known.get(group, self._initial)
        self._known[group] = self._centre.copy()
        return self._known[group]

    def forget(self, group: int) -> None:
        self._known.pop(group, None)
