"""The balance strategy of replay: samples trained per env step collected stay at a set ratio.

With a queue each sample is used once, and balance means production = consumption. With replay the
learner could train for ever on the stored samples, and actors could collect without any training.
Both sides are therefore bound by

    |sampled - ratio x (inserted - min_size)| <= tolerance       once min_size steps are there

the learner waits when it would train too much, actors wait (for tickets) when they would collect
too much. Source: the `SampleToInsertRatio` rate limiter of Reverb (Cassirer et al., 2021).

If a policy requires actors to use only the newest weights, both sides alternate instead: see
`RoundLimiter`.

Pure: no clock, no sockets. `engine.roles.replay_buffer` feeds it.
"""

from __future__ import annotations

import math

from engine.progress import LimiterState


def least_tolerance(ratio: float, batch_samples: int, rollout_steps: int) -> float:
    """One batch and one rollout, in samples; with less, both sides could wait for ever."""
    return batch_samples + ratio * rollout_steps


class RateLimiter:
    """Decides whether a rollout can be collected and whether a batch can be drawn.

    Args:
        ratio: Samples per env step.
        min_size: Env steps before the first sample.
        batch_samples: Samples of one batch.
        rollout_steps: Env steps of one rollout, at most.
        tolerance: In samples.

    Raises:
        ValueError: The tolerance is below `least_tolerance`.
    """

    def __init__(
        self,
        *,
        ratio: float,
        min_size: int,
        batch_samples: int,
        rollout_steps: int,
        tolerance: float,
    ) -> None:
        if tolerance < least_tolerance(ratio, batch_samples, rollout_steps):
            raise ValueError(f"a tolerance of {tolerance} samples could block both sides")
        self._ratio = ratio
        self._min_size = min_size
        self._batch_samples = batch_samples
        self._rollout_steps = rollout_steps
        self._tolerance = tolerance
        self._num_tickets = 0
        self._open: dict[int, str] = {}
        self.inserted = 0
        """Env steps."""
        self.sampled = 0
        """Samples."""

    @property
    def error(self) -> float:
        """Samples that the learner is behind (above 0) or ahead (below 0)."""
        return self._ratio * (self.inserted - self._min_size) - self.sampled

    @property
    def num_open(self) -> int:
        """Tickets given for rollouts that have not arrived."""
        return len(self._open)

    def admit(self, owner: str) -> int | None:
        """A ticket to collect one rollout; the one already given if `owner` still has it.

        Returns:
            None while collecting more would leave the learner too far behind.
        """
        for ticket, holder in self._open.items():
            if holder == owner:
                return ticket
        coming = self.inserted + (len(self._open) + 1) * self._rollout_steps
        behind = self._ratio * (coming - self._min_size) - self.sampled
        if coming > self._min_size + self._rollout_steps and behind > self._tolerance:
            return None
        ticket, self._num_tickets = self._num_tickets, self._num_tickets + 1
        self._open[ticket] = owner
        return ticket

    def arrive(self, ticket: int, env_steps: int) -> bool:
        """A rollout is here.

        Returns:
            False if its ticket is not open: a duplicate, or from a lost actor. It does not count.
        """
        if self._open.pop(ticket, None) is None:
            return False
        self.inserted += env_steps
        return True

    def lose(self, owner: str) -> None:
        """Drops the ticket that a dead actor held."""
        self._open = {ticket: holder for ticket, holder in self._open.items() if holder != owner}

    def lose_sent(self, owner: str, last_sent: int) -> None:
        """Forgets the ticket in hand if `owner` has sent its rollout: it was lost on its way.

        Should that rollout come late, it has no ticket.
        """
        self._open = {
            ticket: holder
            for ticket, holder in self._open.items()
            if holder != owner or ticket > last_sent
        }

    def lose_batch(self) -> None:
        """The last batch was lost before it was trained on: it counts as not drawn."""
        self.sampled -= self._batch_samples

    @property
    def state(self) -> LimiterState:
        """For a saved store. Tickets are not part of it: their rollouts are lost."""
        return LimiterState(inserted=self.inserted, sampled=self.sampled)

    def restore(self, state: LimiterState) -> None:
        """Takes over the counts of a saved store."""
        self.inserted, self.sampled = state.inserted, state.sampled

    def take_batch(self) -> bool:
        """Counts one batch as drawn, if that does not put the learner too far ahead."""
        if self.inserted < max(self._min_size, 1):
            return False
        if self.error - self._batch_samples < -self._tolerance:
            return False
        self.sampled += self._batch_samples
        return True


