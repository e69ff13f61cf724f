"""A coordinator to feed events to, and what to look for in its commands."""

from __future__ import annotations

import msgspec

from engine import PROTOCOL_VERSION
from engine.messages import (
    Alive,
    Counters,
    Joined,
    Report,
    RoleExited,
    Stopped,
)
from engine.roles.commands import Command, EndRun, Send, WriteTrace
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import TimerFired
from engine.spec import StopSpec
from engine.testing import make_experiment, only
from engine.trace.records import Consumption, Episode, Production
from engine.trace.records import Event as TraceEvent
from engine.trace.summary import Summary

ADDRESSES = ("actor-0", "actor-1", "buffer-0", "learner-0")
WORKERS = ("actor-0", "actor-1", "learner-0")
INFO = RunInfo(run_id="run", num_hosts=1, num_actors=2, num_groups=1)

COUNTERS = {
    "actor-0": Counters(collected=24, unsent=0, sent_rollouts=3),
    "actor-1": Counters(collected=20, unsent=4, sent_rollouts=2),
    "learner-0": Counters(consumed=16),
    "buffer-0": Counters(queued=8, staged=16, dropped=0),
}


def make_coordinator(stop: StopSpec | None = None) -> CoordinatorRole:
    experiment = make_experiment(stop=stop or StopSpec(env_steps=1000), policy="tianji")
    experiment = msgspec.structs.replace(experiment, restarts=0)
    coordinator = CoordinatorRole(experiment, INFO, ADDRESSES, ("supervisor-0",))
    coordinator.handle(TimerFired(), 0.0)
    coordinator.handle(Alive(address="supervisor-0", host="box"), 0.5)
    return coordinator


def join(coordinator: CoordinatorRole, address: str, now_s: float = 1.0) -> list[Command]:
    return coordinator.handle(
        Joined(address=address, host="box", pid=1, protocol=PROTOCOL_VERSION), now_s
    )


def running(stop: StopSpec | None = None) -> CoordinatorRole:
    coordinator = make_coordinator(stop)
    for address in ADDRESSES:
        join(coordinator, address)
    return coordinator


def told(commands: list[Command], kind: type[object]) -> list[str]:
    """To whom messages of this kind go."""
    return [c.to for c in commands if isinstance(c, Send) and isinstance(c.message, kind)]


def answer(coordinator: CoordinatorRole, *addresses: str, now_s: float = 6.0) -> list[Command]:
    commands: list[Command] = []
    for address in addresses:
        stopped = Stopped(address=address, counters=COUNTERS[address])
        commands += coordinator.handle(stopped, now_s)
    return commands


def finish(coordinator: CoordinatorRole) -> Summary:
    answer(coordinator, *WORKERS)
    return only(answer(coordinator, "buffer-0"), EndRun).summary


def exited(address: str, cause: str = "killed by SIGKILL") -> RoleExited:
    return RoleExited(process=address, host="box", cause=cause, log_tail=["last words"])


def episodes(*returns: float) -> Report:
    rows = [
        Episode(t_s=1.0, actor=0, episode_return=value, length_env_steps=1, version=0)
        for value in returns
    ]
    return Report(address="actor-0", records=list(rows))


def notes(commands: list[Command]) -> list[str]:
    rows = [row for c in commands if isinstance(c, WriteTrace) for row in c.records]
    return [row.kind for row in rows if isinstance(row, TraceEvent)]


def production(actor: int, env_steps: int) -> Production:
    return Production(
        t_s=1.0,
        actor=actor,
        epoch=0,
        sequence=0,
        env_steps=env_steps,
        env_steps_total=env_steps,
        version_min=0,
        version_max=0,
        collect_s=0.1,
        wait_s=0.0,
    )


def consumption(learner: int, env_steps: int) -> Consumption:
    return Consumption(
        t_s=1.0,
        learner=learner,
        version=0,
        env_steps=env_steps,
        env_steps_total=env_steps,
        samples_trained=env_steps,
        samples_trained_total=env_steps,
        updates_total=1,
        wait_s=0.0,
        update_s=0.1,
        metrics={},
    )
