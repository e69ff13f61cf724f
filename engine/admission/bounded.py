"""The balance strategy: admission control that bounds the age of samples without stopping a role.

Staleness of a sample is `lag = version of the learner at consumption - behaviour version`. A queue
learner consumes batch n at version n, B rollouts each. So what a rollout's lag will be is decided
when it *starts*: with behaviour version v it must be consumed by batch `v + max_lag`, its deadline.
Let the admitted and not yet consumed rollouts have sorted deadlines d_0 <= d_1 <= ... and let n be
the next batch. All of them can be consumed in time exactly if

    d_i >= n + i // B   for every i                                   (earliest deadline first)

An actor that asks for admission therefore gets a ticket with the lowest behaviour version that
keeps this true. Mostly it already has it and starts at once; otherwise it waits for the weights.
Production thus never runs ahead of consumption by more than the bound, and no rate is guessed.
If the bound moves (`engine.admission.adaptive`), a rollout keeps the one that it was admitted with;
the condition is about deadlines only, so it holds for any mixture of them.
Source: TianJi (AAAI 2025), "balancing sample production and consumption"; the schedulability
condition is that of earliest-deadline-first scheduling with unit jobs.

Pure: no clock, no sockets. `engine.roles.buffer` feeds it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.admission.tickets import Batch, Ticket
from engine.spec import StalenessSpec

UNBOUNDED_LAG = 1 << 62


@dataclass
class _Admitted:
    owner: str
    deadline: int
    max_lag: int
    has_arrived: bool = False


def most_collecting(staleness: StalenessSpec, rollouts_per_batch: int, num_actors: int) -> int:
    """How many of a group's actors can collect at the same time under its rules."""
    most = min(num_actors, staleness.queue_length(num_actors, rollouts_per_batch))
    if staleness.bound is not None:
        most = min(most, rollouts_per_batch * (staleness.bound + 1))
    return most


