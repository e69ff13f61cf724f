"""Masks the values of `env` in an inventory, which can be secrets, so that none is stored.

Files in results and printed documents name the variables and hide their values. A command that
resumes from such a file reads the values from the inventory again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from engine.errors import ConfigError
from tianji_cli.config.inventory import Host, Inventory, load_inventory

MASK = "***"
"""Replaces every value of `env` in stored files."""

T = TypeVar("T")


def masked(document: T) -> T:
    """The same document with the values of every host's environment masked."""
    return _masked(document)  # type: ignore[return-value]  # the type is unchanged


def _masked(value: object) -> object:
    if isinstance(value, Host):
        return msgspec.structs.replace(value, env=dict.fromkeys(value.env, MASK))
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        changed = {name: _masked(item) for name, item in fields.items()}
        if all(changed[name] is item for name, item in fields.items()):
            return value
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, list | tuple):
        items = [_masked(item) for item in value]
        is_same = all(new is old for new, old in zip(items, value, strict=True))
        return value if is_same else type(value)(items)
    if isinstance(value, dict):
        pairs = {key: _masked(item) for key, item in value.items()}
        return value if all(pairs[key] is item for key, item in value.items()) else pairs
    return value


def is_masked(inventory: Inventory) -> bool:
    """Whether masked values are missing."""
    return any(MASK in host.env.values() for host in inventory.hosts)


def filled(inventory: Inventory, fix: str) -> Inventory:
    """The same hosts with the masked values of `env`, read from their inventory file.

    Args:
        inventory: As recorded.
        fix: What to do if that file no longer has them.

    Raises:
        ConfigError: The file cannot be read, or lacks a host or variable.
    """
    if not is_masked(inventory):
        return inventory
    try:
        given = {host.name: host for host in load_inventory(Path(inventory.source)).hosts}
    except ConfigError as error:
        raise ConfigError(
            f"the values of `env` are not kept in results, and cannot be read again: {error}",
            where=inventory.source,
            fix=fix,
        ) from error
    return msgspec.structs.replace(
        inventory,
        hosts=tuple(
            _filled(host, given.get(host.name), inventory, fix) for host in inventory.hosts
        ),
    )


def _filled(host: Host, given: Host | None, inventory: Inventory, fix: str) -> Host:
    env = dict(host.env)
    for name, value in host.env.items():
        if value == MASK:
            if given is None or name not in given.env:
                raise ConfigError(
                    f"the value of `env: {name}` is not kept in results, and is no longer there",
                    where=f"{inventory.source}: {host.name}",
                    fix=fix,
                )
            env[name] = given.env[name]
    return msgspec.structs.replace(host, env=env)
