"""Hides what is not for others: values of `env`, which can be secrets, and this machine's paths.

Files in results and printed documents name the variables and hide their values. A command that
resumes from such a file reads the values from the inventory again.
"""

from __future__ import annotations

import re
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


_PATH = re.compile(r"""(?<![^\s=,"'(\[])/(?:[^\s/"',:]+/)*([^\s/"',:]+)""")
_HOST_NAME = "hostname"


def redacted(document: T) -> T:
    """The same document with absolute paths reduced to their last part, and an empty host name."""
    return msgspec.convert(_without(msgspec.to_builtins(document)), type(document))


def redacted_json(line: bytes) -> bytes:
    """The same for any JSON document."""
    return msgspec.json.encode(_without(msgspec.json.decode(line)))


def redact_paths(text: str) -> str:
    """Absolute paths in a text become their last part.

    >>> redact_paths("/home/me/bin/python -m x --file=/tmp/a.yaml"), redact_paths("12 steps/s"), redact_paths("https://a.b/c")
    ('python -m x --file=a.yaml', '12 steps/s', 'https://a.b/c')
    """
    return _PATH.sub(r"\1", text)


def _without(tree: object) -> object:
    if isinstance(tree, str):
        return redact_paths(tree)
    if isinstance(tree, (list, tuple)):
        return [_without(item) for item in tree]
    if isinstance(tree, dict):
        return {key: "" if key == _HOST_NAME else _without(item) for key, item in tree.items()}
    return tree