class Admission:
    """Decides which rollouts can start and which are trained next.

    Args:
        staleness: Mode and bound.
        rollouts_per_batch: B.
        num_actors: Actors that can ask; see `StalenessSpec.queue_length`.
        next_batch: Version at which the next batch will be consumed (above 0 after a resume).
        order: These actors, if they get tickets in turn instead of first come, first served. A
            ticket is then for a batch no earlier than that of any ticket before it whose rollout is
            still to come. The bound must not move then: a ticket with a smaller one would wait for
            weights that only rollouts behind it could bring.
    """

    def __init__(
        self,
        staleness: StalenessSpec,
        rollouts_per_batch: int,
        next_batch: int = 0,
        num_actors: int = 1,
        order: Sequence[str] = (),
    ) -> None:
        self._order = tuple(order)
        bound = staleness.first_bound
        self.max_lag = UNBOUNDED_LAG if bound is None else bound
        """Of rollouts that are admitted from now on."""
        self._waits_for_stragglers = staleness.mode == "block"
        self._per_batch = rollouts_per_batch
        self._capacity = staleness.queue_length(num_actors, rollouts_per_batch)
        self._next_batch = next_batch
        self._num_admitted = 0
        self._admitted: dict[int, _Admitted] = {}
        self._in_hand: dict[str, int] = {}
        """The outstanding ticket of each owner."""
        self._deadlines: list[int] = []
        """Deadlines of all admitted rollouts, the earliest first."""
        self._arrived: list[tuple[int, int]] = []
        """Deadline and number of arrived rollouts, the earliest first."""

    @property
    def next_batch(self) -> int:
        return self._next_batch

    @property
    def num_outstanding(self) -> int:
        """Rollouts admitted and neither consumed nor dropped."""
        return len(self._admitted)

    @property
    def changed_from(self) -> None:
        """See `Gatekeeper`: nothing here is the same in every run."""
        return None

    def next_to_begin(self, waiting: Mapping[str, int]) -> str | None:
        """See `Gatekeeper`: of those that wait the first, or whose turn it is, if it waits. Whoever
        asks again for the ticket that it holds gets the same, at any time."""
        if not self._order:
            return next(iter(waiting), None)
        again = (owner for owner in waiting if owner in self._in_hand)
        in_turn = self._order[self._num_admitted % len(self._order)]
        return next(again, in_turn if in_turn in waiting else None)

    def admit(self, owner: str, held_version: int) -> Ticket | None:
        """Admits one rollout of `owner`, whose newest weights are `held_version` (-1: none).

        Returns:
            The ticket; if `owner` still holds one, that one, asking for no newer weights than
            the schedule now needs (it relaxes when other actors are lost); None if the queue is
            full, in which case `owner` should be tried again after the next batch.
        """
        number, max_lag = self._in_hand.get(owner), self.max_lag
        if number is not None:
            max_lag = self._forget(number).max_lag  # it has possibly begun under this one
        elif len(self._admitted) >= self._capacity:
            return None
        else:
            number = self._num_admitted
            self._num_admitted += 1
        wanted = max(held_version, 0) + max_lag
        if self._order:
            before = (other for other in self._in_hand.values() if other < number)
            wanted = max(wanted, *(self._admitted[other].deadline for other in before), 0)
        deadline = self._earliest_deadline(wanted)
        self._admitted[number] = _Admitted(owner, deadline, max_lag)
        self._in_hand[owner] = number
        insort(self._deadlines, deadline)
        return Ticket(number, owner, deadline - max_lag, max_lag=max_lag)

    def _forget(self, number: int) -> _Admitted:
        item = self._admitted.pop(number)
        del self._deadlines[bisect_left(self._deadlines, item.deadline)]
        if self._in_hand.get(item.owner) == number:
            del self._in_hand[item.owner]
        return item

    def arrive(self, number: int, version_min: int) -> bool:
        """Records that a rollout has arrived.

        Returns:
            False if this ticket is not outstanding: a duplicate, or from a lost actor.
        """
        item = self._admitted.get(number)
        if item is None or item.has_arrived:
            return False
        self._forget(number)
        deadline = version_min + item.max_lag
        arrived = _Admitted(item.owner, deadline, item.max_lag, has_arrived=True)
        self._admitted[number] = arrived
        insort(self._deadlines, arrived.deadline)
        insort(self._arrived, (arrived.deadline, number))
        return True

    def lose(self, owner: str) -> None:
        """Drops the ticket that a dead actor held; what arrived from the actor is kept."""
        number = self._in_hand.get(owner)
        if number is not None:
            self._forget(number)

    def void(self, owner: str) -> None:
        """See `Gatekeeper`: as if it were dead, except that it can ask again."""
        self.lose(owner)

    def lose_sent(self, owner: str, last_sent: int) -> bool:
        """Forgets the ticket in hand if `owner` has sent its rollout: it was lost on its way.

        Args:
            owner: Who asks for its next ticket.
            last_sent: Number of the newest ticket whose rollout it has sent.

        Returns:
            Whether there was such a ticket. Should its rollout come late, it has no ticket.
        """
        number = self._in_hand.get(owner)
        if number is None or number > last_sent:
            return False
        self._forget(number)
        return True

    def take_batch(self) -> Batch | None:
        """Takes the next B rollouts, oldest deadline first, if that breaks no bound.

        Returns:
            None while too few have arrived or, in mode `block`, while a straggler that is still
            being collected would come too late if this batch went ahead without it.
        """
        num_old = bisect_left(self._arrived, (self._next_batch, -1))
        too_old = tuple(number for _, number in self._arrived[:num_old])
        usable = self._arrived[num_old : num_old + self._per_batch]
        if len(usable) < self._per_batch or not self._leaves_others_in_time(usable):
            usable = []
        taken = tuple(number for _, number in usable)
        del self._arrived[: num_old + len(taken)]
        for number in (*too_old, *taken):
            self._forget(number)
        if taken:
            self._next_batch += 1
        return Batch(taken, too_old) if taken or too_old else None

    def lose_batch(self) -> None:
        """The last batch was lost before it was consumed: another one gets its number."""
        self._next_batch -= 1

    def _earliest_deadline(self, wanted: int) -> int:
        """The lowest deadline >= `wanted` that leaves the schedule feasible."""
        others = self._deadlines
        wanted = max(wanted, self._next_batch)
        latest = max(wanted, self._next_batch + len(others) // self._per_batch, *others[-1:])
        return next((d for d in range(wanted, latest) if self._is_feasible_with(d)), latest)

    def _is_feasible_with(self, deadline: int) -> bool:
        """Whether one more rollout can have this deadline. Later ones move back by one place, and
        only the first of each batch must be checked, since deadlines are sorted."""
        others, size, first = self._deadlines, self._per_batch, self._next_batch
        place = bisect_right(others, deadline)
        if deadline < first + place // size:
            return False
        if not self._waits_for_stragglers:  # a straggler is written off, so it constrains no batch
            return True
        before = range(0, place, size)
        behind = range((place // size + 1) * size, len(others) + 1, size)
        return all(others[i] >= first + i // size for i in before) and all(
            others[i - 1] >= first + i // size for i in behind
        )

    def _leaves_others_in_time(self, taken: list[tuple[int, int]]) -> bool:
        if not self._waits_for_stragglers:
            return True
        rest = self._deadlines.copy()
        for deadline, _ in taken:
            del rest[bisect_left(rest, deadline)]
        starts = range(0, len(rest), self._per_batch)
        return all(rest[i] >= self._next_batch + 1 + i // self._per_batch for i in starts)
