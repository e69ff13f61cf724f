"""Makes vector environments.

All of them restart in Gymnasium's next-step mode: the observation returned with `terminated` or
`truncated` is the episode's true last one, and the following step only resets. So the value to
bootstrap from after a truncation is simply the next row of a rollout.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from engine.algorithms.base import Spaces
from engine.blame import blamed
from engine.envs.actions.squash import SquashedActions
from engine.envs.actions.vector import with_actions
from engine.envs.arrays.classic_control import as_arrays
from engine.envs.checked import checked
from engine.envs.extras import install_command
from engine.envs.minatar import register_minatar
from engine.envs.names import EXTRAS, extra_of, family_of, nearest, newer_version
from engine.envs.pool.catalogue import ENVPOOL, task_of
from engine.envs.pool.vector import PoolVectorEnv
from engine.envs.teams.finding import find_team
from engine.envs.teams.parallel import ParallelTeam
from engine.envs.teams.registry import TEAMS
from engine.envs.teams.sharing import policies_of
from engine.envs.teams.suitability import (
    refuse_for_teams,
    refuse_sharing,
    refuse_without_team,
)
from engine.envs.teams.tuples import team_copies
from engine.envs.teams.vector import TeamVectorEnv
from engine.envs.wrappers import refuse_vector_only, wrappings_of
from engine.errors import ConfigError
from engine.spaces.action_parts import parts_of
from engine.spaces.observations import has_mask_key, without_mask
from engine.spaces.team import Team
from engine.spec import EnvSpec, PolicySharing, module_of

CORRECT = "correct that line, env.id or env.kwargs"
VectorEnvironment: TypeAlias = VectorEnv[np.ndarray, np.ndarray, np.ndarray]
ATARI_OPTIONS: Mapping[str, Any] = {"num_threads": 1, "reward_clipping": False}
"""One thread for each actor; the game's own rewards, since `env.clip_reward` clips only what is
trained on and not the traced returns."""


def register_environment(
    env_id: str,
    make: Callable[..., gymnasium.Env[Any, Any]],
    make_vector: Callable[..., VectorEnvironment] | None = None,
    max_episode_steps: int | None = None,
) -> None:
    """Registers an environment under the name for `env.id`.

    Args:
        env_id: Such as `Corridor-v0`.
        make: Called with `env.kwargs`; makes one environment.
        make_vector: Called with `num_envs` and `env.kwargs`, if many copies can be stepped faster
            together. It must restart in next-step mode.
        max_episode_steps: Longer episodes are truncated; applied to `make` only.
    """
    if make_vector is not None and max_episode_steps is not None:
        # Gymnasium would pass the limit to `make_vector` as an argument that it possibly rejects.
        make, max_episode_steps = partial(_make_limited, make, max_episode_steps), None
    gymnasium.register(
        env_id,
        entry_point=make,
        vector_entry_point=make_vector,
        max_episode_steps=max_episode_steps,
    )


def _make_limited(
    make: Callable[..., gymnasium.Env[Any, Any]], max_episode_steps: int, **kwargs: object
) -> gymnasium.Env[Any, Any]:
    return gymnasium.wrappers.TimeLimit(make(**kwargs), max_episode_steps)


def make_vector_env(spec: EnvSpec, render_mode: str | None = None) -> VectorEnvironment:
    """Makes `spec.num_envs` environments that step together.

    Uses EnvPool's if `spec.backend` says so. Otherwise, unless `spec.wrappers` go around single
    environments: arrays for what `engine.envs.arrays` has, Gymnasium's vectorised implementation if
    one is registered, and ale-py's C++ one for Atari. Other copies are stepped one after the other
    in this process. Return values are checked (`CheckedVectorEnv`). They take flat actions
    (`engine.envs.actions`).

    Args:
        spec: What is made.
        render_mode: Gymnasium's, for environments of Gymnasium that will be rendered. Copies are
            then single environments where there are any: vectorised ones seldom render.

    Raises:
        ConfigError: Unknown id, missing dependency, or an exception of a constructor.
    """
    env = _pooled(spec) if spec.backend == ENVPOOL else _unpooled(spec, render_mode)
    (refuse_for_teams if isinstance(env, TeamVectorEnv) else refuse_without_team)(spec)
    mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    if mode != AutoresetMode.NEXT_STEP:
        env.close()
        raise ConfigError(f"{spec.id} resets in mode {mode}, next-step is needed", where="env.id")
    space = env.single_action_space
    env = with_actions(checked(env, spec.id), spec.scale_actions)
    if spec.squash_actions:
        env = SquashedActions(env, space)
    return SlowedVectorEnv(env, spec.step_latency_ms) if spec.step_latency_ms else env


def _unpooled(spec: EnvSpec, render_mode: str | None) -> VectorEnvironment:
    with _told_by_name(spec):
        team = find_team(spec, render_mode)
    return _of_gymnasium(spec, render_mode) if team is None else team


def _of_gymnasium(spec: EnvSpec, render_mode: str | None) -> VectorEnvironment:
    options = {**_options(spec), **_render_options(spec, render_mode), **_wrapper_options(spec)}
    with _told_by_name(spec):
        env = _vector_of_gymnasium(spec, options)
        copies = team_copies(env)
        if copies is None:
            return env
        return ParallelTeam(copies, spec.id, central_state=spec.central_state)


def _vector_of_gymnasium(spec: EnvSpec, options: dict[str, Any]) -> VectorEnvironment:
    """As `gymnasium.make_vec`; also where the constructor has an argument `max_episode_steps`,
    which Gymnasium takes for its own there, though not in `gymnasium.make`."""
    if (module := module_of(spec.id)) is not None:
        importlib.import_module(module)  # where it is registered
    if not options and (copies := as_arrays(spec.registered_id, spec.num_envs)) is not None:
        return copies
    registered = gymnasium.registry.get(spec.registered_id)
    if registered is None or "max_episode_steps" not in registered.kwargs:
        env: VectorEnvironment = gymnasium.make_vec(spec.id, num_envs=spec.num_envs, **options)
        return env
    wrappers = options.pop("wrappers", ())
    options.pop("vectorization_mode", None)

    def make_one() -> gymnasium.Env[Any, Any]:
        env = gymnasium.make(spec.registered_id, **options)
        for wrap in wrappers:
            env = wrap(env)
        return env

    return gymnasium.vector.SyncVectorEnv([make_one] * spec.num_envs)


def _pooled(spec: EnvSpec) -> VectorEnvironment:
    task = task_of(spec)
    _require(ENVPOOL, spec)
    with _told_by_name(spec):
        return PoolVectorEnv(task, spec.num_envs)


@contextmanager
def _told_by_name(spec: EnvSpec) -> Iterator[None]:
    """Turns exceptions of an environment's constructor into configuration errors."""
    try:
        with blamed(f"{spec.id} cannot be made", where="env", fix=CORRECT):
            yield
    except ConfigError as error:
        if error.where != "env":
            raise  # a wrapper's, which says all
        match error.__cause__:
            case gymnasium.error.UnregisteredEnv():
                error.what, error.where = f"unknown environment {spec.id!r}", "env.id"
                error.fix = nearest(spec.id, (*gymnasium.registry, *TEAMS))
            case gymnasium.error.DependencyNotInstalled() as cause:
                error.what, error.where = f"{spec.id}: {cause}", "env.id"
                error.fix = extra_of(str(cause))
            case ImportError() | gymnasium.error.DeprecatedEnv():
                newer = newer_version(spec.id, gymnasium.registry)
                error.fix = f"did you mean {newer!r}?" if newer else CORRECT
            case TypeError() if spec.kwargs:
                error.fix = f"env.kwargs gives {', '.join(sorted(spec.kwargs))}"
        raise


