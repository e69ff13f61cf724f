"""Which of Gymnasium's environments EnvPool has, and what it is told so that they are the same.

`tests/engine/envs/test_pool_equality.py` compares every one of them with Gymnasium's. Ids, versions
and arguments that are not listed are refused: EnvPool would take some of them with another meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import gymnasium
import msgspec
import numpy as np
from gymnasium.spaces import Box

from engine.envs.names import ATARI, family_of
from engine.errors import ConfigError
from engine.spec import EnvSpec, Scalar

ENVPOOL = "envpool"
USE_GYMNASIUM = "set env.backend=gymnasium"
POOL_OPTIONS = ("num_threads", "thread_affinity_offset")
"""Of `env.kwargs`, beside Gymnasium's own arguments."""

CLASSIC = (
    *("Acrobot-v1", "CartPole-v0", "CartPole-v1", "MountainCar-v0"),
    *("MountainCarContinuous-v0", "Pendulum-v1"),
)
BOX2D: Mapping[str, tuple[str, ...]] = {
    "BipedalWalker": ("hardcore",),
    "BipedalWalkerHardcore": (),
}
"""By name, in version 3; the arguments that EnvPool can be given too."""
DIFFERENT: Mapping[str, str] = {
    "CarRacing": "its pictures are drawn in another way",
    "LunarLander": "its ground is 1 % higher",
    "LunarLanderContinuous": "its ground is 1 % higher",
}
"""Why others are refused that EnvPool has, by name."""
_POSITIONS = "exclude_current_positions_from_observation"
_NOISE = "reset_noise_scale"
_COSTS = ("forward_reward_weight", "ctrl_cost_weight")
_HEALTH = ("healthy_reward", "terminate_when_unhealthy")
MUJOCO: Mapping[str, tuple[str, ...]] = {
    "Ant-v4": ("ctrl_cost_weight", *_HEALTH, _NOISE, _POSITIONS),
    "Ant-v5": (*_COSTS, "contact_cost_weight", *_HEALTH, _NOISE, _POSITIONS, "frame_skip"),
    "HalfCheetah-v4": (*_COSTS, _NOISE, _POSITIONS),
    "HalfCheetah-v5": (*_COSTS, _NOISE, _POSITIONS, "frame_skip"),
    "Hopper-v4": (*_COSTS, *_HEALTH, _NOISE, _POSITIONS),
    "Hopper-v5": (*_COSTS, *_HEALTH, _NOISE, _POSITIONS, "frame_skip"),
    "Humanoid-v4": (*_COSTS, *_HEALTH, _NOISE, _POSITIONS),
    "Humanoid-v5": (*_COSTS, "contact_cost_weight", *_HEALTH, _NOISE, _POSITIONS, "frame_skip"),
    "HumanoidStandup-v5": (_NOISE, _POSITIONS, "frame_skip"),
    "InvertedDoublePendulum-v4": (),
    "InvertedDoublePendulum-v5": ("healthy_reward", _NOISE, "frame_skip"),
    "InvertedPendulum-v4": (),
    "InvertedPendulum-v5": (_NOISE, "frame_skip"),
    "Pusher-v5": ("frame_skip",),
    "Reacher-v4": (),
    "Reacher-v5": ("frame_skip",),
    "Swimmer-v4": (*_COSTS, _NOISE, _POSITIONS),
    "Swimmer-v5": (*_COSTS, _NOISE, _POSITIONS, "frame_skip"),
    "Walker2d-v4": (*_COSTS, *_HEALTH, _NOISE, _POSITIONS),
    "Walker2d-v5": (*_COSTS, *_HEALTH, _NOISE, _POSITIONS, "frame_skip"),
}
"""Arguments that mean the same in both, by id."""
ATARI_NAMES: Mapping[str, str] = {
    "frameskip": "frame_skip",
    "full_action_space": "full_action_space",
    "img_height": "img_height",
    "img_width": "img_width",
    "noop_max": "noop_max",
    "repeat_action_probability": "repeat_action_probability",
    "reward_clipping": "reward_clip",
    "stack_num": "stack_num",
    "use_fire_reset": "use_fire_reset",
}
"""EnvPool's names of ale-py's arguments."""
ATARI_DEFAULTS: Mapping[str, Scalar] = {
    "frameskip": 4,
    "noop_max": 30,
    "repeat_action_probability": 0.25,
    "stack_num": 4,
}
"""Of `ALE/...-v5`, where EnvPool's are others or are needed here."""
ATARI_FIXED: Mapping[str, Scalar] = {
    "continuous": False,
    "episodic_life": False,
    "grayscale": True,
    "life_loss_info": False,
    "maxpool": True,
}
"""ale-py's arguments that can only have their default."""
ATARI_FRAMES = 108_000
"""The longest episode, unless `max_num_frames_per_episode` says otherwise."""
WHAT_HELPS: Mapping[str, str] = {
    "episodic_life": "env.life_loss_terminates=true ends episodes for the learner only",
    "life_loss_info": "env.life_loss_terminates=true ends episodes for the learner only",
}
_PI = np.pi
_LEG = (_PI, 5.0, _PI, 5.0, 5.0)
_WALKER = np.array([_PI, 5.0, 5.0, 5.0, *_LEG, *_LEG, *[1.0] * 10], np.float32)
WALKER_BOUNDS = (-_WALKER * ~np.isin(np.arange(24), (8, 13)), _WALKER)
"""Lowest and highest observation of Gymnasium's BipedalWalker; EnvPool declares none."""


