"""Liveness of hosts, their supervisors and actors, including restarted actors.

Pure, like the coordinator that uses it: its inputs are heartbeats, deaths and rows, and it decides
what is lost and what is restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from engine.blame import ERROR
from engine.messages import (
    COORDINATOR,
    ActorLost,
    Alive,
    Exit,
    Restart,
    TicketVoided,
    role_of,
    source_of,
)
from engine.roles.commands import Command, Send
from engine.trace.records import UNREPORTED, Production, Record

BEAT_S = 2.0
"""Period of heartbeats between coordinator and supervisors."""
LEASE_S = 10.0
"""A supervisor that has heard nothing from the coordinator for this long ends its roles."""
HOST_LOST_S = 12.0
"""The coordinator gives up a silent host only after that host has ended its own roles."""


class Liveness:
    """Hosts and actors of a run.

    Args:
        addresses: All roles but the coordinator.
        supervisors: Of all hosts.
        restarts: Most restarts of actors, over the whole run.
        num_groups: Every actor belongs to one, by its number.
    """

    def __init__(
        self,
        addresses: tuple[str, ...],
        supervisors: tuple[str, ...],
        restarts: int,
        num_groups: int = 1,
    ) -> None:
        self._num_groups = num_groups
        self._has_buffers = any(role_of(address) == "buffer" for address in addresses)
        self._supervisors = supervisors
        self._heard_s: dict[str, float] = {}
        self._supervisor_of: dict[str, str] = {}
        self._lost: set[str] = set()
        """Supervisors of hosts that were given up: they must end, whatever they still send."""
        self._restarts_left = restarts
        self._early_errors: set[str] = set()
        """Errors that actors raised before their first rollout."""
        self._epochs: dict[str, int] = {}
        self._produced: dict[str, int] = {}
        self._lost_sources: dict[str, tuple[str, int]] = {}
        self._beat_at_s = 0.0
        self.absent: set[str] = set()
        """Actors that are gone without ending the run; some are being restarted."""

    @property
    def is_complete(self) -> bool:
        """Whether every supervisor has been heard."""
        return set(self._heard_s) >= set(self._supervisors)

    @property
    def unheard(self) -> list[str]:
        """Supervisors that were never heard: the network to their hosts is possibly blocked."""
        return sorted(set(self._supervisors) - set(self._heard_s))

    @property
    def has_supervisors(self) -> bool:
        """Whether the run has supervisors, and so separate processes."""
        return bool(self._supervisors)

    def supervisor_on(self, host: str) -> str | None:
        """Address of a host's supervisor; None if it was never heard or is lost."""
        name = self._supervisor_of.get(host)
        return name if name in self._heard_s else None

    def start(self, now_s: float) -> None:
        """Restarts the clock at `now_s`."""
        self._heard_s = dict.fromkeys(self._heard_s, now_s)
        self._beat_at_s = now_s

    def hear(self, event: Alive, now_s: float) -> list[Command]:
        """Records a heartbeat of a supervisor.

        One whose host was given up can have stalled and hold heartbeats from that time. It is told
        to end its part, from which nothing is accepted any more.
        """
        if event.address in self._lost:
            return [Send(event.address, Exit())]
        self._heard_s[event.address] = now_s
        self._supervisor_of[event.host] = event.address
        return []

    def beat(self, now_s: float) -> list[Command]:
        """Sends a heartbeat, if due, to the supervisors of all hosts that were not given up."""
        if now_s < self._beat_at_s:
            return []
        self._beat_at_s = now_s + BEAT_S
        beat = Alive(address=COORDINATOR)
        return [Send(name, beat) for name in self._supervisors if name not in self._lost]

    def silent_hosts(self, now_s: float) -> list[str]:
        """Hosts that went silent since the last call; they count as lost."""
        silent = [
            host
            for host, name in self._supervisor_of.items()
            if name in self._heard_s and now_s - self._heard_s[name] > HOST_LOST_S
        ]
        return [host for host in silent if self.give_up(host)]

    def give_up(self, host: str) -> bool:
        """Counts a host as lost; returns whether it was alive until now."""
        supervisor = self._supervisor_of.get(host, "")
        self._lost.add(supervisor)
        return self._heard_s.pop(supervisor, None) is not None

    def is_heard(self, host: str, now_s: float) -> bool:
        """Whether this host's supervisor is alive and has not been silent for too long."""
        heard_s = self._heard_s.get(self._supervisor_of.get(host, ""))
        return heard_s is not None and now_s - heard_s <= HOST_LOST_S

    def is_lost(self, host: str) -> bool:
        """Whether this host has been given up."""
        return host in self._supervisor_of and self._supervisor_of[host] not in self._heard_s

    def may_restart(self, actor: str, host: str) -> bool:
        """Whether the restart budget and the host's supervisor are left."""
        return (
            role_of(actor) == "actor"
            and self._restarts_left > 0
            and self._supervisor_of.get(host) in self._heard_s
        )

    def raises_again(self, actor: str, log_tail: Sequence[str]) -> bool:
        """Whether restarting an actor is useless: it raised before its first rollout, and either
        another actor did so before, or no actor has got past that point."""
        if not log_tail or not log_tail[0].startswith(ERROR):
            return False  # it was killed, for example
        source = source_of(int(actor.rpartition("-")[2]), self._epochs.get(actor, 0))
        if self._produced.get(source):
            return False
        has_come = log_tail[0] in self._early_errors
        self._early_errors.add(log_tail[0])
        return has_come or not any(self._produced.values())

    def restart(self, actor: str, host: str) -> list[Command]:
        """Restarts a dead actor on the same host."""
        self._restarts_left -= 1
        commands = self.lose(actor)
        epoch = self._epochs[actor]
        return [*commands, Send(self._supervisor_of[host], Restart(process=actor, epoch=epoch))]

    def lose(self, actor: str) -> list[Command]:
        """Continues without this incarnation of an actor."""
        epoch = self._epochs.get(actor, 0)
        self._epochs[actor] = epoch + 1
        self.absent.add(actor)
        source = source_of(int(actor.rpartition("-")[2]), epoch)
        self._lost_sources[source] = (actor, epoch)
        return self._tell_buffer(source)

    def do_without(self, actor: str) -> list[Command]:
        """Stops waiting for what this actor holds, although it is alive."""
        voided = TicketVoided(actor=actor)
        return [Send(self._buffer_of(actor), voided)] if self._has_buffers else []

    def _buffer_of(self, actor: str) -> str:
        return f"buffer-{int(actor.rpartition('-')[2]) % self._num_groups}"

    def note(self, records: Iterable[Record]) -> list[Command]:
        """Tracks what each incarnation reports as collected, also after its death."""
        late: list[str] = []
        for record in records:
            if isinstance(record, Production):
                source = source_of(record.actor, record.epoch)
                self._produced[source] = max(record.env_steps_total, self._produced.get(source, 0))
                if source in self._lost_sources:
                    late.append(source)
        return [command for source in late for command in self._tell_buffer(source)]

    def unreported(self, lost_collected: Mapping[str, int], now_s: float) -> list[Production]:
        """Rows for rollouts that reached a buffer although their actor died before reporting them.

        Args:
            lost_collected: Env steps of each lost incarnation, from its buffer's final report.
            now_s: When they are counted.
        """
        missing = {
            source: total - self._produced.get(source, 0)
            for source, total in lost_collected.items()
            if source in self._lost_sources
        }
        return [
            self._speak_for(*self._lost_sources[source], env_steps, now_s)
            for source, env_steps in missing.items()
            if env_steps > 0
        ]

    def has_lost(self, actors: Iterable[str]) -> bool:
        """Whether any incarnation of these is lost."""
        names = set(actors)
        return any(actor in names for actor, _ in self._lost_sources.values())

    def untold(self, actors: Sequence[str], env_steps: int, now_s: float) -> Production:
        """A row for env steps that one of these actors collected; it is no longer known which.
        They are assigned to a lost one, else to the first."""
        lost = (life for life in self._lost_sources.values() if life[0] in actors)
        actor, epoch = max(lost, key=itemgetter(1), default=self._life_of(actors[0]))
        return self._speak_for(actor, epoch, env_steps, now_s)

    def _life_of(self, actor: str) -> tuple[str, int]:
        return actor, self._epochs.get(actor, 0)

    def _speak_for(self, actor: str, epoch: int, env_steps: int, now_s: float) -> Production:
        """Counts what an incarnation never reported."""
        number = int(actor.rpartition("-")[2])
        source = source_of(number, epoch)
        total = self._produced[source] = self._produced.get(source, 0) + env_steps
        return Production(
            t_s=now_s,
            actor=number,
            epoch=epoch,
            sequence=UNREPORTED,
            env_steps=env_steps,
            env_steps_total=total,
            version_min=0,
            version_max=0,
            collect_s=0.0,
            wait_s=0.0,
        )

    def _tell_buffer(self, source: str) -> list[Command]:
        actor, epoch = self._lost_sources[source]
        lost = ActorLost(actor=actor, epoch=epoch, collected=self._produced.get(source, 0))
        return [Send(self._buffer_of(actor), lost)] if self._has_buffers else []
