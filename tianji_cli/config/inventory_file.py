"""Writes a resolved inventory as a file that resolves to the same."""

from __future__ import annotations

from typing import Any

import msgspec

from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.inventory_schema import InventoryFile


def as_file(inventory: Inventory) -> InventoryFile:
    """A document from which `load_inventory` reads the same hosts."""
    hosts: dict[str, dict[str, Any] | None] = {
        host.name: _written(host) for host in inventory.hosts
    }
    return InventoryFile(network=inventory.network, hosts=hosts)


def _written(host: Host) -> dict[str, Any]:
    """The keys of a host that are set; others are not written."""
    said: dict[str, Any] = msgspec.to_builtins(host)
    # These are not in a file: they are found for each run.
    del said["name"], said["groups"], said["job"], said["actors"]
    if host.ports is not None:
        first, end = host.ports
        said["ports"] = f"{first}-{end - 1}"
    return {key: value for key, value in said.items() if value is not None and value != ""}