@dataclass(frozen=True)
class PoolTask:
    """What EnvPool is to make.

    Attributes:
        name: EnvPool's.
        limit: Longer episodes are truncated, as Gymnasium's `TimeLimit` does.
        options: EnvPool's arguments.
        bounds: Lowest and highest observation, if EnvPool declares none.
        num_blank: Frames of a stack that are black when an episode starts, as ale-py has them.
        ends_once: Whether a step that terminates an episode never truncates it too.
    """

    name: str
    limit: int
    options: dict[str, Scalar] = field(default_factory=dict)
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    num_blank: int = 0
    ends_once: bool = False

    @property
    def observation_space(self) -> Box | None:
        """That of Gymnasium, if EnvPool's differs."""
        return None if self.bounds is None else Box(*self.bounds, dtype=np.float32)


def task_of(spec: EnvSpec) -> PoolTask:
    """What EnvPool is to make for an experiment.

    Raises:
        ConfigError: EnvPool has no equal environment, or cannot do what the experiment asks for.
    """
    if spec.wrappers:
        raise ConfigError(
            "wrappers go around single environments, which envpool does not have",
            where="env.wrappers",
            fix=f"{USE_GYMNASIUM}, or leave them out: network.normalize_observation,"
            " env.clip_reward and, for Atari, env.kwargs.stack_num work with both",
        )
    if _is_atari(spec.id):
        return _atari_task(spec)
    if spec.id in CLASSIC:
        return _task(spec, spec.id, ())
    if spec.id in MUJOCO:
        task = _task(spec, spec.id, MUJOCO[spec.id])
        if spec.id == "Humanoid-v4":  # Gymnasium observes contact forces, EnvPool only with this
            task.options["post_constraint"] = True
        return task
    stem = spec.id.removesuffix("-v3")
    if stem in BOX2D and stem != spec.id:
        task = _task(spec, spec.id, BOX2D[stem])
        return PoolTask(task.name, task.limit, task.options, WALKER_BOUNDS)
    why = DIFFERENT.get(re.sub(r"-v\d+$", "", spec.id), "")
    raise ConfigError(
        f"envpool has no {spec.id} that is proved equal to Gymnasium's{': ' * bool(why)}{why}",
        where="env.backend",
        fix=f"{USE_GYMNASIUM}{_other_version(spec.id)}",
    )


