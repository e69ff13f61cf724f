"""Reads sequences from stored rollouts, for networks with memory (Kapturowski et al., 2019).

A sequence is everything that one environment did in one rollout: T steps. It comes with the last
steps of the rollout before it, the burn-in, if the store still holds that rollout: unrolled over
them, a network with newer weights has a state that fits these weights.

        rollout s - 1 of an actor             rollout s
    ├─ ... ──────┬─── burn-in ───┤├───────── T steps ─────────┤ s_T
                 state                                              with burn-in
                                  state                             without

The newest rollout before it can be overwritten earlier, or have been lost on its way. Then the
state that the actor had is all that there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.replay.store import (
    BoolArray,
    FloatArray,
    Inserted,
    IntArray,
    Places,
    RolloutStore,
)
from engine.rollout import Layout, Rollout

Origin: TypeAlias = tuple[int, int, int]
"""Actor, its epoch, and the rollout's number in it."""
NONE = -1


class SequenceStore(RolloutStore):
    """A ring of rollouts from which sequences are drawn; a position is (slot, environment).

    Args:
        layout: Of a rollout, or of the part of it that is kept here.
        capacity_steps, n_step, discount, value_fields: See `RolloutStore`.
        with_last: The fields of the whole rollout that have a row for s_T.
        burn_in_steps: Rows before a sequence, at most T.
        priority_mix: Eta; see `mixed`.
    """

    def __init__(
        self,
        layout: Layout,
        capacity_steps: int,
        n_step: int,
        discount: float,
        value_fields: tuple[str, str] | None = None,
        *,
        with_last: frozenset[str],
        burn_in_steps: int,
        priority_mix: float,
    ) -> None:
        if burn_in_steps > layout.num_steps:
            raise ValueError(f"{burn_in_steps} rows are more than a rollout of {layout.num_steps}")
        super().__init__(layout, capacity_steps, n_step, discount, value_fields)
        self._with_last = with_last
        self._burn_in_steps = burn_in_steps
        self._priority_mix = priority_mix
        self._origins: list[Origin | None] = [None] * self.num_slots
        self._slots: dict[Origin, int] = {}
        self._previous = np.full(self.num_slots, NONE, np.int64)
        """Slot of the rollout that came before the one in each slot; NONE if it is not there."""
        self._following = np.full(self.num_slots, NONE, np.int64)

    @staticmethod
    def _count_positions(layout: Layout) -> int:
        return layout.num_envs

    def take_in(self, rollout: Rollout) -> Inserted:
        """See `RolloutStore`; rollouts of an actor may arrive in any order."""
        slot, info = self.next_slot, rollout.info
        self._forget(slot)
        actor, epoch, sequence = origin = info.actor, info.epoch, info.sequence
        self._origins[slot], self._slots[origin] = origin, slot
        self._link(self._slots.get((actor, epoch, sequence - 1)), slot)
        self._link(slot, self._slots.get((actor, epoch, sequence + 1)))
        return super().take_in(rollout)

    def _forget(self, slot: int) -> None:
        """The rollout of this slot, if there is one, is about to be overwritten."""
        origin = self._origins[slot]
        if origin is not None and self._slots.get(origin) == slot:
            del self._slots[origin]
        if (following := self._following[slot]) != NONE:
            self._previous[following] = NONE
        if (previous := self._previous[slot]) != NONE:
            self._following[previous] = NONE
        self._previous[slot] = self._following[slot] = NONE

    def _link(self, earlier: int | None, later: int | None) -> None:
        if earlier is not None and later is not None:
            self._following[earlier], self._previous[later] = later, earlier

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """See `RolloutStore`; `previous` is the place of the rollout before, NONE without one."""
        slots, first = self._slots_in_order(), self.numbers.start
        previous = self._previous[slots]
        place = (previous - first) % self.num_slots
        return {**super().state(), "previous": np.where(previous == NONE, NONE, place)}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See `RolloutStore`. Rollouts to come are of other lives of their actors, so they never
        follow one of these."""
        slots, places = self._slots_in_order(), np.asarray(state["previous"], np.int64)
        has_previous = places != NONE
        known = places[has_previous]
        if np.any((known < 0) | (known >= len(slots))) or len(np.unique(known)) < len(known):
            raise ValueError("an impossible order of rollouts")
        self._previous[slots[has_previous]] = slots[known]
        self._following[slots[known]] = slots[has_previous]

    def _entries(
        self, is_step: BoolArray, errors: FloatArray | None
    ) -> tuple[BoolArray, FloatArray | None]:
        can_be_drawn = np.asarray(is_step.any(axis=0))
        if errors is None:
            return can_be_drawn, None
        return can_be_drawn, mixed(errors, is_step, self._priority_mix)

    def gather(self, positions: IntArray, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Copies sequences out; `SampleRequest.sample_fields` describes the fields."""
        rest = dict(out)
        rest.pop("has_burn_in")[...] = self.drawn(positions).has_burn_in
        super().gather(positions, rest)

    def drawn(self, positions: IntArray) -> Sequences:
        """See `RolloutStore`."""
        slot, env = np.divmod(positions, self._layout.num_envs)
        previous, num_steps = self._previous[slot], self._layout.num_steps
        has_burn_in = (previous != NONE) & (self._burn_in_steps > 0)
        # Without a burn-in its rows are read from somewhere, and not used.
        before = np.where(has_burn_in, previous, slot)[:, None]
        rows = np.arange(num_steps + 1)
        burn_in_rows = np.arange(num_steps - self._burn_in_steps, num_steps)
        shape = (len(slot), self._burn_in_steps)
        all_rows = np.concatenate((burn_in_rows, rows))
        return Sequences(
            slot=slot,
            has_burn_in=has_burn_in,
            slots=np.hstack((np.broadcast_to(before, shape), np.tile(slot[:, None], rows.shape))),
            places=all_rows * self._layout.num_envs + env[:, None],
            burn_in_steps=self._burn_in_steps,
            num_steps=num_steps,
            with_last=self._with_last,
        )


@dataclass(frozen=True)
class Sequences:
    """Sequences that were drawn: slots and places of all their rows, [N, burn-in + T + 1]."""

    slot: IntArray
    has_burn_in: BoolArray
    slots: IntArray
    places: IntArray
    burn_in_steps: int
    num_steps: int
    with_last: frozenset[str]

    def source(self, name: str) -> tuple[str, Places]:
        """See `Drawn`."""
        if name == "state":
            first = np.where(self.has_burn_in, 0, self.burn_in_steps)
            here = np.arange(len(first))
            return name, (self.slots[here, first], self.places[here, first])
        last = self.places.shape[1] - (name not in self.with_last)
        span = slice(self.burn_in_steps if name in OF_TRAINED_STEPS else 0, last)
        return name, (self.slots[:, span], self.places[:, span])


OF_TRAINED_STEPS = ("reward", "discount", "span")
"""Arrays that the burn-in has no rows of."""


def mixed(errors: FloatArray, is_step: BoolArray, mix: float) -> FloatArray:
    """One error for each sequence (Kapturowski et al., 2019, section 2.3).

        eta max_t |delta_t| + (1 - eta) mean_t |delta_t|

    Args:
        errors: Absolute TD errors, [T, B].
        is_step: False where a step only reset its environment, [T, B]; that error does not count.
        mix: Eta.

    Returns:
        [B].
    """
    counted = np.where(is_step, errors, 0.0)
    mean = counted.sum(axis=0) / np.maximum(is_step.sum(axis=0), 1)
    return np.asarray(mix * counted.max(axis=0) + (1 - mix) * mean, np.float64)
