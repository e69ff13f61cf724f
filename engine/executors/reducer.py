"""What a reducer does: stores models and merges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from engine.algorithms.statistics import places_of, read_sums, write_sums
from engine.algorithms.teams.parts import whole_model
from engine.blueprint import Blueprint
from engine.errors import RunFailedError
from engine.executors.checkpoint import load_checkpoint
from engine.executors.warm_start import start_with
from engine.roles.commands import Command, ForgetModel, MergeModel
from engine.roles.events import Event, ModelsMerged
from engine.rollout import Weights
from engine.trace.warm_start import WarmStart
from engine.wire.frames import allocate_framed

Values = npt.NDArray[np.floating]
Vector = npt.NDArray[np.float32]
_NOTHING = np.float32(0)


class ReducerExecutor:
    """Performs a reducer's commands.

    Parameters without gradient, such as the epsilon of Q-learning, are not progress that can be
    added up: if several learners follow one schedule, the sum overshoots, each corrects it, and
    the corrections grow without bound. So each learner gets its own values of them. For running
    statistics, the sums behind them are added up, under every rule.

    Args:
        blueprint: The run; its cut says how to merge.
        checkpoint: JSON file of the checkpoint that all learners resume, if any.
        warm_start: The weights that all learners start with otherwise, if any, and their file.
    """

    is_busy = False

    def __init__(
        self,
        blueprint: Blueprint,
        checkpoint: Path | None = None,
        warm_start: tuple[WarmStart, Path] | None = None,
    ) -> None:
        self._num_bytes = blueprint.model.num_bytes
        state = blueprint.algorithm.init(blueprint.experiment.seed)
        if checkpoint is not None:
            load_checkpoint(checkpoint, state)
        elif warm_start is not None:
            start_with(warm_start[1], warm_start[0], state)
        initial = state.weights.vector.detach().cpu().numpy()
        self._learns = _learns(state.network)
        self._places = places_of(state.network)
        self._rule: CommonModel | Accumulation | WholeModel
        if blueprint.cut.merge == "assemble":
            team = blueprint.spaces.team
            assert team is not None, "only a team has several policies"
            whole, parts = whole_model(state, team)
            self._rule = WholeModel(whole.numpy(), [part.numpy() for part in parts])
            self._learns, self._places = (
                np.ones(len(whole), np.bool_),
                (),
            )  # all of a part is its own
        elif blueprint.cut.merge == "accumulate":
            self._rule = Accumulation(np.where(self._learns, initial, _NOTHING))
        else:
            self._rule = CommonModel(blueprint.experiment.reduce.gain)
        self._seen = Accumulation(read_sums(initial, self._places))

    def perform(self, command: Command) -> list[Event]:
        match command:
            case MergeModel(group=group, weights=weights, shares=shares):
                model = weights.buffer.view(np.float32).copy()
                learnt, has_answer = np.where(self._learns, model, _NOTHING), command.has_answer
                merged = self._rule.merge(group, learnt, shares, has_answer=has_answer)
                _refuse_strange(merged, group)
                buffer = allocate_framed(self._num_bytes)
                told = buffer.view(np.float32)
                told[:] = np.where(self._learns, merged, model)
                seen = read_sums(model, self._places)
                total = self._seen.merge(group, seen, shares, has_answer=has_answer)
                write_sums(total, told, self._places)
                return [ModelsMerged(group, Weights(weights.version, buffer))]
            case ForgetModel(group=group):
                self._rule.forget(group)
                self._seen.forget(group)
                return []
        raise RuntimeError(f"a reducer cannot perform {type(command).__name__}")

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("a reducer's commands are done when performed")

    def close(self) -> None:
        """Nothing to release."""


def _learns(network: nn.Module) -> npt.NDArray[np.bool_]:
    """Which parameters have a gradient, bool [P], in the order of the flat vector."""
    parameters = list(network.parameters())
    return np.repeat([p.requires_grad for p in parameters], [p.numel() for p in parameters])


def _refuse_strange(merged: Vector, group: int) -> None:
    """Raises RunFailedError if a model is not finite; its sum alone can overflow."""
    if not np.isfinite(merged.sum()) and not np.isfinite(merged).all():
        raise RunFailedError(
            f"the model of group {group} merged with the others is not finite",
            where="reducer-0",
            fix="lower algorithm.learning_rate or reduce.gain",
        )


class _Bases:
    """The base of each group's progress: the last answer, or its own model if that was lost."""

    def __init__(self) -> None:
        self._told: dict[int, Values] = {}
        self._offered: dict[int, Values] = {}

    def of(self, group: int, has_answer: bool) -> Values | None:
        """None if it never got an answer."""
        return (self._told if has_answer else self._offered).get(group)

    def keep(self, group: int, offered: Values, told: Values) -> None:
        self._offered[group], self._told[group] = offered, told

    def forget(self, group: int) -> None:
        self._offered.pop(group, None)
        self._told.pop(group, None)


