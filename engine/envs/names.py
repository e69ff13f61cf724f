"""Suggestions for an unknown `env.id`, by names alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

ATARI = (
    *("Adventure", "AirRaid", "Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis"),
    *("BankHeist", "BattleZone", "BeamRider", "Berzerk", "Bowling", "Boxing", "Breakout"),
    *("Carnival", "Centipede", "ChopperCommand", "CrazyClimber", "Defender", "DemonAttack"),
    *("DonkeyKong", "DoubleDunk", "ElevatorAction", "Enduro", "FishingDerby", "Freeway"),
    *("Frogger", "Frostbite", "Galaxian", "Gopher", "Gravitar", "Hero", "IceHockey", "Jamesbond"),
    *("JourneyEscape", "Kangaroo", "Krull", "KungFuMaster", "MontezumaRevenge", "MsPacman"),
    *("NameThisGame", "Pacman", "Phoenix", "Pitfall", "Pong", "Pooyan", "PrivateEye", "Qbert"),
    *("Riverraid", "RoadRunner", "Robotank", "Seaquest", "Skiing", "Solaris", "SpaceInvaders"),
    *("StarGunner", "Tennis", "Tetris", "TimePilot", "Tutankham", "UpNDown", "Venture"),
    *("VideoPinball", "WizardOfWor", "YarsRevenge", "Zaxxon"),
)
MINATAR = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
EXTRAS = {
    "ALE": ("ale_py", "atari"),
    "BabyAI": ("minigrid", "minigrid"),
    "Foraging": ("lbforaging", "marl"),
    "MinAtar": ("minatar", "minatar"),
    "MiniGrid": ("minigrid", "minigrid"),
}
"""The package that ids of a family need, and the extra that installs it."""
MARL_PACKAGES = ("pettingzoo", "mpe2", "lbforaging")
"""Those of the extra `marl`."""
KNOWN = (*(f"ALE/{game}-v5" for game in ATARI), *(f"MinAtar/{game}-v1" for game in MINATAR))
"""Ids that are registered on first use."""
MANY = 3
LIST_ALL = "python -c 'import gymnasium; gymnasium.pprint_registry()' lists all"
_VARIANT = re.compile(r"(noframeskip|deterministic|[-_]?ram(deterministic|noframeskip)?)$")
_EXTRA = re.compile(r"gymnasium\[(?:\w+,)*(box2d|mujoco)\b")


def nearest(env_id: str, registered: Iterable[str]) -> str:
    """Advice such as `did you mean 'ALE/Pong-v5'?`.

    Names are compared without namespace, version, case and the variants of old Atari ids; of equal
    names the newest version counts, and one without a namespace before those with one.

    Args:
        env_id: The unknown one.
        registered: All registered ids.
    """
    module, _, own = env_id.rpartition(":")
    newest: dict[tuple[str, str], str] = {}
    for candidate in (*registered, *KNOWN):
        space, name, version = _parts(candidate)
        place = (name.lower(), space)
        if place not in newest or version > _parts(newest[place])[2]:
            newest[place] = candidate
    names = {name for name, _ in newest}
    wanted_space, wanted, _ = _parts(own)
    bare = _VARIANT.sub("", wanted.lower())
    equal = [one for one in (wanted.lower(), bare) if one in names]
    near = equal or difflib.get_close_matches(bare, sorted(names), n=1, cutoff=0.6)
    if not near:
        return LIST_ALL
    name = near[0]
    spaces = {space.lower(): candidate for (one, space), candidate in newest.items() if one == name}
    if wanted_space.lower() in spaces:
        found = [spaces[wanted_space.lower()]]
    elif "" in spaces:
        found = [spaces[""]]
    else:
        found = [candidate for _, candidate in sorted(spaces.items())][:MANY]
    prefix = f"{module}:" if module and "/" not in found[0] else ""
    return "did you mean " + " or ".join(repr(prefix + candidate) for candidate in found) + "?"


def newer_version(env_id: str, registered: Iterable[str]) -> str:
    """The newest id of the same name if it is another one; else empty."""
    wanted = _parts(env_id)
    same = [one for one in registered if _parts(one)[:2] == wanted[:2]]
    best = max(same, key=lambda one: _parts(one)[2], default=env_id)
    return best if _parts(best)[2] > wanted[2] else ""


def newest_versions(registered: Iterable[str]) -> list[str]:
    """Of each name the id with the newest version, in order."""
    ids = list(registered)
    newest: dict[tuple[str, str], int] = {}
    for space, name, version in map(_parts, ids):
        newest[space, name] = max(version, newest.get((space, name), version))
    return [one for one in ids if newest[_parts(one)[:2]] == _parts(one)[2]]


def extra_of(words: str) -> str:
    """How to install what an error of Gymnasium says is missing; empty if it says nothing."""
    found = _EXTRA.search(words)
    return f"pip install 'tianji-rl[{found[1]}]'" if found else ""


def family_of(env_id: str) -> str:
    """The namespace of an id, or its first word, as in `MiniGrid-Empty-5x5-v0`.

    >>> [family_of(one) for one in ("ALE/Pong-v5", "MiniGrid-Empty-5x5-v0", "CartPole-v1")]
    ['ALE', 'MiniGrid', 'CartPole']
    """
    return re.split("[/-]", env_id, maxsplit=1)[0]


def _parts(env_id: str) -> tuple[str, str, int]:
    """Namespace, name and version; -1 without one."""
    space, _, rest = env_id.rpartition("/")
    name, dash, version = rest.rpartition("-v")
    return (space, name, int(version)) if dash and version.isdecimal() else (space, rest, -1)
