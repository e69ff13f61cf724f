"""What each process gets of its host: which device it computes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tianji_cli.inventory import Host
from tianji_cli.plan import Plan

CPU = "cpu"


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """A process in the manifest.

    Attributes:
        host: Where it runs.
        roles: What it plays.
        device: What it computes on, as PyTorch names it.
    """

    host: str
    roles: tuple[str, ...]
    device: str = CPU


def seats_of(plan: Plan, devices: Mapping[str, Sequence[str]]) -> dict[str, Seat]:
    """The seats of all processes.

    Args:
        plan: What runs where.
        devices: What each host deals out to loops that are fused on a device.
    """
    return {
        placement.process: Seat(
            host=placement.host,
            roles=placement.roles,
            device=_device(placement.roles, plan, devices[placement.host]),
        )
        for placement in plan.placements
    }


def _device(roles: Sequence[str], plan: Plan, devices: Sequence[str]) -> str:
    learners = [role for role in roles if role.startswith("learner-")]
    if not plan.graph.cut.is_on_device or not learners:
        return CPU
    return devices[int(learners[0].rpartition("-")[2]) % len(devices)]


def words_of_devices(found: Mapping[str, Seat], plan: Plan) -> list[str]:
    """What the user is told of loops that are to be on a device."""
    if not plan.graph.cut.is_on_device:
        return []
    return [
        f"{name} on {seat.host} runs on {seat.device}"
        + (", since PyTorch finds no CUDA there" if seat.device == CPU else "")
        for name, seat in found.items()
        if any(role.startswith("learner-") for role in seat.roles)
    ]


def wanted_device(host: Host) -> str:
    """The device of a fused loop, as far as the inventory says, in words."""
    if host.gpus:
        return f"GPU {', '.join(map(str, host.gpus))}"
    if host.gpus is not None:
        return "CPU, as `gpus: []` asks for"
    return "a GPU if PyTorch finds one there, else the CPU"
