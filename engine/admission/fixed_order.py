"""Reproducible asynchrony: which rollout is trained when, and with which weights it is collected,
is decided before the run.

    slot      0  1 | 2  3 | 4  5 | 6  7        B = 2 rollouts a batch, two actors, lag 1
    actor     0  1 | 0  1 | 0  1 | 0  1
    batch       0  |   1  |   2  |   3         trained at this version
    weights     0  |   0  |   1  |   2         collected with exactly these

Rollouts have numbers, *slots*. Slot k belongs to batch k // B and to actor k modulo their number;
its weights are `lag` versions older than its batch, or the first ones. So neither depends on who is
fast: an actor that is ahead waits for its weights, a learner for the next slot, and `lag` batches
can be under way beside the one in training. Source: Cleanba (Huang et al. 2024), which does so with
one version, one actor thread and one batch.

A fault changes this: what an actor collects after a loss is not what it would have collected. The
run goes on with the slots that are left, and `changed_from` says from which batch on.

Pure: no clock, no sockets. `engine.roles.buffer` feeds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.admission.tickets import Batch, Ticket
from engine.spec import StalenessSpec


@dataclass
class _Turns:
    """The slots of one actor that it has not begun.

    Attributes:
        next: The first that nobody has begun yet; the others follow at equal distances.
        again: Earlier ones whose rollouts were lost, in order.
    """

    next: int
    again: list[int] = field(default_factory=list)

    @property
    def first(self) -> int:
        return self.again[0] if self.again else self.next


@dataclass(frozen=True)
class _Begun:
    owner: str
    slot: int
    of: str
    """The actor whose slot it is; another one than the owner if that is gone."""


class FixedOrder:
    """Decides which rollouts can start and which are trained next.

    Args:
        staleness: The lag, and how many rollouts may be queued.
        rollouts_per_batch: B.
        next_batch: Version at which the next batch will be consumed (above 0 after a resume).
        order: The actors, in turn.
    """

    def __init__(
        self,
        staleness: StalenessSpec,
        rollouts_per_batch: int,
        next_batch: int,
        order: Sequence[str],
    ) -> None:
        self._lag = staleness.lag
        self._per_batch = rollouts_per_batch
        self._capacity = staleness.queue_length(len(order), rollouts_per_batch)
        self._first_batch = self._next_batch = next_batch
        self._turns = {owner: _Turns(slot) for slot, owner in enumerate(order)}
        self._absent: set[str] = set()
        """Actors that are gone; whoever asks gets their slots, until they ask again."""
        self._num_admitted = 0
        self._begun: dict[int, _Begun] = {}
        """By ticket."""
        self._in_hand: dict[str, int] = {}
        """The outstanding ticket of each owner."""
        self._arrived: dict[int, int] = {}
        """Ticket by slot."""
        self._last: tuple[_Begun, ...] = ()
        """The rollouts of the batch that was taken last."""
        self._changed_from: int | None = None

    @property
    def next_batch(self) -> int:
        """See `Gatekeeper`."""
        return self._next_batch

    @property
    def changed_from(self) -> int | None:
        """See `Gatekeeper`."""
        return self._changed_from

    def next_to_begin(self, waiting: Mapping[str, int]) -> str | None:
        """See `Gatekeeper`: whose slot is the earliest."""
        return min(waiting, key=self._first_slot, default=None)

    def admit(self, owner: str, held_version: int) -> Ticket | None:
        """See `Gatekeeper`; the version that an actor holds does not matter.

        An actor that asks again has not begun. If an earlier slot was lost meanwhile, it gets that,
        or everybody could wait for weights that depend on it.
        """
        self._absent.discard(owner)
        number = self._in_hand.get(owner)
        if number is not None and self._whose(owner)[1] < self._begun[number].slot:
            self._give_back(owner)
            number = None
        if number is None:
            of, slot = self._whose(owner)
            if slot >= self._slots_done + self._capacity:
                return None
            self._begin(of)
            number = self._num_admitted
            self._num_admitted += 1
            self._in_hand[owner] = number
            self._begun[number] = _Begun(owner, slot, of)
        version = self._version_of(self._begun[number].slot)
        return Ticket(number, owner, version, self._version_of(self._turns[owner].first))

    def arrive(self, number: int, version_min: int) -> bool:
        """See `Gatekeeper`.

        Raises:
            RuntimeError: It was collected with other weights than its ticket says: an error of the
                program, after which nothing would be reproducible.
        """
        item = self._begun.get(number)
        if item is None or self._in_hand.get(item.owner) != number:
            return False
        if version_min != self._version_of(item.slot):
            wanted = self._version_of(item.slot)
            raise RuntimeError(f"slot {item.slot} has weights {version_min} instead of {wanted}")
        del self._in_hand[item.owner]
        self._arrived[item.slot] = number
        return True

    def lose(self, owner: str) -> None:
        """See `Gatekeeper`; its later slots are given to others, until it is there again."""
        self._give_back(owner)
        self._absent.add(owner)
        self._note_change(self._turns[owner].first)

    def void(self, owner: str) -> None:
        """Nothing: everybody waits for it, however long it takes."""

    def lose_sent(self, owner: str, last_sent: int) -> bool:
        """See `Gatekeeper`."""
        number = self._in_hand.get(owner)
        if number is None or number > last_sent:
            return False
        self._give_back(owner)
        self._note_change(self._turns[owner].first)
        return True

    def take_batch(self) -> Batch | None:
        """See `Gatekeeper`: the next B slots, in order, once all of them are there."""
        slots = range(self._slots_done, self._slots_done + self._per_batch)
        if any(slot not in self._arrived for slot in slots):
            return None
        taken = tuple(self._arrived.pop(slot) for slot in slots)
        self._last = tuple(self._begun.pop(number) for number in taken)
        self._next_batch += 1
        return Batch(taken, ())

    def lose_batch(self) -> None:
        """See `Gatekeeper`: its slots are collected again, by whose they are."""
        self._next_batch -= 1
        for item in self._last:
            self._put_back(item)
        self._last = ()
        self._note_change(self._slots_done)

    @property
    def _slots_done(self) -> int:
        """Slots in batches that were taken."""
        return (self._next_batch - self._first_batch) * self._per_batch

    def _version_of(self, slot: int) -> int:
        """The weights that a slot is collected with."""
        return self._first_batch + max(0, slot // self._per_batch - self._lag)

    def _whose(self, owner: str) -> tuple[str, int]:
        """The slot that an actor would begin now, and whose it is."""
        able = {owner, *self._absent}
        return min((self._turns[of].first, of) for of in able)[::-1]

    def _first_slot(self, owner: str) -> int:
        number, earliest = self._in_hand.get(owner), self._whose(owner)[1]
        return earliest if number is None else min(earliest, self._begun[number].slot)

    def _begin(self, of: str) -> None:
        turns = self._turns[of]
        if turns.again:
            del turns.again[0]
        else:
            turns.next += len(self._turns)

    def _give_back(self, owner: str) -> None:
        number = self._in_hand.pop(owner, None)
        if number is not None:
            self._put_back(self._begun.pop(number))

    def _put_back(self, item: _Begun) -> None:
        turns = self._turns[item.of]
        turns.again = sorted((*turns.again, item.slot))

    def _note_change(self, slot: int) -> None:
        batch = self._first_batch + slot // self._per_batch
        self._changed_from = min(batch, batch if self._changed_from is None else self._changed_from)
