"""The compute groups of a run: their roles, which groups are lost, and the account of each.

Pure, like the coordinator that uses it. A group whose learner or buffer dies is lost; its other
roles are stopped, and the other groups continue.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

from engine.graph.cut import Cut
from engine.messages import Counters, GroupLost, Stop, role_of
from engine.roles.commands import Command, Send
from engine.roles.coordinator.totals import RunTotals
from engine.trace.records import Ledger

_Account: TypeAlias = tuple[int, int, int, int]
"""Env steps collected, consumed, dropped, in flight."""


@dataclass(frozen=True)
class Gap:
    """What is missing in the reports of a group.

    Attributes:
        buffer: That of the group.
        actors: Those of the group, the ones without a final report first.
        env_steps: Certainly collected, and reported by none of them.
        is_counted: Whether the buffer has sent a final report, or nothing was collected.
    """

    buffer: str
    actors: tuple[str, ...]
    env_steps: int
    is_counted: bool


class Groups:
    """Groups of one run.

    Args:
        cut: How many there are and how they are merged.
        process_of: The process that runs each role, where the names differ.
    """

    def __init__(self, cut: Cut, process_of: Mapping[str, str]) -> None:
        self._cut = cut
        self._process_of = dict(process_of)
        self._members: dict[int, list[str]] = {group: [] for group in range(cut.groups)}
        self._processes: dict[str, list[str]] = {}
        self._lost: set[int] = set()
        self.dead: set[str] = set()
        """Roles that died with their group, without ending the run."""
        for address in cut.addresses:
            process = process_of.get(address, address)
            self._processes.setdefault(process, []).append(address)
            if (group := self._cut.group_of_role(address)) is not None:
                self._members[group].append(address)

    @property
    def count(self) -> int:
        return self._cut.groups

    @property
    def is_joint(self) -> bool:
        """Whether all learners take every update together."""
        return self._cut.is_joint

    def process_of(self, address: str) -> str:
        """The process of this role."""
        return self._process_of.get(address, address)

    def roles_in(self, process: str) -> list[str]:
        """The roles of a process; for a name that is not a process of the run, itself."""
        return self._processes.get(process, [process])

    def actors_of(self, role: str) -> list[str]:
        """An actor itself; the actors that act in the environments of a role."""
        kind, _, number = role.rpartition("-")
        if kind == "environment":
            return [f"actor-{actor}" for actor in self._cut.actors_in(int(number))]
        return [role]

    def lose(self, roles: list[str]) -> list[int]:
        """Continues without the groups of roles that died together.

        Returns:
            The groups that are lost by it; empty if the run cannot continue without those roles.
        """
        is_heart = any(role_of(role) in ("learner", "buffer") for role in roles)
        groups = {self._cut.group_of_role(role) for role in roles}
        hit = sorted(group for group in groups if group is not None)
        left = set(self._members) - self._lost - set(hit)
        is_whole = self._cut.is_joint or self._cut.is_apart
        if not is_heart or None in groups or is_whole or not left:
            return []
        self._lost.update(hit)
        self.dead.update(roles)
        return hit

    def part_with(self, group: int, totals: RunTotals, now_s: float) -> list[Command]:
        """Stops the remaining roles of a lost group."""
        commands: list[Command] = [
            Send(address, Stop(standing=totals.standing_of(address, now_s)))
            for address in self._members[group]
            if address not in self.dead and role_of(address) != "buffer"
        ]
        if self._cut.has_reducer:
            commands.append(Send("reducer-0", GroupLost(group=group)))
        return commands

    def settle(
        self, counters: Mapping[str, Counters], totals: RunTotals, absent: set[str]
    ) -> list[Command]:
        """Stops the buffers of lost groups whose other roles have sent their final report.

        Args:
            counters: The final reports so far.
            totals: What was reported.
            absent: Actors that died before, from which no report is expected.
        """
        commands: list[Command] = []
        for group in sorted(self._lost):
            buffer = f"buffer-{group}"
            silent = self.dead | absent | {buffer}
            living = [address for address in self._members[group] if address not in silent]
            is_due = buffer not in self.dead and buffer not in counters
            if is_due and all(address in counters for address in living):
                commands.append(Send(buffer, self.last_stop(buffer, counters, totals)))
        return commands

    def last_stop(self, buffer: str, counters: Mapping[str, Counters], totals: RunTotals) -> Stop:
        """The `Stop` of a buffer, with the counts of its own group."""
        group = int(buffer.rpartition("-")[2])
        words = {a: counters[a] for a in self._actors(group) if a in counters}
        learner = counters.get(f"learner-{group}")
        consumed = totals.consumed_by.get(group, 0) if learner is None else learner.consumed
        return Stop(
            sent_rollouts={actor: word.sent_rollouts for actor, word in words.items()},
            sent_env_steps={actor: word.collected - word.unsent for actor, word in words.items()},
            consumed_env_steps=consumed,
        )

    def gaps(
        self, counters: Mapping[str, Counters], totals: RunTotals, absent: AbstractSet[str]
    ) -> list[Gap]:
        """Groups with incomplete reports, because a buffer's counts were lost with it.

        What had reached the buffer, and what was consumed or dropped, was certainly collected,
        although no actor has reported it.

        Args:
            counters: The final reports.
            totals: What was reported.
            absent: Actors that are gone, whose counts come from their buffer.
        """
        found = []
        for group in self._members:
            if self._has_spoken(group, counters, absent):
                continue
            row, buffer = totals.ledger_of(group), f"buffer-{group}"
            consumed = totals.consumed_by.get(group, 0)
            least = max(row.collected, consumed + self._dropped(group, counters, totals))
            actors = sorted(self._actors(group), key=lambda actor: actor in counters)
            missing = max(0, least - self._told(group, totals))
            is_counted = buffer in counters or least == 0
            found.append(Gap(buffer, tuple(actors), missing, is_counted))
        return found

    def final_ledger(
        self,
        counters: Mapping[str, Counters],
        totals: RunTotals,
        absent: AbstractSet[str],
        now_s: float,
    ) -> Ledger:
        """The count over all groups; a group's own figures, if all its roles sent a final report.

        If a role's counts were lost with it, the reported ones; what is neither consumed nor
        dropped then counts as in flight.
        """
        sums = [0, 0, 0, 0]
        for group in self._members:
            account = self._own if self._has_spoken(group, counters, absent) else self._known
            for place, value in enumerate(account(group, counters, totals)):
                sums[place] += value
        collected, consumed, dropped, in_flight = sums
        return Ledger(
            t_s=now_s, collected=collected, consumed=consumed, dropped=dropped, in_flight=in_flight
        )

    def _has_spoken(
        self, group: int, counters: Mapping[str, Counters], absent: AbstractSet[str]
    ) -> bool:
        expected = (address for address in self._members[group] if address not in absent)
        return group not in self._lost and all(address in counters for address in expected)

    def _own(self, group: int, counters: Mapping[str, Counters], totals: RunTotals) -> _Account:
        own = [counters[address] for address in self._members[group] if address in counters]
        collected = sum(item.collected + sum(item.lost_collected.values()) for item in own)
        in_flight = sum(item.queued + item.staged + item.unsent for item in own)
        late = 0
        if any(item.lost_collected for item in own):  # a dead actor's report can arrive after that
            late = max(0, self._told(group, totals) - collected)
        consumed = sum(item.consumed for item in own)
        return collected + late, consumed, sum(item.dropped for item in own), in_flight + late

    def _known(self, group: int, counters: Mapping[str, Counters], totals: RunTotals) -> _Account:
        collected, consumed = self._told(group, totals), totals.consumed_by.get(group, 0)
        dropped = self._dropped(group, counters, totals)
        return collected, consumed, dropped, collected - consumed - dropped

    def _told(self, group: int, totals: RunTotals) -> int:
        """Env steps that its actors have reported as collected."""
        return sum(totals.collected_by.get(number, 0) for number in self._cut.actors_of(group))

    def _dropped(self, group: int, counters: Mapping[str, Counters], totals: RunTotals) -> int:
        """The last reported counts of a buffer without a final report."""
        word = counters.get(f"buffer-{group}")
        return totals.ledger_of(group).dropped if word is None else word.dropped

    def _actors(self, group: int) -> list[str]:
        return [address for address in self._members[group] if role_of(address) == "actor"]
