"""Rollouts: T consecutive steps of B environments in one contiguous buffer.

    byte 0                                                              layout.num_bytes
    ├─ observation [T+1, B, ...] ─┼─ action [T, B, ...] ─┼─ reward [T, B] ─┼─ ... ─┤

Both ends compute the same `Layout` from the experiment, so nothing about fields travels with the
data: a rollout on the wire is a fixed-size header and this buffer. Every field starts on a 64-byte
boundary, so that vector instructions and zero-copy tensors find it aligned.

Row t of `observation` is s_t, of `action` a_t, of `reward` r_{t+1}. Environments restart in
next-step mode: after an episode has ended at step t, row t+1 of `observation` holds its true last
observation, and step t+1 only resets. Such a step is not an environment step: `valid` is False.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

ALIGNMENT_BYTES = 64


class Field(msgspec.Struct, frozen=True):
    """One array of a rollout.

    Attributes:
        name: Key in `Layout.views`.
        dtype: NumPy name of the element type.
        shape: The axes after [T, B].
        extra_rows: 1 for values that exist before the first and after the last step.
        num_rows: Rows in place of T + extra_rows, for values that do not belong to single steps,
            such as the state before the first one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    extra_rows: int = 0
    num_rows: int | None = None


@dataclass(frozen=True)
class Layout:
    """The position of each field in a rollout's buffer.

    Args:
        fields: In the order of the buffer.
        num_steps: T.
        num_envs: B.
    """

    fields: tuple[Field, ...]
    num_steps: int
    num_envs: int

    def shape(self, item: Field) -> tuple[int, ...]:
        """[T + extra rows, B, ...], or [num_rows, B, ...] if the field says so."""
        num_rows = self.num_steps + item.extra_rows if item.num_rows is None else item.num_rows
        return (num_rows, self.num_envs, *item.shape)

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return any(item.name == name for item in self.fields)

    def field(self, name: str) -> Field:
        """The field of this name; there must be one."""
        return next(item for item in self.fields if item.name == name)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each field, and the size of the whole buffer as last entry, in bytes."""
        position, offsets = 0, []
        for item in self.fields:
            offsets.append(position)
            size = int(np.prod(self.shape(item))) * np.dtype(item.dtype).itemsize
            position += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return (*offsets, position)

    @property
    def num_bytes(self) -> int:
        return self.offsets[-1]

    @cached_property
    def digest(self) -> int:
        """64 bits that differ between layouts; both ends must agree on it."""
        description = msgspec.json.encode((self.fields, self.num_steps, self.num_envs))
        return int.from_bytes(hashlib.blake2b(description, digest_size=8).digest(), "little")

    def allocate(self) -> npt.NDArray[np.uint8]:
        """A new buffer of zeros, uint8 [num_bytes]."""
        return np.zeros(self.num_bytes, dtype=np.uint8)

    def views(self, buffer: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
        """The fields as arrays on `buffer`, without copies.

        Args:
            buffer: Contiguous uint8, at least `num_bytes` long.

        Returns:
            By field name, arrays of `shape(field)` with the field's dtype.

        Raises:
            ValueError: The buffer is smaller than the layout.
        """
        if buffer.nbytes < self.num_bytes:
            raise ValueError(f"buffer of {buffer.nbytes} bytes for a layout of {self.num_bytes}")
        return {
            item.name: np.ndarray(self.shape(item), np.dtype(item.dtype), buffer, offset)
            for item, offset in zip(self.fields, self.offsets, strict=False)
        }


class RolloutInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a rollout, which every role can read without its arrays.

    Attributes:
        actor: Index of the actor.
        epoch: Incarnation of that actor; +1 with each restart.
        sequence: Rollouts that this incarnation has sent before.
        ticket: The ticket that admitted it.
        version_min, version_max: Behaviour versions of its steps.
        num_env_steps: Valid steps in it.
        total_env_steps: Steps that this actor has collected so far, this rollout included.
        start_s, end_s: When collecting started and ended, on the coordinator's timeline.
    """

    actor: int
    epoch: int
    sequence: int
    ticket: int
    version_min: int
    version_max: int
    num_env_steps: int
    total_env_steps: int
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Rollout:
    """A rollout in memory: its description and its buffer."""

    info: RolloutInfo
    buffer: npt.NDArray[np.uint8] = field(repr=False)


class SamplesInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The description of drawn samples, which every role can read without their arrays.

    Attributes:
        env_steps: Inserted into the store before they were drawn, and its share of what runs had
            consumed that this one resumes.
        drawn_s: When, on the coordinator's timeline.
        age_mean_s, age_max_s: Seconds from the end of a sample's rollout until then.
    """

    env_steps: int
    drawn_s: float
    age_mean_s: float
    age_max_s: float


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples drawn from a replay store: [updates, batch size, ...] fields in one buffer."""

    info: SamplesInfo
    buffer: npt.NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Priorities:
    """Keys of transitions and their absolute TD errors, `PRIORITY_FIELDS`, in one buffer."""

    buffer: npt.NDArray[np.uint8] = field(repr=False)


PRIORITY_FIELDS = (Field("key", "int64"), Field("error", "float32"))


@dataclass(frozen=True, eq=False)
class Weights:
    """All parameters as one flat float32 tensor.

    Attributes:
        version: +1 for every update of the learner; 0 before the first.
        buffer: The raw bytes, in the order of the network's parameters.
    """

    version: int
    buffer: npt.NDArray[np.uint8] = field(repr=False)

    @property
    def num_bytes(self) -> int:
        return self.buffer.nbytes


NEXT = "next_"
"""In transitions from replay, begins the name of a field that belongs to the state after them."""

Arrays = Mapping[str, npt.NDArray[np.generic]]