class CommonModel:
    """A model that every group moves by its share of its progress since the model's last answer.

    If all groups offer at once and `gain` is 0, this is the mean of their models. They offer one
    after the other, and the model moves just as fast; a mean of the newest models would lag behind,
    since the other models are always older: by a third of the speed for many groups.

    Args:
        gain: N groups move it N ** gain times as far. Their noise, which is independent, shrinks by
            N ** 0.5 when they are averaged; so at 0.5 the noise is that of a single group (the
            square-root rule for Adam: Malladi et al., 2022).
    """

    def __init__(self, gain: float) -> None:
        self._gain = gain
        self._centre: Vector | None = None
        self._bases = _Bases()

    def merge(
        self, group: int, model: Vector, shares: Mapping[int, float], *, has_answer: bool = True
    ) -> Vector:
        """Merges a model into the common one.

        Args:
            group: The group of this model.
            model: Float32 [P]; kept, so it must not be changed later.
            shares: Weight of each group; they add up to 1.
            has_answer: Whether the group has received the last answer.

        Returns:
            A copy of the common model, float32 [P].
        """
        base = self._bases.of(group, has_answer)
        if self._centre is None:
            self._centre = model.copy()
        elif base is not None:
            weight = shares[group] * len(shares) ** self._gain
            self._centre += np.float32(weight) * (model - base)
        else:  # it never got the common model, so its progress beyond it is unknown
            self._centre += np.float32(shares[group]) * (model - self._centre)
        told = self._centre.copy()
        self._bases.keep(group, model, told)
        return told

    def forget(self, group: int) -> None:
        self._bases.forget(group)


class Accumulation:
    """A parameter server (Gorila, 2015): adds up every worker's progress since its last answer.

    Args:
        initial: Initial parameters of every worker, [P].
    """

    def __init__(self, initial: Values) -> None:
        self._centre: Values = initial.copy()
        self._initial: Values = initial.copy()
        self._bases = _Bases()

    def merge(
        self,
        group: int,
        model: Values,
        shares: Mapping[int, float],
        *,
        has_answer: bool = True,
    ) -> Values:
        """Adds the worker's progress to the centre and returns a copy, [P]; see `CommonModel`."""
        base = self._bases.of(group, has_answer)
        self._centre += model - (self._initial if base is None else base)
        told = self._centre.copy()
        self._bases.keep(group, model, told)
        return told

    def forget(self, group: int) -> None:
        self._bases.forget(group)


class WholeModel:
    """Parts of one model: each group's is what that group has offered last.

    Args:
        initial: Initial parameters of every learner, float32 [P].
        parts: Which of them each group trains, bool [P]; disjoint.
    """

    def __init__(self, initial: Vector, parts: Sequence[npt.NDArray[np.bool_]]) -> None:
        self._whole = initial.copy()
        self._parts = parts

    def merge(
        self, group: int, model: Values, shares: Mapping[int, float], *, has_answer: bool = True
    ) -> Vector:
        """Takes over a group's part and returns a copy of the whole, [P]; see `CommonModel`."""
        part = self._parts[group]
        self._whole[part] = model[part]
        return self._whole.copy()

    def forget(self, group: int) -> None:
        """Its part stays as it is."""
