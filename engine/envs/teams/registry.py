"""Teams whose copies step together as arrays, by the id that asks for them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import gymnasium

from engine.envs.teams.foraging import foraging_of
from engine.envs.teams.matrix_games import TwoStepGame, climbing_game
from engine.envs.teams.speaker_listener import SimpleSpeakerListener
from engine.envs.teams.spread import SimpleSpread
from engine.envs.teams.vector import TeamVectorEnv
from engine.spec import PETTINGZOO, EnvSpec

MakeTeam: TypeAlias = Callable[..., TeamVectorEnv]

TEAMS: dict[str, MakeTeam] = {
    "TwoStep-v0": TwoStepGame,
    "Climbing-v0": climbing_game,
    f"{PETTINGZOO}:mpe2.simple_spread_v3": SimpleSpread,
    f"{PETTINGZOO}:mpe2.simple_speaker_listener_v4": SimpleSpeakerListener,
}


def register_team(env_id: str, make_vector: MakeTeam) -> None:
    """Registers an environment of several agents whose copies are stepped together.

    Args:
        env_id: A name for `env.id`; or one that can be made in another way too, such as
            `pettingzoo:mpe2.simple_spread_v3`. This version is then preferred, as long as it takes
            all of `env.kwargs`.
        make_vector: Called with `num_envs`, `central_state` and `env.kwargs`; such as a subclass
            of `engine.envs.teams.vector.BatchedTeam`.
    """
    TEAMS[env_id] = make_vector


def _has_foraging(spec: EnvSpec) -> bool:
    """Whether lbforaging registers this id: not every number of agents and food."""
    if foraging_of(spec.registered_id) is None:
        return False
    with suppress(ImportError):  # which is told where its own version is made
        importlib.import_module("lbforaging")
    return spec.registered_id in gymnasium.registry


def has_other_version(spec: EnvSpec) -> bool:
    """Whether there is a package whose copies can be stepped one after the other."""
    return spec.pettingzoo_module is not None or foraging_of(spec.registered_id) is not None


def batched_version(spec: EnvSpec) -> MakeTeam | None:
    """The version of an id whose copies step together; None if there is none, or if it does not
    take these arguments and there is another."""
    make = TEAMS.get(spec.id) or TEAMS.get(spec.registered_id)
    if make is None and not (spec.kwargs or spec.wrappers or spec.central_state):
        make = foraging_of(spec.registered_id) if _has_foraging(spec) else None
    if make is None or not has_other_version(spec):
        return make
    try:
        inspect.signature(make).bind(num_envs=1, central_state=False, **spec.kwargs)
    except TypeError:
        return None
    return make
