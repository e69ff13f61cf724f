"""Detects non-finite values in the update where they arise.

An optimiser step whose loss or gradient is not finite is skipped, so it costs one step and no more
(`engine.algorithms.gradient`). This module counts skipped steps and finds their cause. A run whose
steps are skipped update after update no longer learns, so it ends; so does a run whose parameters
are not finite. Weights with which the learner itself cannot train are not kept as a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.algorithms.base import Batch, LearnerState
from engine.errors import RunFailedError
from engine.wording import plural

ORDINARY = 1e15
"""The square of a larger value, or a sum of such squares, is infinite in single precision."""
PATIENCE = 3
"""Updates in a row without effect, with collected data in a normal range, that end the run."""
PATIENCE_WITH_INPUTS = 10
"""The same with rewards or observations out of range, which can happen now and then."""
ALL_TOLD = 16
"""Events up to this number are all recorded, then each whose number is a power of two."""


class Soundness:
    """Watches the numbers of one learner.

    Args:
        name: Of the learner, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._num_in_vain = 0
        """Updates in a row of which most steps were skipped."""
        self._num_told = 0
        self._doubt = ""

    @property
    def doubt(self) -> str:
        """Why these weights get no checkpoint; empty if they do."""
        return self._doubt

    def check(
        self, update: int, state: LearnerState, batch: Batch, metrics: Mapping[str, float]
    ) -> str:
        """Checks a finished update, before its weights are sent.

        Args:
            update: Version that it made.
            state: After it.
            batch: Its batch.
            metrics: The update's metrics.

        Returns:
            What was not finite and its source, if it is to be recorded; else empty.

        Raises:
            RunFailedError: Training cannot continue.
        """
        wanted, left_out = state.weights.steps.count()
        if not math.isfinite(float(state.weights.vector.detach().sum())):
            self._refuse_parameters(update, state, batch)
        strange = [f"{name} {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if not left_out and not strange:
            self._num_in_vain, self._doubt = 0, ""
            return ""
        inputs = _strange_inputs(batch)
        detail = _in_words(update, wanted, left_out, strange, inputs)
        self._judge(2 * left_out >= max(wanted, 1), bool(inputs), detail)
        return detail if self._is_to_be_told() else ""

    def _judge(self, is_in_vain: bool, has_inputs: bool, detail: str) -> None:
        self._num_in_vain = self._num_in_vain + 1 if is_in_vain else 0
        self._doubt = detail if is_in_vain and not has_inputs else ""
        if self._num_in_vain >= (PATIENCE_WITH_INPUTS if has_inputs else PATIENCE):
            raise RunFailedError(
                f"{detail}; it is update {self._num_in_vain} in a row without effect",
                where=self._name,
                fix="scale rewards or observations: env.reward_scale, env.clip_reward,"
                " network.normalize_observation"
                if has_inputs
                else "lower algorithm.learning_rate",
            )

    def _refuse_parameters(self, update: int, state: LearnerState, batch: Batch) -> None:
        """Raises RunFailedError if a parameter is not finite; a sum may be so by itself."""
        named = ((name, p.detach()) for name, p in state.network.named_parameters())
        if (bad := first_strange(dict(named))) is None:
            return
        causes = _strange_inputs(batch)
        because = f", from {' and '.join(causes)}" if causes else ""
        raise RunFailedError(
            f"update {update}: the parameter {bad} is not finite after it{because}",
            where=self._name,
            fix="lower algorithm.learning_rate",
        )

    def _is_to_be_told(self) -> bool:
        self._num_told = number = self._num_told + 1
        return number <= ALL_TOLD or number & (number - 1) == 0


def first_strange(tensors: Mapping[str, Tensor]) -> str | None:
    """`NAME (nan)` of the first tensor with a non-finite value; None if there is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"{name} ({float(tensor[~torch.isfinite(tensor)].flatten()[0])})"
    return None


def _strange_inputs(batch: Batch) -> list[str]:
    """Collected values that are out of range for training, such as `a reward of 1e+25`; rewards
    first."""
    names = sorted(batch, key=lambda name: (name != "reward", "observation" not in name, name))
    return [
        f"a {name} of {extreme:g}"
        for name in names
        if not abs(extreme := _extreme(batch[name])) <= ORDINARY
    ]


def _extreme(values: Tensor) -> float:
    """The value furthest from 0; NaN if there is any."""
    if not values.is_floating_point() or not values.numel():
        return 0.0
    return float(max(values.max(), values.min(), key=abs))


def _in_words(
    update: int, wanted: int, left_out: int, strange: list[str], inputs: list[str]
) -> str:
    what = "the loss" if strange else "the gradient"
    told = f" ({', '.join(strange)})" if strange else ""
    steps = f"{left_out} of {plural(wanted, 'optimiser step')} skipped: " if left_out else ""
    source = " and ".join(inputs) or "the network itself: the collected data is in a normal range"
    return f"update {update}: {steps}{what} is not finite{told}, from {source}"
