"""What `auto` has chosen for a run: in its manifest, and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from engine.wording import plural
from tianji_cli.config.inventory import Inventory

Bound: TypeAlias = Literal["cores", "lag", "batch", "learner", "hosts"]
_WORDS_OF_BOUND: Mapping[Bound, str] = {
    "cores": "there are no cores for more",
    "lag": "no more can collect at the same time within the bound on lag",
    "batch": "a batch can be shared by no more",
    "learner": "a learner takes no more",
    "hosts": "one for every host, of which not all can collect at the same time",
}


class Automatic(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for a run, and from what; in its manifest.

    Attributes:
        actors, num_envs: The numbers chosen; null if they were given.
        bound: Why there are no more actors: for want of cores, by the bound on lag, since a batch
            is shared by no more or a learner takes no more, or since every host has one already.
        cores: Of each host, as the inventory states or the host says.
        unknown: Hosts of which neither is so; their `cores` are 1.
        actors_on: Actors on each host, if they were chosen and are separate processes of one group.
        env_steps_per_s: What one actor collected in eager mode, by its number of environments; if
            that was measured.
        learnt_per_s: Env steps that a learner took in eager mode, in a second.
    """

    actors: int | None = None
    num_envs: int | None = None
    bound: Bound | None = None
    cores: dict[str, int] = {}
    unknown: list[str] = []
    actors_on: dict[str, int] = {}
    env_steps_per_s: dict[int, float] = {}
    learnt_per_s: float | None = None


def words_of(chosen: Automatic, inventory: Inventory) -> list[str]:
    """What was chosen and from what, for the user."""
    words = []
    if chosen.actors is not None:
        words.append(f"actors=auto: {_words_of_actors(chosen.actors, chosen, inventory)}")
    if chosen.num_envs is not None:
        rates = ", ".join(
            f"{rate:,.0f} with {number}" for number, rate in chosen.env_steps_per_s.items()
        )
        words.append(
            f"env.num_envs=auto: {chosen.num_envs}; measured on this machine, before anything is"
            f" compiled: an actor collects {rates} env steps/s, a learner takes"
            f" {chosen.learnt_per_s or 0:,.0f}"
        )
    return words


def _words_of_actors(actors: int, chosen: Automatic, inventory: Inventory) -> str:
    if any((host.roles or {}).get("actor") for host in inventory.hosts):
        return f"{actors}, as `roles` of {inventory.source} name them"
    if not chosen.cores:
        return f"{actors}, since all of them are in one process"
    where = ", ".join(f"{count} on {name}" for name, count in chosen.actors_on.items() if count)
    several = f" ({where})" if where else ""
    cores = plural(sum(chosen.cores.values()), "core")
    why = f": {_WORDS_OF_BOUND[chosen.bound]}" if chosen.bound else ""
    names = ", ".join(chosen.unknown)
    unknown = f" (cores of {names} unknown, taken as 1)" if names else ""
    return f"{actors}{several}, of {cores} on {plural(len(chosen.cores), 'host')}{unknown}{why}"
