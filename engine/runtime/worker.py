"""The roles of one process."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from engine import PROTOCOL_VERSION
from engine.blueprint import Blueprint
from engine.control_protocol import CommonSpec, WorkerSpec
from engine.host.cores import give_way, pin
from engine.host.descriptors import keep_spare
from engine.host.end_signals import END_SIGNAL, end_by
from engine.host.process import OrphanWatch
from engine.messages import COORDINATOR, Joined, ProgressShown, role_of
from engine.progress import Progress
from engine.roles.events import TimerFired
from engine.runtime.assemble import Assembly, host_role
from engine.runtime.joint_learners import joint_place
from engine.runtime.loop import Loop, LoopClock
from engine.runtime.profiling import profiled
from engine.supervision.stack_dump import offer_stack
from engine.timing import OFF, Stopwatch
from engine.wire.arena import Arena
from engine.wire.codec import Codec
from engine.wire.keys import KeyPair
from engine.wire.sockets import Sockets


@dataclass(frozen=True)
class Inherited:
    """What a role has from its forkserver, and from nowhere else.

    Attributes:
        keys: Its own, if there is TCP.
        listeners: By endpoint, descriptors that already listen for it.
    """

    keys: KeyPair | None = None
    listeners: Mapping[str, int] = field(default_factory=dict)


def run_worker(
    spec: WorkerSpec,
    common: CommonSpec,
    blueprint: Blueprint,
    arena: Arena | None = None,
    inherited: Inherited = Inherited(),
) -> None:
    """Runs its roles until they are told to exit, or until its supervisor is gone.

    Args:
        spec: The role and its sockets.
        common: What it has in common with the others of its host.
        blueprint: The run.
        arena: Memory that this process shares with its neighbours.
        inherited: Its keys and listeners.

    Raises:
        TianJiError: Its socket cannot be bound, or the role failed.
    """
    _settle(spec)
    orphan_watch = OrphanWatch()
    clock = LoopClock(common.clock_offset_ns)
    own = blueprint.of_group(_group_of(spec.roles, blueprint))
    codec = Codec(own.layout, own.weights, own.samples, own.priorities, arena, model=own.model)
    stopwatch = Stopwatch() if blueprint.experiment.profile else None
    sections = stopwatch or OFF
    wiring = common.wiring_of(spec, inherited.keys, inherited.listeners.get(spec.bind))
    if any(role_of(role) == "actor" for role in spec.roles):
        compression = blueprint.experiment.actor.compression
        wiring = msgspec.structs.replace(wiring, compression=compression)
    with Sockets(spec.address, wiring, codec, spec.roles, sections) as sockets:
        if spec.bind.startswith("tcp:"):
            keep_spare()

        def show(progress: Progress) -> None:
            sockets.send(common.supervisors[0], ProgressShown(progress=progress))

        assembly = Assembly(
            blueprint,
            common.info,
            common.addresses,
            common.supervisors,
            Path(common.run_dir),
            clock,
            show,
            process_of=common.routes,
            host_of=common.host_of,
            joint=joint_place(spec, common, wiring.keyring, inherited.listeners),
            devices=spec.devices,
            epoch=spec.epoch,
            arena=arena,
            sections=sections,
        )
        hosted = {role: host_role(role, assembly) for role in spec.roles}
        if stopwatch is not None:
            hosted = profiled(hosted, spec.address, stopwatch)
        loop = Loop(hosted, clock, sockets, orphan_watch.is_orphan, sections)
        _announce(spec.roles, common.host, loop, sockets)
        print(f"{spec.address} is process {os.getpid()} on {common.host}", flush=True)
        loop.run()


def _settle(spec: WorkerSpec) -> None:
    """How this process is ended and looked at, and its share of the processor."""
    faulthandler.enable()
    offer_stack()
    end_by(END_SIGNAL)
    pin(spec.cores)
    give_way(spec.roles)
    torch.set_num_threads(spec.threads)


def _announce(roles: Sequence[str], host: str, loop: Loop, sockets: Sockets) -> None:
    """Tells the coordinator that these roles are here; wakes it where it is one of them."""
    for role in roles:
        if role == COORDINATOR:
            loop.post(COORDINATOR, TimerFired())
            continue
        joined = Joined(address=role, host=host, pid=os.getpid(), protocol=PROTOCOL_VERSION)
        sockets.send(COORDINATOR, joined)


def _group_of(roles: Sequence[str], blueprint: Blueprint) -> int:
    """The group whose rollouts and samples this process handles; never several."""
    groups = [blueprint.cut.group_of_role(role) for role in roles if role != COORDINATOR]
    return next((group for group in groups if group is not None), 0)