class RoundLimiter(RateLimiter):
    """Alternates between actors and learner: no rollout is collected while batches are due.

    A round is a number of rollouts. When all have arrived, the learner draws every batch that the
    ratio allows, none or several; then the next round starts, with the new weights. Rollouts of a
    lost actor are not collected again; other actors have the rest of the round.

    Args:
        ratio, min_size, batch_samples, rollout_steps: See `RateLimiter`.
        rollouts_per_round: Rollouts of one round.
    """

    def __init__(
        self,
        *,
        ratio: float,
        min_size: int,
        batch_samples: int,
        rollout_steps: int,
        rollouts_per_round: int,
    ) -> None:
        super().__init__(
            ratio=ratio,
            min_size=min_size,
            batch_samples=batch_samples,
            rollout_steps=rollout_steps,
            tolerance=math.inf,
        )
        self._rollouts_per_round = rollouts_per_round
        self._num_left = rollouts_per_round
        self._num_lost_batches = 0

    def admit(self, owner: str) -> int | None:
        """See `RateLimiter`; None until the next round if this one has all its rollouts."""
        if not self._num_left and not self.num_open and not self._owes_batch:
            self._num_left = self._rollouts_per_round
        if self._num_left == 0 and owner not in self._open.values():
            return None
        before = self._num_tickets
        ticket = super().admit(owner)
        self._num_left -= self._num_tickets - before
        return ticket

    def lose_batch(self) -> None:
        """The last batch was lost; it is drawn again at once, even if a round has started."""
        super().lose_batch()
        self._num_lost_batches += 1

    @property
    def state(self) -> LimiterState:
        """See `RateLimiter`; rollouts of open tickets are collected again."""
        return LimiterState(
            inserted=self.inserted,
            sampled=self.sampled,
            rollouts_left=self._num_left + self.num_open,
            lost_batches=self._num_lost_batches,
        )

    def restore(self, state: LimiterState) -> None:
        """See `RateLimiter`; a round has at most as many rollouts as there are actors now."""
        super().restore(state)
        left = self._rollouts_per_round if state.rollouts_left is None else state.rollouts_left
        self._num_left = min(left, self._rollouts_per_round)
        self._num_lost_batches = state.lost_batches

    def take_batch(self) -> bool:
        """Counts one batch as drawn, if it is the learner's turn and a batch is due."""
        if self._num_lost_batches:
            self._num_lost_batches -= 1
        elif self._num_left or self.num_open or not self._owes_batch:
            return False
        self.sampled += self._batch_samples
        return True

    @property
    def _owes_batch(self) -> bool:
        has_enough = self.inserted >= max(self._min_size, 1)
        return has_enough and self.error >= self._batch_samples


def make_limiter(
    *,
    ratio: float,
    min_size: int,
    batch_samples: int,
    rollout_steps: int,
    num_actors: int,
    keeps_in_step: bool,
) -> RateLimiter:
    """A limiter with room for every actor to collect while two batches are trained; if actors are
    synchronized, a round is one rollout of each.

    Args:
        ratio, min_size, batch_samples, rollout_steps: See `RateLimiter`.
        num_actors: Actors that send to the store.
        keeps_in_step: Whether they use only the newest weights.
    """
    if keeps_in_step:
        return RoundLimiter(
            ratio=ratio,
            min_size=min_size,
            batch_samples=batch_samples,
            rollout_steps=rollout_steps,
            rollouts_per_round=num_actors,
        )
    least = least_tolerance(ratio, batch_samples, rollout_steps)
    return RateLimiter(
        ratio=ratio,
        min_size=min_size,
        batch_samples=batch_samples,
        rollout_steps=rollout_steps,
        tolerance=least + batch_samples + ratio * rollout_steps * num_actors,
    )
