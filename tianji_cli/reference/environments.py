"""What `env.id` can be here, by family; and families whose package is missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.envs.extras import install_command
from engine.envs.names import ATARI, EXTRAS, MINATAR, family_of, newest_versions
from engine.errors import ConfigError
from engine.spec import PETTINGZOO, EnvSpec
from tianji_cli.reference.rows import ListedRow

if TYPE_CHECKING:
    from gymnasium import Space
    from gymnasium.envs.registration import EnvSpec as Registered


class EnvironmentRow(ListedRow, frozen=True, kw_only=True):
    """An environment that can be used here.

    Attributes:
        id: For `env.id`.
        family: Where it comes from.
        observation, action: Spaces, as a policy gets them; empty if they were not looked at.
        problem: Why it needs `env.wrappers` or, without spaces, cannot be made; empty if it can, or
            was not looked at.
    """

    id: str
    family: str
    observation: str = ""
    action: str = ""
    problem: str = ""

    headings = ("environment", "observation", "action")

    @property
    def cells(self) -> tuple[str, ...]:
        return self.id, self.observation, self.action

    @property
    def advice(self) -> str:
        """What to know before it is used; empty if there is no problem."""
        if not self.problem:
            return ""
        return f"{self.id} needs env.wrappers: {self.problem}" if self.observation else self.problem


class MissingFamily(msgspec.Struct, frozen=True, kw_only=True):
    """Environments that need a package which is not installed.

    Attributes:
        family: Where they come from.
        example: One of their ids.
        package: What is missing.
        install: The command that installs it.
    """

    family: str
    example: str
    package: str
    install: str


class _Family(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes as above; `extra` is TianJi's. Without a package: part of Gymnasium itself."""

    title: str
    package: str = ""
    extra: str = ""
    example: str = ""


_OF_GYMNASIUM: Mapping[str, _Family] = {
    "classic_control": _Family(title="classic control"),
    "toy_text": _Family(title="toy text"),
    "box2d": _Family(title="Box2D", package="Box2D", extra="box2d", example="LunarLander-v3"),
    "mujoco": _Family(title="MuJoCo", package="mujoco", extra="mujoco", example="HalfCheetah-v5"),
}
"""By their folder in `gymnasium.envs`; its other folders need packages that no extra has."""
_EXAMPLES = {
    "ALE": f"ALE/{ATARI[ATARI.index('Pong')]}-v5",
    "BabyAI": "BabyAI-GoToObj-v0",
    "Foraging": "Foraging-8x8-2p-3f-v3",
    "MinAtar": f"MinAtar/{MINATAR[1]}-v1",
    "MiniGrid": "MiniGrid-DoorKey-5x5-v0",
}
_OF_EXTRAS: Mapping[str, _Family] = {
    name: _Family(
        title="Atari" if name == "ALE" else name,
        package=package,
        extra=extra,
        example=_EXAMPLES[name],
    )
    for name, (package, extra) in EXTRAS.items()
}


_PETTINGZOO = _Family(
    title="PettingZoo",
    package=PETTINGZOO,
    extra="marl",
    example=f"{PETTINGZOO}:mpe2.simple_spread_v3",
)
_MATRIX_GAMES = _Family(title="matrix games")