def _options(spec: EnvSpec) -> dict[str, Any]:
    """Constructor arguments; also makes the ids of Atari, MinAtar, MiniGrid and Level-Based
    Foraging known.

    Raises:
        ConfigError: The package that the id belongs to is not installed.
    """
    options: dict[str, Any] = dict(spec.kwargs)
    match family_of(spec.registered_id):
        case "MinAtar":
            _require("minatar", spec)
            register_minatar()
        case "ALE":
            gymnasium.register_envs(_require("ale_py", spec))
            if not spec.wrappers:  # single games have no such options
                options = {**ATARI_OPTIONS, **options}
        case "MiniGrid" | "BabyAI":
            gymnasium.register_envs(_require("minigrid", spec))
        case "Foraging":
            gymnasium.register_envs(_require("lbforaging", spec))
    return options


def _wrapper_options(spec: EnvSpec) -> dict[str, Any]:
    """Arguments of `gymnasium.make_vec` that wrap single environments; none without wrappers.

    Raises:
        ConfigError: A wrapper cannot be used.
    """
    wrappings = wrappings_of(spec)
    refuse_vector_only(spec)
    return {"vectorization_mode": "sync", "wrappers": wrappings} if wrappings else {}


def _render_options(spec: EnvSpec, render_mode: str | None) -> dict[str, Any]:
    """Arguments of `gymnasium.make_vec` for environments that are rendered."""
    if render_mode is None:
        return {}
    registered = gymnasium.registry.get(spec.registered_id)
    is_single = registered is None or registered.entry_point is not None
    return {"render_mode": render_mode, **({"vectorization_mode": "sync"} if is_single else {})}


def _require(package: str, spec: EnvSpec) -> Any:  # noqa: ANN401 - a module
    if importlib.util.find_spec(package) is None:
        extra = dict(EXTRAS.values()).get(package, package)
        raise ConfigError(
            f"{spec.id} needs the package {package.replace('_', '-')}",
            where="env.backend" if package == ENVPOOL else "env.id",
            fix=install_command(extra, package.replace("_", "-")),
        )
    return importlib.import_module(package)


def spaces_of(env: VectorEnvironment, sharing: PolicySharing = None) -> Spaces:
    """The spaces of one of its environments, as far as they show action masks.

    Args:
        env: Whose.
        sharing: Which agents share a policy, as the experiment has it.

    Raises:
        ConfigError: There is one agent and `sharing` is given, or it does not suit the agents.
    """
    observation, action = env.single_observation_space, env.single_action_space
    has_mask = has_mask_key(observation) and bool(parts_of(action).nvec)
    return Spaces(
        without_mask(observation) if has_mask else observation,
        action,
        has_action_mask=has_mask,
        team=_team_of(env.unwrapped, sharing),
    )


def _team_of(env: VectorEnvironment, sharing: PolicySharing) -> Team | None:
    if isinstance(env, TeamVectorEnv):
        policies = policies_of(sharing, env.agent_observations, env.agent_actions)
        return Team(env.agents, policies, env.state_space)
    refuse_sharing(sharing)
    return None


class SlowedVectorEnv(gymnasium.vector.VectorWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """Makes every vector step take longer, as a simulator on slow hardware would.

    Args:
        env: What to slow down.
        latency_ms: Added to each step, without using a core.
    """

    def __init__(self, env: VectorEnvironment, latency_ms: float) -> None:
        super().__init__(env)
        self._latency_s = latency_ms / 1000

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, object]]:
        time.sleep(self._latency_s)
        return self.env.step(actions)
