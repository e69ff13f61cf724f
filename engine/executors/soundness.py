"""Numbers that are none, noticed in the update where they arise.

An optimiser step whose loss or gradient is not finite is left out, so it costs itself and no more
(`engine.algorithms.gradient`). Here that is counted and its cause looked for. A run whose steps are
left out update after update learns nothing any more, so it ends; so does one whose parameters are
not finite. Weights that their own learner cannot learn with are not kept as a checkpoint.
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
"""The square of what is larger, or the sum of some squares, is infinite in single precision."""
PATIENCE = 3
"""Updates in a row that come to nothing, though what was collected is ordinary, end the run."""
PATIENCE_WITH_INPUTS = 10
"""The same where rewards or observations are extraordinary: they may be so now and then."""
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
        """Updates in a row of which most steps were left out."""
        self._num_told = 0
        self._doubt = ""

    @property
    def doubt(self) -> str:
        """Why these weights are not worth a checkpoint; empty if they are."""
        return self._doubt

    def check(
        self, update: int, state: LearnerState, batch: Batch, metrics: Mapping[str, float]
    ) -> str:
        """Looks at an update that is done, before anybody gets its weights.

        Args:
            update: Number of the version that it has made.
            state: After it.
            batch: What it learnt from.
            metrics: The update's metrics.

        Returns:
            What was not finite and its source, if it is to be recorded; else empty.

        Raises:
            RunFailedError: Nothing can be learnt any more.
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
    """`NAME (nan)` of the first tensor that holds a number which is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"{name} ({float(tensor[~torch.isfinite(tensor)].flatten()[0])})"
    return None


def _strange_inputs(batch: Batch) -> list[str]:
    """What was collected that a network cannot be expected to learn from, such as
    `a reward of 1e+25`; rewards first."""
    names = sorted(batch, key=lambda name: (name != "reward", "observation" not in name, name))
    return [
        f"a {name} of {extreme:g}"
        for name in names
        if not abs(extreme := _extreme(batch[name])) <= ORDINARY
    ]


def _extreme(values: Tensor) -> float:
    """What is furthest from 0; NaN if there is any."""
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
