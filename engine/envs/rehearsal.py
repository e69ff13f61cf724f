"""Tries the first reset and the first actions before anything starts, under every policy, so that
errors there name the user's own line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.algorithms.base import Algorithm, EnvSlice
from engine.blame import blamed
from engine.envs.make import CORRECT
from engine.errors import ConfigError, RunFailedError
from engine.host.user_code import Interrupted, no_silent_exit, telling_interrupts_apart
from engine.rollout import Field
from engine.spec import EnvSpec

PURE = "act must be a pure function: no dropout, no batch statistics, no random numbers of its own"


def first_observation(reset: Callable[[], np.ndarray | Tensor], spec: EnvSpec) -> Tensor | None:
    """Resets environments for the first time.

    Returns:
        Observations [B, ...]; None if user code tried to end the process, as `sys.exit` does, or
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
            return torch.as_tensor(np.asarray(reset()))
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


def check_acting(algorithm: Algorithm, fields: Sequence[Field], observation: Tensor) -> None:
    """Acts once on a first observation.

    Args:
        algorithm: Whose `act` it is.
        fields: Of a rollout.
        observation: [B, ...].

    Raises:
        ConfigError: The network or `act` raises, or returns a wrong shape or a non-finite value.
    """
    by_name = {field.name: field for field in fields}
    names = [field.name for field in algorithm.samples().fields if field.name != "observation"]
    env_slice = EnvSlice(0, len(observation), len(observation))
    dtype = torch.from_numpy(np.empty(0, by_name["observation"].dtype)).dtype
    with blamed("the first action cannot be chosen", where="network"), torch.no_grad():
        network = algorithm.network().requires_grad_(False)
        noise = algorithm.noise(torch.Generator().manual_seed(0), 1, env_slice)[0]
        one, other = (algorithm.act(network, observation.to(dtype), noise) for _ in range(2))
    for name in names:
        if name not in one:
            raise ConfigError(
                f"act() returns no {name}, which samples().fields lists", where="algorithm.name"
            )
        _check_choice(by_name[name], one[name], other[name], len(observation))


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
