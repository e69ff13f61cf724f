"""Proportional prioritised sampling with a sum tree (Schaul et al., 2016, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from engine.replay.store import BoolArray, FloatArray, IntArray

PRIORITY_FLOOR = 1e-6
"""The paper's epsilon: a transition without error is still drawn now and then."""


LARGEST_ERROR = 1e15
"""Transitions with a larger or a NaN error cannot be trained on in single precision. They would be
drawn for ever and displace all others, so they are sampled as if their error were 0."""


class SumTree:
    """A complete binary tree in which every node is the sum of its two children.

    Node 1 is the root, nodes 2i and 2i + 1 are the children of i, the leaves come last. All
    operations are vectorised: one pass over the levels for any number of leaves.

    Args:
        num_leaves: Rounded up to a power of two.
    """

    def __init__(self, num_leaves: int) -> None:
        self._depth = max(1, (num_leaves - 1).bit_length())
        self._first_leaf = 1 << self._depth
        self._nodes = np.zeros(2 * self._first_leaf)

    @property
    def total(self) -> float:
        return float(self._nodes[1])

    def get(self, leaves: IntArray) -> FloatArray:
        return np.asarray(self._nodes[leaves + self._first_leaf])

    def set(self, leaves: IntArray, values: FloatArray) -> None:
        """Sets leaves [N] to values [N] and updates all sums; of equal leaves the last counts."""
        nodes = leaves + self._first_leaf
        self._nodes[nodes] = values
        for _ in range(self._depth):
            nodes = nodes >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, mass: FloatArray) -> IntArray:
        """The leaf in which the running sum over all leaves passes each `mass`, [N].

        Args:
            mass: In [0, total).
        """
        nodes = np.ones(len(mass), np.int64)
        rest = mass.copy()
        for _ in range(self._depth):
            left = 2 * nodes
            left_sum = self._nodes[left]
            # Rounding can leave a remainder on an empty side: never descend there.
            goes_right = (rest >= left_sum) & (self._nodes[left + 1] > 0)
            rest -= np.where(goes_right, left_sum, 0.0)
            nodes = left + goes_right
        return nodes - self._first_leaf


class PrioritizedSampler:
    """Draws transition i with probability P(i) = p_i^alpha / sum_k p_k^alpha (equation 1).

    p_i is the last absolute TD error; a new transition starts with its actor's error, or else
    with the largest so far, so that it is soon drawn. Draws are stratified: one from each of N
    equal parts of the sum. Weights are
    (N P(i))^-beta, divided by the largest of the draw (section 3.4).

    Args:
        num_positions: Of the store.
        random: Source of randomness.
        priority_exponent: Alpha; 0 would be uniform.
        importance_exponent: Beta; 1 corrects the bias fully.
    """

    def __init__(
        self,
        num_positions: int,
        random: np.random.Generator,
        *,
        priority_exponent: float,
        importance_exponent: float,
    ) -> None:
        self._tree = SumTree(num_positions)
        self._is_transition = np.zeros(num_positions, np.bool_)
        self._num_transitions = 0
        self.random = random
        self._alpha = priority_exponent
        self._beta = importance_exponent
        self._largest = 1.0

    def insert(self, first: int, is_transition: BoolArray, errors: FloatArray | None) -> None:
        span = slice(first, first + len(is_transition))
        overwritten = np.count_nonzero(self._is_transition[span])
        self._num_transitions += int(np.count_nonzero(is_transition) - overwritten)
        self._is_transition[span] = is_transition
        leaves = np.arange(span.start, span.stop)
        self._tree.set(leaves, is_transition * self._largest**self._alpha)
        if errors is not None:
            self.update(leaves, errors)

    def draw(self, num_samples: int) -> tuple[IntArray, FloatArray]:
        if not self._num_transitions:
            raise ValueError("nothing to draw from")
        parts = np.arange(num_samples) + self.random.random(num_samples)
        positions = self._tree.find(parts * (self._tree.total / num_samples))
        self.random.shuffle(positions)  # else strata would be sorted into different minibatches
        probability = self._tree.get(positions) / self._tree.total
        weights = (self._num_transitions * probability) ** -self._beta
        return positions, weights / weights.max()

    def update(self, positions: IntArray, errors: FloatArray) -> None:
        usable = self._is_transition[positions]
        sizes = np.abs(errors[usable])
        priorities = np.where(sizes <= LARGEST_ERROR, sizes, 0.0) + PRIORITY_FLOOR
        if len(priorities):
            self._largest = max(self._largest, float(priorities.max()))
            self._tree.set(positions[usable], priorities**self._alpha)

    def state(self, num_filled: int) -> dict[str, FloatArray]:
        """Priorities, to the power of alpha, and the largest so far."""
        leaves = self._tree.get(np.arange(num_filled)).copy()
        return {"priority": leaves, "largest_priority": np.array([self._largest])}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See `Sampler`: sums are computed again, and are the same to the last bit."""
        leaves, largest = (
            np.asarray(state[name], np.float64) for name in ("priority", "largest_priority")
        )
        is_transition = self._is_transition[: len(leaves)]
        if np.any(leaves < 0) or np.any(leaves[~is_transition] != 0) or largest[0] < 1:
            raise ValueError("impossible priorities")
        self._tree.set(np.arange(len(leaves)), leaves)
        self._largest = float(largest[0])
