"""Tickets and batches: what is decided about rollouts, and what decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ticket:
    """Permission to collect one rollout.

    Attributes:
        number: Unique; counts admissions.
        owner: The actor that it is for.
        min_version: The rollout must not start with older weights than these.
        next_version: If it must start with exactly these weights: those of the owner's next
            rollout. None if newer ones will do.
        max_lag: The largest lag that it can be trained with, as it was when it was admitted.
    """

    number: int
    owner: str
    min_version: int
    next_version: int | None = None
    max_lag: int | None = None


@dataclass(frozen=True)
class Batch:
    """The decision of `take_batch`: tickets to train on, and tickets that are too late."""

    taken: tuple[int, ...]
    dropped: tuple[int, ...]


class Gatekeeper(Protocol):
    """Decides for a queue of rollouts: `bounded.Admission` or `fixed_order.FixedOrder`."""

    @property
    def next_batch(self) -> int:
        """Version at which the next batch will be consumed."""
        ...

    @property
    def changed_from(self) -> int | None:
        """The first batch whose rollouts are others than equal seeds give elsewhere, because of a
        fault; None: none, or no batch has the same ones in every run anyway."""
        ...

    def next_to_begin(self, waiting: Mapping[str, int]) -> str | None:
        """Who of those that wait, with the version that each holds, is to be admitted first."""
        ...

    def admit(self, owner: str, held_version: int) -> Ticket | None:
        """Admits one rollout; the same ticket again if `owner` holds one. None if there is no room
        now: then there is none for those behind it either."""
        ...

    def arrive(self, number: int, version_min: int) -> bool:
        """Records that a rollout has arrived; False if its ticket is not outstanding."""
        ...

    def lose(self, owner: str) -> None:
        """Drops the ticket that a dead actor held; what arrived from the actor is kept."""
        ...

    def void(self, owner: str) -> None:
        """Stops waiting for an actor that makes no progress, unless waiting is the point."""
        ...

    def lose_sent(self, owner: str, last_sent: int) -> bool:
        """Drops the ticket in hand if its rollout was sent, and so was lost on its way."""
        ...

    def take_batch(self) -> Batch | None:
        """Takes the next batch if it may be trained now."""
        ...

    def lose_batch(self) -> None:
        """The last batch was lost before it was consumed: another one gets its number."""
        ...
