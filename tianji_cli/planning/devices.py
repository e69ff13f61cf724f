"""Which device each role computes on: what the experiment wishes, dealt out over a host's GPUs.

Learners take the GPUs of their host in turn. Whoever else wishes for one takes that of a learner in
the same process if it has one, else in turn those that no learner has, else all. What shares a
fused loop is where the learner of the loop is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.devices.visible import CPU
from engine.errors import PreflightError
from engine.messages import role_of
from engine.wording import plural
from tianji_cli.config.inventory import Host
from tianji_cli.planning.placement import Placement
from tianji_cli.planning.plan import Plan

AUTO, ANY, CUDA = "auto", "any", "cuda"
"""Wishes beside `cpu` and `cuda:N`: to be resolved; a GPU if there is one; a GPU."""
_KEYS = {
    "learner": "learner.device",
    "actor": "actor.device",
    "evaluator": "evaluation.device",
}
_OF_LOOP = ("actor", "buffer", "learner")


def wish_of(role: str, plan: Plan, placement: Placement, host: Host) -> str:
    """Where a role is to compute: `cpu`, `any`, `cuda` or `cuda:N`.

    Args:
        role: Its address.
        plan, placement, host: Its process, and where that is.
    """
    experiment, cut, kind = plan.experiment, plan.graph.cut, role_of(role)
    of_learner = experiment.learner.device
    if of_learner == AUTO:
        of_learner = CUDA if host.gpus else ANY if cut.is_on_device else CPU
    has_learner = any(role_of(other) == "learner" for other in placement.roles)
    if kind == "learner" or (cut.is_on_device and kind in _OF_LOOP):
        return of_learner
    if kind == "actor":
        if experiment.actor.device != AUTO:
            return experiment.actor.device
        return of_learner if cut.has_remote_env and has_learner else CPU
    if kind == "evaluator" and experiment.evaluation is not None:
        wanted = experiment.evaluation.device
        return CPU if wanted == AUTO else wanted
    return CPU


def deal_devices(plan: Plan, host: Host, found: Sequence[str]) -> dict[str, str]:
    """The device of each role of a host that does not compute on the processor.

    Args:
        plan, host: The plan, and one of its hosts.
        found: The GPUs that PyTorch finds there, as it names them.

    Raises:
        PreflightError: A GPU that was asked for is not there.
    """
    here = [item for item in plan.placements if item.host == host.name]
    wishes = {role: wish_of(role, plan, item, host) for item in here for role in item.roles}
    learners = [role for role in wishes if role_of(role) == "learner"]
    for role in (*learners, *wishes):  # what others wish for can be the learner's
        _check(role, wishes[role], host, found)
    if not found:
        return {}
    turns = _in_turn(found)
    dealt = {
        role: _named(wishes[role], found) or next(turns) for role in learners if wishes[role] != CPU
    }
    left = [name for name in found if name not in dealt.values()]
    others = _in_turn(left or found)
    for item in here:
        beside = next((dealt[role] for role in item.roles if role in dealt), None)
        for role in item.roles:
            if role not in dealt and wishes[role] != CPU:
                dealt[role] = _named(wishes[role], found) or beside or next(others)
    return dealt


def device_of(placement: Placement, devices: Mapping[str, str]) -> str:
    """The device of a process: its learner's, else one that a role of it computes on."""
    ordered = sorted(placement.roles, key=lambda role: role_of(role) != "learner")
    return next((devices[role] for role in ordered if role in devices), CPU)


def has_update_thread(placement: Placement, plan: Plan, host: Host) -> bool:
    """Whether a process updates on a device, beside its loop."""
    return not plan.graph.cut.is_on_device and any(
        role_of(role) == "learner" and wish_of(role, plan, placement, host) != CPU
        for role in placement.roles
    )


def planned_device(placement: Placement, plan: Plan, host: Host) -> str:
    """Where a process computes as far as that is known before the host is asked, as text; empty for
    the processor."""
    wishes = dict.fromkeys(wish_of(role, plan, placement, host) for role in placement.roles)
    wish = next((wish for wish in wishes if wish != CPU), CPU)
    if plan.graph.cut.is_on_device and host.gpus is not None and not host.gpus:
        return "CPU, as `gpus: []` asks"
    if wish == ANY:
        return "a GPU if PyTorch finds one there, else the CPU"
    if wish == CUDA:
        return f"GPU {', '.join(map(str, host.gpus))}" if host.gpus else "a GPU"
    return "" if wish == CPU else wish


def _in_turn(names: Sequence[str]) -> Iterator[str]:
    while True:
        yield from names


def _named(wish: str, found: Sequence[str]) -> str | None:
    """The GPU that a wish names by number; None if any will do."""
    _, colon, number = wish.partition(":")
    return found[int(number)] if colon else None


def _check(role: str, wish: str, host: Host, found: Sequence[str]) -> None:
    """Raises PreflightError if the GPU of a wish is not there."""
    if wish in (CPU, ANY):
        return
    where, there = f"host {host.name}", plural(len(found), "GPU") if found else "none"
    if host.gpus and len(found) < len(host.gpus):
        raise PreflightError(
            f"the inventory gives this run the GPUs {', '.join(map(str, host.gpus))}, but PyTorch"
            f" finds {len(found) or 'none'} there",
            where=where,
            fix="install a PyTorch with CUDA there and check nvidia-smi, or remove `gpus:`",
        )
    _, colon, number = wish.partition(":")
    if found and (not colon or int(number) < len(found)):
        return
    key = _KEYS[role_of(role)] if role_of(role) in _KEYS else _KEYS["learner"]
    reason = "the inventory gives it no GPU there" if host.gpus == () else f"PyTorch finds {there}"
    raise PreflightError(
        f"{role} is to compute on {wish}, but {reason}",
        where=where,
        fix=f"set {key}=cpu or auto, or check nvidia-smi and the PyTorch there",
    )