def gymnasium_twin(spec: EnvSpec) -> EnvSpec:
    """The same environment of Gymnasium, where what steps it does not matter."""
    if spec.backend != ENVPOOL:
        return spec
    is_atari = family_of(spec.registered_id) == "ALE"
    kept = {key: value for key, value in spec.kwargs.items() if is_atari or key not in POOL_OPTIONS}
    return msgspec.structs.replace(spec, backend="gymnasium", kwargs=kept)


def notes_on_backend(spec: EnvSpec) -> tuple[str, ...]:
    """What differs from Gymnasium nevertheless."""
    if spec.backend != ENVPOOL or family_of(spec.registered_id) != "ALE":
        return ()
    if spec.kwargs.get("noop_max") == 1 and spec.kwargs.get("use_fire_reset", True):
        return ()
    return (
        "episodes of Atari start a little differently with env.backend=envpool: its no-ops come"
        " before FIRE, those of ale-py after it",
    )


def _is_atari(name: str) -> bool:
    return name.startswith("ALE/") and name.endswith("-v5") and name[4:-3] in ATARI


def _task(spec: EnvSpec, name: str, allowed: tuple[str, ...]) -> PoolTask:
    """A task with Gymnasium's limit, and arguments that have the same name in both."""
    options = dict(spec.kwargs)
    limit = options.pop("max_episode_steps", gymnasium.registry[spec.id].max_episode_steps)
    known = (*allowed, *POOL_OPTIONS)
    for key in options:
        if key not in known:
            raise _unknown(key, known)
    options = {"num_threads": 1, **options}
    _whole("num_threads", options["num_threads"])
    return PoolTask(name, _whole("max_episode_steps", limit), options)


def _atari_task(spec: EnvSpec) -> PoolTask:
    given = {**ATARI_DEFAULTS, **spec.kwargs}
    for key, only in ATARI_FIXED.items():
        if (value := given.pop(key, only)) != only:
            raise ConfigError(
                f"envpool's Atari cannot have {key}={value!r} as ale-py's can",
                where=f"env.kwargs.{key}",
                fix=f"leave it out, or {USE_GYMNASIUM}"
                + (f"; {WHAT_HELPS[key]}" if key in WHAT_HELPS else ""),
            )
    frames = given.pop("max_num_frames_per_episode", ATARI_FRAMES)
    known = (*ATARI_NAMES, *ATARI_FIXED, *POOL_OPTIONS, "max_num_frames_per_episode")
    for key in given:
        if key not in known:
            raise _unknown(key, known)
    frames = _whole("max_num_frames_per_episode", frames)
    skip, stack = _whole("frameskip", given["frameskip"]), _whole("stack_num", given["stack_num"])
    _whole("noop_max", given["noop_max"])
    if frames % skip:
        raise ConfigError(
            f"a limit of {frames} falls within a step, which takes {skip} of the frames",
            where="env.kwargs.max_num_frames_per_episode",
            fix=f"give a multiple of {skip}, or {USE_GYMNASIUM}",
        )
    options = {ATARI_NAMES.get(key, key): value for key, value in given.items()}
    _whole("num_threads", options.setdefault("num_threads", 1))
    name = spec.id.removeprefix("ALE/")
    return PoolTask(name, frames // skip, options, num_blank=stack - 1, ends_once=True)


def _whole(key: str, value: Scalar) -> int:
    """A whole number from 1; raises ConfigError."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{value!r} is not a whole number from 1", where=f"env.kwargs.{key}")
    return value


def _unknown(key: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"envpool cannot be given {key!r} as Gymnasium can",
        where=f"env.kwargs.{key}",
        fix=f"leave it out, or {USE_GYMNASIUM}; it takes {', '.join(sorted(known))}",
    )


def _other_version(env_id: str) -> str:
    """Ids of the same name that it has, in words; empty if there are none."""
    stem = re.sub(r"-v\d+$", "", env_id)
    listed = (*CLASSIC, *MUJOCO, *(f"{name}-v3" for name in BOX2D))
    same = [one for one in listed if re.sub(r"-v\d+$", "", one) == stem]
    return f", or env.id={' or '.join(same)}" if same else ""
