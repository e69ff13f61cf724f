"""A buffer's account: what actors report as sent, against what has arrived.

Rollouts are identified by (actor, epoch, sequence), so duplicates are detected; lost rollouts show
as a gap in their actor's running total.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.messages import COORDINATOR, ActorLost, Report, index_of, source_of
from engine.roles.commands import Command, Send
from engine.rollout import RolloutInfo
from engine.trace.records import DROP, Event
from engine.wording import plural


@dataclass(frozen=True)
class RolloutEntry:
    """The result of entering a rollout.

    Attributes:
        is_new: False for a duplicate, which must be ignored.
        notes: Trace records to send, if it was a duplicate or earlier rollouts were lost.
    """

    is_new: bool
    notes: tuple[Command, ...] = ()


class RolloutLedger:
    """Counts env steps of one buffer.

    Args:
        address: The buffer's, for the trace.

    Attributes:
        dropped: Env steps that were lost, too late or without an open ticket.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._received: dict[str, int] = {}
        self._totals: dict[tuple[int, int], int] = {}
        self._next_sequence: dict[tuple[int, int], int] = {}
        self._lost: set[tuple[int, int]] = set()
        """Lost incarnations of actors, as (actor, epoch)."""
        self.dropped = 0

    @property
    def collected(self) -> int:
        """Env steps that actors have collected, as far as they have reported."""
        return sum(self._totals.values())

    @property
    def lost_collected(self) -> dict[str, int]:
        """Env steps that each lost incarnation had collected, as far as it had reported."""
        return {source_of(*source): self._totals.get(source, 0) for source in self._lost}

    def lose(self, event: ActorLost, now_s: float) -> list[Command]:
        """Handles a lost incarnation of an actor: what has not arrived of it never will."""
        source = (int(event.actor.rpartition("-")[2]), event.epoch)
        if source not in self._lost:
            self._lost.add(source)
            self._received.pop(event.actor, None)
        return self._write_off(source, event.collected, now_s, "lost with it")

    def close(self, sent_env_steps: Mapping[str, int], now_s: float) -> list[Command]:
        """Makes the final count of what living actors report as sent, arrived or not.

        No rollout may be entered after this.
        """
        commands = []
        for actor, total in sent_env_steps.items():
            number = index_of(actor)
            epoch = 1 + max((lost for index, lost in self._lost if index == number), default=-1)
            commands += self._write_off((number, epoch), total, now_s, "never arrived")
        return commands

    def _write_off(
        self, source: tuple[int, int], total_env_steps: int, now_s: float, how: str
    ) -> list[Command]:
        """Counts as dropped what an incarnation collected beyond what has arrived."""
        missing = total_env_steps - self._totals.get(source, 0)
        if missing <= 0:
            return []
        self._totals[source] = total_env_steps
        self.dropped += missing
        detail = f"{plural(missing, 'env step')} {how}"
        return [self.note(now_s, "loss", f"actor-{source[0]}", detail)]

    def enter(self, info: RolloutInfo, now_s: float) -> RolloutEntry:
        """Enters a rollout; a gap before it in its actor's total counts as dropped."""
        actor, source = f"actor-{info.actor}", (info.actor, info.epoch)
        if source in self._lost:
            total = info.total_env_steps
            return RolloutEntry(False, tuple(self._write_off(source, total, now_s, "lost with it")))
        if info.sequence < self._next_sequence.get(source, 0):
            detail = f"rollout {info.sequence} arrived twice"
            return RolloutEntry(False, (self.note(now_s, "duplicate", actor, detail),))
        self._next_sequence[source] = info.sequence + 1
        self._received[actor] = self._received.get(actor, 0) + 1
        lost = info.total_env_steps - self._totals.get(source, 0) - info.num_env_steps
        self._totals[source] = info.total_env_steps
        if lost <= 0:
            return RolloutEntry(True)
        self.dropped += lost
        return RolloutEntry(
            True, (self.note(now_s, "loss", actor, f"{plural(lost, 'env step')} never arrived"),)
        )

    def drop(self, info: RolloutInfo, now_s: float, reason: str) -> Command:
        """Counts a whole rollout as dropped, with the reason."""
        self.dropped += info.num_env_steps
        detail = f"{plural(info.num_env_steps, 'env step')} of version {info.version_min}: {reason}"
        row = Event(
            t_s=now_s,
            kind=DROP,
            host="",
            role=f"actor-{info.actor}",
            detail=detail,
            epoch=info.epoch,
            sequence=info.sequence,
            env_steps=info.num_env_steps,
        )
        return self._report(row)

    def lose_batch(self, batch: int, env_steps: int, now_s: float) -> Command:
        """Counts a batch as dropped that never reached its learner."""
        self.dropped += env_steps
        detail = f"{plural(env_steps, 'env step')} of batch {batch} never reached the learner"
        return self.note(now_s, "loss", self._address, detail)

    def has_all(self, sent_rollouts: Mapping[str, int]) -> bool:
        """Whether all rollouts that actors report as sent have arrived."""
        return all(self._received.get(actor, 0) >= sent for actor, sent in sent_rollouts.items())

    def note(self, now_s: float, kind: str, role: str, detail: str) -> Command:
        """A row for the table of events."""
        return self._report(Event(t_s=now_s, kind=kind, host="", role=role, detail=detail))

    def _report(self, row: Event) -> Command:
        return Send(COORDINATOR, Report(address=self._address, records=[row]))