def environments() -> tuple[list[EnvironmentRow], list[MissingFamily]]:
    """What can be used here, by family, and what could be after an installation.

    Of several versions of a name the newest is listed. Imports packages of environments, which can
    print.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gymnasium

    families = [*_OF_GYMNASIUM.values(), _MATRIX_GAMES, *_OF_EXTRAS.values(), _PETTINGZOO]
    missing = [family for family in families if family.package and not _is_here(family.package)]
    for family in _OF_EXTRAS.values():
        if family not in missing and family.package != "minatar":
            gymnasium.register_envs(importlib.import_module(family.package))
    rows = [
        *_registered(gymnasium.registry, missing),
        *_on_first_use(missing),
        *_of_teams(missing),
    ]
    order = {family.title: number for number, family in enumerate(families)}
    rows.sort(key=lambda row: (order.get(row.family, len(order)), row.family, row.id))
    return rows, [_missing(family) for family in missing]


def look_at(row: EnvironmentRow) -> EnvironmentRow:
    """The same with its spaces, and what is wrong with them. Imports PyTorch.

    The environment is made as for a run, so it can print.
    """
    import gymnasium

    from engine.envs.make import make_vector_env, spaces_of
    from engine.envs.teams.vector import TeamVectorEnv

    try:
        vector = make_vector_env(EnvSpec(id=row.id, num_envs=1))
    except ConfigError as error:
        if row.id not in gymnasium.registry:
            return msgspec.structs.replace(row, problem=error.what.partition("\n")[0])
        problem = error.what.partition(": ")[0]  # the rest repeats the whole space
        env = gymnasium.make(row.id, disable_env_checker=True)
        words = space_words(env.observation_space), space_words(env.action_space)
        env.close()
    else:
        team, problem = vector.unwrapped, ""
        if isinstance(team, TeamVectorEnv):
            words = _words_by_agent(team.agent_observations), _words_by_agent(team.agent_actions)
        else:
            spaces = spaces_of(vector)
            words = space_words(spaces.observation), space_words(spaces.action)
        vector.close()
    observation, action = words
    return msgspec.structs.replace(row, observation=observation, action=action, problem=problem)


def _words_by_agent(spaces: Mapping[str, Space[object]]) -> str:
    """Equal spaces once: `3 x Box(18, float32)`, or `speaker_0: Box(3), listener_0: Box(11)`."""
    words = {name: space_words(space) for name, space in spaces.items()}
    if len(set(words.values())) == 1:
        return f"{len(words)} x {next(iter(words.values()))}"
    return ", ".join(f"{name}: {text}" for name, text in words.items())


def space_words(space: Space[object]) -> str:
    """A space in few words: kinds and shapes, without the bounds of each entry.

    >>> from gymnasium.spaces import Box, Dict, Discrete
    >>> space_words(Dict({"speed": Box(-1, 1, (2,)), "gear": Discrete(5)}))
    'Dict(gear: Discrete(5), speed: Box(2, float32))'
    """
    from gymnasium import spaces

    match space:
        case spaces.Box():
            return f"Box({' x '.join(map(str, space.shape)) or 'one'}, {space.dtype})"
        case spaces.Dict():
            return f"Dict({', '.join(f'{k}: {space_words(v)}' for k, v in space.items())})"
        case spaces.Tuple():
            return f"Tuple({', '.join(map(space_words, space))})"
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return " ".join(str(space).split())
    return type(space).__name__


def _is_here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _missing(family: _Family) -> MissingFamily:
    package = family.package.replace("_", "-")
    return MissingFamily(
        family=family.title,
        example=family.example,
        package=package,
        install=install_command(family.extra, package),
    )


def _registered(
    registry: Mapping[str, Registered], missing: Sequence[_Family]
) -> Iterator[EnvironmentRow]:
    """The newest version of each registered name, if its package is here."""
    for env_id in newest_versions(registry):
        family = _family_of(env_id, registry[env_id])
        if family is not None and family not in missing:
            yield EnvironmentRow(id=env_id, family=family.title)


def _family_of(env_id: str, spec: Registered) -> _Family | None:
    """None: it is listed otherwise, or only says that another package is needed."""
    if not isinstance(spec.entry_point, str):
        return None
    module = spec.entry_point.partition(":")[0].split(".")
    if module[:2] == ["gymnasium", "envs"]:
        return _OF_GYMNASIUM.get(module[2])
    name = family_of(env_id)
    if module[0] in ("ale_py", "minatar"):
        return None  # those that a run can use are listed below
    return _OF_EXTRAS.get(name) or _Family(title=module[0])


def _of_teams(missing: Sequence[_Family]) -> Iterator[EnvironmentRow]:
    """Environments of several agents that Gymnasium does not register."""
    from engine.envs.teams.modules import usable_environments
    from engine.envs.teams.registry import TEAMS

    for name in TEAMS:
        if not name.startswith(f"{PETTINGZOO}:"):
            yield EnvironmentRow(id=name, family=_MATRIX_GAMES.title)
    if _PETTINGZOO not in missing:
        for name in usable_environments():
            yield EnvironmentRow(id=f"{PETTINGZOO}:{name}", family=_PETTINGZOO.title)


def _on_first_use(missing: Sequence[_Family]) -> Iterator[EnvironmentRow]:
    """Ids that TianJi registers when a run names them."""
    for name, ids in (("ALE", ATARI), ("MinAtar", MINATAR)):
        version = {"ALE": 5, "MinAtar": 1}[name]
        if _OF_EXTRAS[name] not in missing:
            for game in ids:
                yield EnvironmentRow(id=f"{name}/{game}-v{version}", family=_OF_EXTRAS[name].title)
