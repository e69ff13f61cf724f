"""`auto` in an experiment: numbers that are chosen once the hosts of a run are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config.yaml_text import KeyPath
from engine.spec import AUTO

AUTOMATIC_KEYS: tuple[KeyPath, ...] = (("actors",), ("env", "num_envs"))
"""The keys of an experiment whose `auto` becomes a number before a run."""


def without_automatic(data: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[KeyPath]]:
    """An experiment's values without those that are `auto`, and the keys of these.

    >>> without_automatic({"actors": "auto", "env": {"num_envs": 4}})
    ({'env': {'num_envs': 4}}, frozenset({('actors',)}))
    """
    found = set()

    def keep(section: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        kept = {}
        for key, value in section.items():
            inside = (*path, key)
            if value == AUTO and inside in AUTOMATIC_KEYS:
                found.add(inside)
            else:
                kept[key] = keep(value, inside) if isinstance(value, dict) else value
        return kept

    return keep(data, ()), frozenset(found)
