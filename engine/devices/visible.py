"""Which GPUs a run may use on this host. PyTorch is asked only for their number.

A role's process is forked from one that must not initialise CUDA, since a forked child could not
use it then. So devices are only counted here, and used only in the roles.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from engine.errors import PreflightError

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"
PRETENDED = "TIANJI_DEVICES"
"""For tests: names of devices that are taken for what PyTorch finds, such as `cpu:0,cpu:1`. Roles
on these go the way of a GPU, on the processor."""


def find_devices(gpus: Sequence[int] | None = None) -> tuple[str, ...]:
    """The GPUs that this process can see, as PyTorch names them; empty without any.

    Args:
        gpus: Those that the inventory gives to the run; None if it does not say. None of them are
            found if it gives none.
    """
    if gpus is not None and not gpus:
        return ()
    if pretended := os.environ.get(PRETENDED):
        return tuple(pretended.split(","))
    import torch

    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def selected_gpus(gpus: Sequence[int] | None, environment: Mapping[str, str]) -> dict[str, str]:
    """What makes only these GPUs visible, for the environment of a process.

    Args:
        gpus: Numbers among those that `environment` makes visible: a resource manager may have
            chosen before, and by names that are no numbers. None: no choice.
        environment: Of this process.

    Raises:
        PreflightError: Fewer are visible than the numbers say.
    """
    if gpus is None:
        return {}
    given = environment.get(VISIBLE)
    if given is None:
        return {VISIBLE: ",".join(map(str, gpus))}
    names = [name.strip() for name in given.split(",") if name.strip()]
    if gpus and max(gpus) >= len(names):
        raise PreflightError(
            f"the inventory gives this run GPU {max(gpus)} of those that are visible there, which"
            f" are {len(names)} ({VISIBLE}={given})",
            where="gpus",
            fix="count from 0 among the visible ones, or remove `gpus:`",
        )
    return {VISIBLE: ",".join(names[number] for number in gpus)}


def visible_gpus(names: Sequence[str]) -> list[str]:
    """The names of the GPUs of this host that this process can use."""
    allowed = os.environ.get(VISIBLE)
    if allowed is None:
        return list(names)
    numbers = [int(part) for part in allowed.split(",") if part.strip().isdigit()]
    return [names[number] for number in numbers if number < len(names)]
