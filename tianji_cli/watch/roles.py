"""Which roles a run has, where, and in which state each is (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.messages import COORDINATOR, index_of, role_of
from engine.trace.records import Event
from tianji_cli.analysis.run import ManifestView
from tianji_cli.plain_text import plain

State = Literal["starting", "running", "stuck", "gone", "stopped"]
MAX_PROCESSES = 4096
MAX_NAME = 120


def shown(text: str, length: int = MAX_NAME) -> str:
    """Text of a file as the page gets it: of bounded length, without characters that control."""
    return plain(text[:length])


@dataclass(frozen=True)
class ProcessInfo:
    """A process, as the manifest describes it.

    Attributes:
        name: Such as `actor-0`.
        host: Inventory name.
        roles: Addresses of the roles that it runs.
        device: On which it computes.
    """

    name: str
    host: str
    roles: tuple[str, ...]
    device: str = "cpu"


def processes_of(manifest: ManifestView) -> tuple[ProcessInfo, ...]:
    """The processes of a run; empty if the manifest names none, as that of an early release."""
    found = []
    section = ManifestView(manifest.section("processes"))
    for name in list(section.data)[:MAX_PROCESSES]:
        roles = section.section(name).get("roles")
        found.append(
            ProcessInfo(
                name=shown(name),
                host=shown(section.text(name, "host")),
                roles=tuple(shown(str(role)) for role in roles) if isinstance(roles, list) else (),
                device=shown(section.text(name, "device") or "cpu"),
            )
        )
    return tuple(found)


@dataclass
class RoleStates:
    """The state of each role, from the events of a run.

    Args:
        processes: Of the run.
    """

    processes: tuple[ProcessInfo, ...]
    states: dict[str, State] = field(init=False)
    """By address."""

    def __post_init__(self) -> None:
        self._roles_of = {process.name: process.roles for process in self.processes}
        self._host_of = {role: p.host for p in self.processes for role in p.roles}
        self.states = dict.fromkeys(self._host_of, "starting")
        self._num_groups = sum(role_of(role) == "learner" for role in self._host_of) or 1

    def take(self, event: Event) -> None:
        """Takes an event in."""
        match event.kind:
            case "joined" | "recovered":
                self._put(self._named(event.role), "running")
            case "started":
                self._put([COORDINATOR], "running")
            case "exited" | "given-up":
                self._put(self._named(event.role), "gone")
            case "restarted":
                self._put(self._named(event.role), "starting")
            case "stuck":
                self._put(self._named(event.role), "stuck")
            case "host-lost":
                lost = {event.role, event.host}
                self._put([r for r, host in self._host_of.items() if host in lost], "gone")
            case "group-lost":
                self._put(self._in_group(index_of(event.role)), "gone")

    def end(self) -> dict[str, State]:
        """The states once the run is over: what was not lost has stopped."""
        return {
            role: state if state == "gone" else "stopped" for role, state in self.states.items()
        }

    def _named(self, name: str) -> tuple[str, ...]:
        """The roles of a process, or the one role of this name."""
        return self._roles_of.get(name) or (name,)

    def _in_group(self, group: int) -> Iterator[str]:
        for role in self._host_of:
            kind = role_of(role)
            is_grouped = kind in ("actor", "environment", "buffer", "learner")
            if is_grouped and index_of(role) % self._num_groups == group:
                yield role

    def _put(self, roles: Iterator[str] | tuple[str, ...] | list[str], state: State) -> None:
        for role in roles:
            if role in self.states:
                self.states[role] = state


def state_of_several(states: Mapping[str, State], roles: tuple[str, ...]) -> State:
    """The state that most needs attention among some roles."""
    found = {states.get(role, "starting") for role in roles}
    order: tuple[State, ...] = ("gone", "stuck", "starting", "running")
    return next((state for state in order if state in found), "stopped")
