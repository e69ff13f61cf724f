"""Finds the environment of a team that an `env.id` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import gymnasium

from engine.envs.teams.modules import pettingzoo_module
from engine.envs.teams.parallel import ParallelEnvironment, ParallelTeam
from engine.envs.teams.registry import batched_version, has_other_version
from engine.envs.teams.suitability import refuse_wrappers
from engine.envs.teams.turns import TurnBased
from engine.envs.teams.vector import TeamVectorEnv
from engine.errors import ConfigError
from engine.spec import EnvSpec, module_of


def find_team(spec: EnvSpec, render_mode: str | None = None) -> TeamVectorEnv | None:
    """The environment of several agents with this id; None if the id is another's.

    A version whose copies step together is preferred, unless it is to be rendered and there is
    another.

    Raises:
        ConfigError: It is unknown, or needs a package that is not there.
    """
    batched = batched_version(spec)
    if batched is not None and (render_mode is None or not has_other_version(spec)):
        refuse_wrappers(spec)
        return batched(num_envs=spec.num_envs, central_state=spec.central_state, **spec.kwargs)
    make = _maker(spec)
    if make is None:
        return None
    refuse_wrappers(spec)
    options: dict[str, Any] = dict(spec.kwargs)
    if render_mode is not None:
        options["render_mode"] = render_mode
    copies = [_as_parallel(make(**options), spec.id) for _ in range(spec.num_envs)]
    return ParallelTeam(copies, spec.id, central_state=spec.central_state)


def _maker(spec: EnvSpec) -> Callable[..., object] | None:
    """What makes one copy: of PettingZoo, or a function of the user's."""
    if spec.pettingzoo_module is not None:
        module = pettingzoo_module(spec.pettingzoo_module, spec.id)
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
    named, name = sys.modules.get(own), spec.registered_id
    found = getattr(named, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    if named is not None and not _is_registered(name):
        _refuse_name(named, name)
    return None


def _is_registered(name: str) -> bool:
    """Whether Gymnasium has it, if only with a version."""
    return any(name in (known, known.rpartition("-v")[0]) for known in gymnasium.registry)


def _refuse_name(module: ModuleType, name: str) -> None:
    """Raises ConfigError for a name that a function could have, and none of the module has; other
    names can only be ids of Gymnasium, which knows what is near them."""
    if not name.isidentifier():
        return
    own = [
        key
        for key, value in vars(module).items()
        if callable(value)
        and not key.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    raise ConfigError(
        f"the module {module.__name__} has no {name!r}",
        where="env.id",
        fix=f"it has {', '.join(own)}" if own else "docs/multi-agent.md shows such a function",
    )


def _as_parallel(env: Any, env_id: str) -> ParallelEnvironment:  # noqa: ANN401 - has no types
    """The environment itself, or PettingZoo's conversion of one whose agents act in turn."""
    if env is None:
        raise ConfigError(
            f"{env_id} returned None, and no environment",
            where="env.id",
            fix="end the function with: return env",
        )
    if isinstance(env, gymnasium.Env):
        raise ConfigError(
            "that makes an environment of Gymnasium, which has to be registered",
            where="env.id",
            fix="register it: docs/extending.md shows how",
        )
    parallel: ParallelEnvironment = env
    if not hasattr(env, "agent_iter"):
        return parallel
    from pettingzoo.utils.conversions import aec_to_parallel, turn_based_aec_to_parallel

    if env.metadata.get("is_parallelizable", False):
        parallel = aec_to_parallel(env)
    else:
        parallel = TurnBased(turn_based_aec_to_parallel(env), lambda: env.agent_selection)
    return parallel
