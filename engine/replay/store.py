"""Stores rollouts for reuse, and reads n-step transitions from them.

Rollouts are stored unchanged, each field in a preallocated array of its own, so that a draw reads
rows that lie one after the other; the oldest is overwritten. A transition is a position (t, b) of a
rollout: nothing is copied until it is drawn. It spans up to n steps, fewer if its episode or its
rollout ends earlier.

    key      = number of the rollout x (T x B) + t x B + b     never used twice
    position = slot of the rollout   x (T x B) + t x B + b     index into the flat arrays

A store of sequences (`engine.replay.sequences`) has one position (b) for each environment of a
rollout instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.replay.transitions import initial_errors, n_step_transitions
from engine.rollout import NEXT, Layout, Rollout

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Places: TypeAlias = tuple[IntArray, IntArray]
"""Slot of each value to read, [N] or [N, rows], and its place there, row x B + environment."""
Inserted: TypeAlias = tuple[int, BoolArray, FloatArray | None]
"""The first position of a rollout; which of its positions can be drawn; and their initial errors,
if actors send values."""


class Drawn(Protocol):
    """Positions that were drawn, and where their fields are."""

    @property
    def slot(self) -> IntArray:
        """Of the rollout, [N]."""
        ...

    def source(self, name: str) -> tuple[str, Places]:
        """Of one field of the samples: which array of the store it is read from, and where."""
        ...


class RolloutStore:
    """A ring of rollouts.

    Args:
        layout: Of a rollout.
        capacity_steps: Steps that are stored, rounded up to whole rollouts.
        n_step: Longest span of a transition.
        discount: Gamma.
        value_fields: As in `ReplayRequest`.
    """

    def __init__(
        self,
        layout: Layout,
        capacity_steps: int,
        n_step: int,
        discount: float,
        value_fields: tuple[str, str] | None = None,
    ) -> None:
        self._layout = layout
        self._value_fields = value_fields
        self._n_step = n_step
        self._discount = discount
        self.num_slots = -(-capacity_steps // (layout.num_steps * layout.num_envs))
        self._positions_per_slot = self._count_positions(layout)
        self._fields: dict[str, npt.NDArray[np.generic]] = {
            item.name: np.zeros((self.num_slots, *layout.shape(item)), item.dtype)
            for item in layout.fields
        }
        """Of rollouts, [slots, T(+1), B, ...]."""
        shape = (self.num_slots, layout.num_steps, layout.num_envs)
        self._transitions: dict[str, npt.NDArray[np.generic]] = {
            "reward": np.zeros(shape, np.float32),
            "discount": np.zeros(shape, np.float32),
            "span": np.zeros(shape, np.int64),
        }
        """What `n_step_transitions` makes of them, [slots, T, B]."""
        self._versions = np.zeros(self.num_slots, np.int64)
        self._times_s = np.zeros(self.num_slots, np.float64)
        self._num_inserted = 0

    @staticmethod
    def _count_positions(layout: Layout) -> int:
        """Positions of one rollout."""
        return layout.num_steps * layout.num_envs

    @property
    def num_positions(self) -> int:
        return self.num_slots * self._positions_per_slot

    @property
    def num_filled(self) -> int:
        """Number of positions in use; they precede all others."""
        return min(self._num_inserted, self.num_slots) * self._positions_per_slot

    @property
    def next_slot(self) -> int:
        """Position of the next rollout."""
        return self._num_inserted % self.num_slots

    def take_in(self, rollout: Rollout) -> Inserted:
        """Stores one rollout in `next_slot`; see `insert`."""
        return self.insert(rollout.buffer, rollout.info.version_min, rollout.info.end_s)

    def insert(self, buffer: npt.NDArray[np.uint8], version: int, time_s: float) -> Inserted:
        """Stores one rollout in `next_slot`, in place of the oldest if the store is full.

        Args:
            buffer: uint8, in the layout of the store.
            version: Behaviour version.
            time_s: When it was collected.

        Returns:
            Its first position; which of its positions can be drawn (a step that only reset its
            environment cannot); and their initial errors, if actors send values.
        """
        slot = self.next_slot
        self._num_inserted += 1
        views = self._layout.views(buffer)
        for name, values in views.items():
            self._fields[name][slot] = values
        spans = n_step_transitions(views, self._n_step, self._discount)
        for array, values in zip(self._transitions.values(), spans, strict=True):
            array[slot] = values
        self._versions[slot], self._times_s[slot] = version, time_s
        errors = None
        if self._value_fields is not None:
            taken, best = (np.asarray(views[name], np.float32) for name in self._value_fields)
            errors = initial_errors(spans, taken, best)
        is_step = np.asarray(views["valid"], np.bool_)
        return slot * self._positions_per_slot, *self._entries(is_step, errors)

    def _entries(
        self, is_step: BoolArray, errors: FloatArray | None
    ) -> tuple[BoolArray, FloatArray | None]:
        """Which positions of a rollout can be drawn, and their errors, of those of its steps."""
        return is_step.reshape(-1), None if errors is None else errors.reshape(-1)

    def keys(self, positions: IntArray) -> IntArray:
        """Keys of these positions, int64 [N]; they must be in use."""
        slots, rest = np.divmod(positions, self._positions_per_slot)
        newest = self._num_inserted - 1
        numbers = newest - (newest - slots) % self.num_slots
        return numbers * self._positions_per_slot + rest

    def positions(self, keys: IntArray) -> tuple[IntArray, BoolArray]:
        """Positions of these keys, int64 [N], and which are not overwritten, bool [N]."""
        numbers, rest = np.divmod(keys, self._positions_per_slot)
        is_kept = (numbers >= self._num_inserted - self.num_slots) & (
            (numbers < self._num_inserted) & (numbers >= 0)
        )
        return numbers % self.num_slots * self._positions_per_slot + rest, is_kept

    def gather(self, positions: IntArray, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Copies samples out.

        Args:
            positions: [N].
            out: Arrays [N, ...] to fill: of transitions `observation` s_tm1, `next_observation`
                s_t, `reward` the discounted sum in between, `discount` of what follows (0 after
                termination), `version`, and any field of the rollout at the first step.
        """
        drawn = self.drawn(positions)
        for name, target in out.items():
            if name == "version":
                target[...] = self._versions[drawn.slot]
            else:
                self._read(*drawn.source(name), target)

    def _read(self, field: str, places: Places, out: npt.NDArray[np.generic]) -> None:
        """Copies values of one array out."""
        array = self._transitions.get(field, self._fields.get(field))
        assert array is not None, field
        slot, place = places
        places_per_slot = array.shape[1] * array.shape[2]
        rows = array.reshape(self.num_slots * places_per_slot, *array.shape[3:])
        # No index is out of bounds; "raise", which looks for some, copies once more.
        rows.take(slot * places_per_slot + place, 0, out, "clip")

    def drawn(self, positions: IntArray) -> Drawn:
        """Where the fields of the samples at these positions, [N], are."""
        slot, place = np.divmod(positions, self._positions_per_slot)
        span = np.take(self._transitions["span"], positions)
        return _Transitions(slot, (slot, place), (slot, place + span * self._layout.num_envs))

    def times_s(self, positions: IntArray) -> npt.NDArray[np.float64]:
        """Collection time of these samples, float64 [N], on the run's timeline."""
        return np.asarray(self._times_s[positions // self._positions_per_slot])

    @property
    def numbers(self) -> range:
        """Numbers of the rollouts in the store, the oldest first; number n is in slot n modulo
        `num_slots`."""
        return range(max(0, self._num_inserted - self.num_slots), self._num_inserted)

    def rollout(self, number: int) -> npt.NDArray[np.uint8]:
        """A rollout in the store, in a buffer of its own."""
        slot, buffer = number % self.num_slots, self._layout.allocate()
        for name, view in self._layout.views(buffer).items():
            view[...] = self._fields[name][slot]
        return buffer

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Copies of what it knows of its rollouts beside their buffers, in the order of
        `numbers`."""
        slots = self._slots_in_order()
        return {"version": self._versions[slots], "time_s": self._times_s[slots]}

    def skip_to(self, number: int) -> None:
        """The next rollout gets this number; the store must be empty."""
        self._num_inserted = number

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Takes over what `state` has, once all its rollouts were inserted again, in order.

        Raises:
            ValueError: It cannot be of these rollouts.
        """

    def _slots_in_order(self) -> IntArray:
        numbers = self.numbers
        return np.arange(numbers.start, numbers.stop) % self.num_slots


@dataclass(frozen=True)
class _Transitions:
    """`here` is their first step, `later` the row of their next state."""

    slot: IntArray
    here: Places
    later: Places

    def source(self, name: str) -> tuple[str, Places]:
        if name.startswith(NEXT):
            return name.removeprefix(NEXT), self.later
        return name, self.here
