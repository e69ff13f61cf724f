"""How the learners of one process join those that make every update together with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.blueprint import Blueprint
from engine.control_protocol import CommonSpec, Rendezvous, WorkerSpec
from engine.devices.interface import Device
from engine.timing import Sections
from engine.wire.keys import Keyring
from engine.wire.learner_ring import LearnerRing, RingSeat

if TYPE_CHECKING:
    from engine.executors.collective import LearnerGroup


@dataclass(frozen=True)
class JointPlace:
    """Where they meet, and the means of this process to get there.

    Attributes:
        address: Of this process.
        rendezvous: Of this host.
        ring: The place of this process in the ring, if it is in it.
        keyring: Its keys.
        ring_listener, store_listener: Descriptors that already listen for others.
    """

    address: str
    rendezvous: Rendezvous
    ring: RingSeat | None = None
    keyring: Keyring | None = None
    ring_listener: int | None = None
    store_listener: int | None = None


def joint_place(
    worker: WorkerSpec, common: CommonSpec, keyring: Keyring | None, listeners: Mapping[str, int]
) -> JointPlace | None:
    """The place of a process; None if its learners update alone."""
    if common.rendezvous is None:
        return None
    return JointPlace(
        worker.address,
        common.rendezvous,
        worker.ring,
        keyring,
        listeners.get(worker.ring.bind) if worker.ring else None,
        listeners.get(worker.store),
    )


def join_learners(
    index: int, blueprint: Blueprint, place: JointPlace, device: Device | None, sections: Sections
) -> LearnerGroup:
    """Waits until all learners are there.

    Args:
        index: Number of the learner.
        blueprint: The run.
        place: Where they meet.
        device: Of the learner; None for the processor.
        sections: Where waiting for the others is counted.

    Raises:
        RunFailedError: A neighbour in the ring is gone.
    """
    # torch.distributed is imported only where learners need it.
    from engine.executors.all_reduce import RingAllReduce, TrustedAllReduce, gloo_on_this_host
    from engine.executors.collective import LearnerGroup

    count, shares = blueprint.cut.groups, blueprint.sharing.shares
    meeting, here = place.rendezvous, place.rendezvous.learners
    if meeting.store:
        parts = urlsplit(meeting.store)
        assert parts.hostname is not None
        assert parts.port is not None
        everywhere = TrustedAllReduce(
            (parts.hostname, parts.port),
            meeting.address,
            index,
            count,
            listener=place.store_listener,
            device=device.place if device else None,
        )
        return LearnerGroup(everywhere, index, count, sections, shares=shares)
    group = None
    if len(here) > 1:
        group = gloo_on_this_host(meeting.file, here.index(index), len(here))
    if len(here) == count:
        assert group is not None
        return LearnerGroup(group, index, count, sections, shares=shares)
    seat = place.ring if index == here[0] else None
    ring = None
    if seat is not None:
        assert place.keyring is not None, "hosts are connected over TCP"
        ring = LearnerRing(seat, place.address, place.keyring, place.ring_listener)
    return LearnerGroup(RingAllReduce(group, ring), index, count, sections, shares=shares)
