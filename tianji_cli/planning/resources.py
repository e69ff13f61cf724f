"""The resources of each process: device, threads, and its own cores if there are enough.

A computing process is pinned to its own cores, one for each of its threads, only if there are idle
ones for all of them, and one for everything else on the host. Otherwise the kernel schedules them
better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.control_protocol import Launch
from engine.devices.visible import CPU
from engine.wording import is_or_are, plural
from tianji_cli.config.inventory import Host
from tianji_cli.planning.devices import deal_devices, device_of, has_update_thread
from tianji_cli.planning.placement import COMPUTING, Placement
from tianji_cli.planning.plan import Plan


class HostResources(msgspec.Struct, frozen=True, kw_only=True):
    """The resources of a host for a run.

    Attributes:
        devices: GPUs that PyTorch finds, as it names them.
        cores: Numbers of the cores that the run can use; empty if the system does not report them.
        idle_cores: Those of them that are idle now; measured only if they could suffice.
    """

    devices: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()
    idle_cores: tuple[int, ...] = ()


class ProcessResources(msgspec.Struct, frozen=True, kw_only=True):
    """A process in the manifest.

    Attributes:
        host: Where it runs.
        roles: Its roles.
        device: Its device, as PyTorch names it: of its learner, if it has one.
        devices: The device of each of its roles that does not compute on the processor.
        threads: Of PyTorch's arithmetic.
        cores: Numbers of the cores that it is pinned to; null if it may use all.
        pinning: The reason, as text.
    """

    host: str
    roles: tuple[str, ...]
    device: str = CPU
    devices: dict[str, str] = {}
    threads: int = 1
    cores: tuple[int, ...] | None = None
    pinning: str = ""


def resources_of(plan: Plan, available: Mapping[str, HostResources]) -> dict[str, ProcessResources]:
    """The resources of all processes.

    Args:
        plan: The plan.
        available: The resources of each host.

    Raises:
        PreflightError: A GPU that was asked for is not there.
    """
    threads, wanted = threads_of(plan), cores_wanted(plan)
    found = {}
    for host in plan.hosts:
        here = [item for item in plan.placements if item.host == host.name]
        on_host = available[host.name]
        cores, pinning = _deal(here, wanted, host, on_host)
        devices = deal_devices(plan, host, on_host.devices)
        for item in here:
            found[item.process] = ProcessResources(
                host=host.name,
                roles=item.roles,
                device=device_of(item, devices),
                devices={role: devices[role] for role in item.roles if role in devices},
                threads=threads[item.process],
                cores=cores.get(item.process),
                pinning=pinning,
            )
    return {item.process: found[item.process] for item in plan.placements}


def with_resources(
    launches: Mapping[str, Launch], resources: Mapping[str, ProcessResources]
) -> dict[str, Launch]:
    """The same launches, with threads, cores and devices for every process."""
    return {
        host: msgspec.structs.replace(
            launch,
            workers=tuple(
                msgspec.structs.replace(
                    worker,
                    threads=resources[worker.address].threads,
                    cores=resources[worker.address].cores or (),
                    devices=resources[worker.address].devices,
                )
                for worker in launch.workers
            ),
        )
        for host, launch in launches.items()
    }


def threads_of(plan: Plan) -> dict[str, int]:
    """Arithmetic threads of each process: one, or as the experiment sets for learners."""
    return {
        item.process: plan.experiment.learner.threads if _plays(item, ("learner",)) else 1
        for item in plan.placements
    }


def cores_wanted(plan: Plan) -> dict[str, int]:
    """Cores for each process: as many as it has threads, of arithmetic or of environments, and one
    more for the updates of a learner on a device, which its loop does not wait for."""
    steps = "environment" if plan.graph.cut.has_remote_env else "actor"
    of_envs = plan.experiment.env.num_threads
    hosts = {host.name: host for host in plan.hosts}
    return {
        item.process: (max(threads, of_envs) if _plays(item, (steps,)) else threads)
        + has_update_thread(item, plan, hosts[item.host])
        for item, threads in zip(plan.placements, threads_of(plan).values(), strict=True)
    }


def cores_needed(here: Sequence[Placement], wanted: Mapping[str, int]) -> int:
    """Idle cores needed so that each computing process has its own, and all others share one."""
    return 1 + sum(wanted[item.process] for item in here if _plays(item, COMPUTING))


def _deal(
    here: Sequence[Placement], wanted: Mapping[str, int], host: Host, on_host: HostResources
) -> tuple[dict[str, tuple[int, ...]], str]:
    """Cores of each process of a host, and the reason as text; empty if there are too few."""
    needed, num_cores = cores_needed(here, wanted), len(on_host.cores)
    within = {item.process: on_host.cores for item in here} if host.cores is not None else {}
    if not host.pin:
        return within, "not pinned, as the inventory asks"
    if not num_cores:
        return within, "not pinned: this system cannot pin processes to cores"
    if num_cores < needed:
        return within, f"not pinned: {plural(num_cores, 'core')} for {plural(len(here), 'process')}"
    if len(on_host.idle_cores) < needed:
        idle = len(on_host.idle_cores)
        words = f"{idle} of {plural(num_cores, 'core')} {is_or_are(idle)} idle"
        return within, f"not pinned: {words}, {needed} {is_or_are(needed)} needed"
    free = iter(on_host.idle_cores)
    own = {
        item.process: tuple(next(free) for _ in range(wanted[item.process]))
        for item in here
        if _plays(item, COMPUTING)
    }
    taken = {core for cores in own.values() for core in cores}
    rest = tuple(core for core in on_host.cores if core not in taken)
    others = {item.process: rest for item in here if item.process not in own}
    return {**own, **others}, "pinned"


def _plays(item: Placement, kinds: tuple[str, ...]) -> bool:
    return any(role.startswith(kinds) for role in item.roles)


def words_of_devices(found: Mapping[str, ProcessResources], plan: Plan) -> list[str]:
    """Messages to the user about processes that run on a device, or were to."""
    is_loop = plan.graph.cut.is_on_device
    return [
        f"{name} on {item.host} runs on {item.device}"
        + (": PyTorch finds no CUDA there" if item.device == CPU else "")
        for name, item in found.items()
        if item.devices or (is_loop and any(role.startswith("learner-") for role in item.roles))
    ]


def planned_pinning(plan: Plan, host: Host, num_cores: int | None) -> str:
    """Pinning as far as known before idle cores were measured.

    Args:
        plan, host: The plan, and one of its hosts.
        num_cores: Of the host, if known.
    """
    here = [item for item in plan.placements if item.host == host.name]
    needed = cores_needed(here, cores_wanted(plan))
    if not host.pin:
        return "not pinned, as the inventory asks"
    if num_cores is None:
        return f"pinned if {plural(needed, 'core')} {is_or_are(needed)} idle"
    if num_cores < needed:
        return f"not pinned: {plural(num_cores, 'core')} for {plural(len(here), 'process')}"
    return f"pinned if {needed} of {plural(num_cores, 'core')} {is_or_are(needed)} idle"
