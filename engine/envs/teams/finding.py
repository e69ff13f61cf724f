"""Finds the environment of a team that an `env.id` names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import gymnasium

from engine.envs.extras import install_command
from engine.envs.teams.parallel import ParallelEnvironment, ParallelTeam
from engine.envs.teams.registry import batched_version
from engine.envs.teams.vector import TeamVectorEnv
from engine.errors import ConfigError
from engine.spec import PETTINGZOO, EnvSpec, module_of

EXTRA = "marl"


def find_team(spec: EnvSpec, render_mode: str | None = None) -> TeamVectorEnv | None:
    """The environment of several agents with this id; None if the id is another's.

    A version whose copies step together is preferred, unless it is to be rendered and there is
    another.

    Raises:
        ConfigError: It is unknown, or needs a package that is not there.
    """
    batched = batched_version(spec)
    is_only = spec.pettingzoo_module is None
    if batched is not None and (is_only or render_mode is None):
        return batched(num_envs=spec.num_envs, central_state=spec.central_state, **spec.kwargs)
    make = _maker(spec)
    if make is None:
        return None
    options: dict[str, Any] = dict(spec.kwargs)
    if render_mode is not None:
        options["render_mode"] = render_mode
    copies = [_as_parallel(make(**options)) for _ in range(spec.num_envs)]
    return ParallelTeam(copies, spec.id, central_state=spec.central_state)


def _maker(spec: EnvSpec) -> Callable[..., object] | None:
    """What makes one copy: of PettingZoo, or a function of the user's."""
    if spec.pettingzoo_module is not None:
        module = _pettingzoo_module(spec.pettingzoo_module, spec)
        make = getattr(module, "parallel_env", None) or getattr(module, "env", None)
        if make is None:
            raise ConfigError(
                f"the module {module.__name__} has neither parallel_env nor env",
                where="env.id",
                fix="name a module with an environment, such as pettingzoo:mpe2.simple_spread_v3",
            )
        return make  # type: ignore[no-any-return]
    own = module_of(spec.id)
    if own is None or spec.registered_id in gymnasium.registry:
        return None
    with suppress(ImportError):  # which is told elsewhere
        importlib.import_module(own)
    found = getattr(sys.modules.get(own), spec.registered_id, None)
    return found if callable(found) else None


def _pettingzoo_module(name: str, spec: EnvSpec) -> ModuleType:
    if importlib.util.find_spec(PETTINGZOO) is None:
        raise ConfigError(
            f"{spec.id} needs the package {PETTINGZOO}",
            where="env.id",
            fix=install_command(EXTRA, PETTINGZOO, "mpe2"),
        )
    for full in (f"{PETTINGZOO}.{name}", name):
        if _exists(full):
            return importlib.import_module(full)
    raise ConfigError(f"there is no module {name!r}", where="env.id")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _as_parallel(env: Any) -> ParallelEnvironment:  # noqa: ANN401 - of a library without types
    """The environment itself, or PettingZoo's conversion of one whose agents act in turn."""
    from pettingzoo.utils.conversions import aec_to_parallel, turn_based_aec_to_parallel
    from pettingzoo.utils.env import AECEnv

    if isinstance(env, AECEnv):
        is_parallel = env.metadata.get("is_parallelizable", False)
        env = (aec_to_parallel if is_parallel else turn_based_aec_to_parallel)(env)
    parallel: ParallelEnvironment = env
    return parallel
