"""Tries the first reset and the first actions before anything starts, under every policy, so that
errors there name the user's own line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.algorithms.base import Algorithm, EnvSlice
from engine.blame import blamed
from engine.envs.make import CORRECT
from engine.errors import ConfigError, RunFailedError
from engine.host.user_code import Interrupted, no_silent_exit, telling_interrupts_apart
from engine.layers.inputs import STATE, input_names
from engine.rollout import Field
from engine.spec import EnvSpec

ResultT = TypeVar("ResultT")
PURE = "act must be a pure function: no dropout, no batch statistics, no random numbers of its own"


def first_reset(reset: Callable[[], ResultT], spec: EnvSpec) -> ResultT | None:
    """Resets environments for the first time.

    Returns:
        What `reset` does; None if user code tried to end the process, as `sys.exit` does, or
        memory ran out: the run will fail in the same way and report it.

    Raises:
        ConfigError: It raises, or returns an invalid observation.
    """
    try:
        with (
            telling_interrupts_apart(),
            no_silent_exit(),
            blamed(f"{spec.id} cannot be reset", where="env", fix=CORRECT),
        ):
            return reset()
    except RunFailedError as error:
        raise ConfigError(error.what, where="env.id", fix=error.fix) from error
    except ConfigError as error:
        if isinstance(error.__cause__, (MemoryError, RecursionError)):
            return None
        raise
    except Interrupted:
        raise
    except BaseException:  # noqa: BLE001 - whatever ends a process
        return None


def check_acting(
    algorithm: Algorithm, fields: Sequence[Field], observed: Mapping[str, Tensor]
) -> None:
    """Acts once on a first observation.

    Args:
        algorithm: Whose `act` it is.
        fields: Of a rollout.
        observed: Leaves and mask by the name of their field, [B, ...].

    Raises:
        ConfigError: The network or `act` raises, or returns a wrong shape or a non-finite value.
    """
    by_name = {field.name: field for field in fields}
    read = input_names(fields)
    names = [f.name for f in algorithm.samples().fields if f.name not in read or f.name == STATE]
    num_envs = len(next(iter(observed.values())))
    env_slice = EnvSlice(0, num_envs, num_envs)
    inputs = {name: _input(by_name[name], observed.get(name), num_envs) for name in read}
    given = inputs[read[0]] if len(read) == 1 else inputs
    with blamed("the first action cannot be chosen", where="network"), torch.no_grad():
        network = algorithm.network().requires_grad_(False)
        noise = algorithm.noise(torch.Generator().manual_seed(0), 1, env_slice)[0]
        one, other = (algorithm.act(network, given, noise) for _ in range(2))
    for name in names:
        if name not in one:
            raise ConfigError(
                f"act() returns no {name}, which samples().fields lists", where="algorithm.name"
            )
        _check_choice(by_name[name], one[name], other[name], num_envs)


def _input(field: Field, observed: Tensor | None, num_envs: int) -> Tensor:
    """What `act` gets of a field: as observed, in its dtype, or a memory's state of zeros."""
    dtype = torch.from_numpy(np.empty(0, field.dtype)).dtype
    if observed is None:
        return torch.zeros(num_envs, *field.shape, dtype=dtype)
    return observed.to(dtype)


def _check_choice(field: Field, one: Tensor, other: Tensor, num_envs: int) -> None:
    """Checks two results of `act` for one field; raises ConfigError."""
    wanted = (num_envs, *field.shape)
    if tuple(one.shape) != wanted:
        raise ConfigError(
            f"act() returns {field.name} of shape {tuple(one.shape)}; samples().fields declares"
            f" {wanted}",
            where="algorithm.name",
        )
    if one.is_floating_point() and not bool(torch.isfinite(one).all()):
        bad = float(one[~torch.isfinite(one)].flatten()[0])
        raise ConfigError(
            f"for its first observation the network gives {bad} as {field.name}",
            where="network",
            fix="its outputs and initial parameters must be finite;"
            " network.normalize_observation scales observations into range",
        )
    if not torch.equal(one, other):
        raise ConfigError(
            f"equal observations and noise give two different values of {field.name}",
            where="network",
            fix=PURE,
        )
