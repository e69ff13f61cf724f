"""The schema of an inventory file: its keys, and the values that each allows."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.spec import MAX_REPLICAS, NonNegativeInt, PositiveInt, Spec

Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_REPLICAS)]


class RolesSpec(Spec, frozen=True, kw_only=True):
    """How many of each role run on a host."""

    coordinator: Count = 0
    learner: Count = 0
    buffer: Count = 0
    evaluator: Count = 0
    actor: Count = 0


class HostSpec(Spec, frozen=True, kw_only=True):
    """What can be said of a host, a group of hosts, or all of them."""

    connection: Literal["local", "ssh"] | None = None
    """`local`: this machine, without SSH. Without it: `ssh`, except for `localhost`."""
    ssh_host: str | None = None
    """Name, address or `~/.ssh/config` alias to connect to; without it the host's own name."""
    user: str | None = None
    port: int | None = None
    key: str | None = None
    """Private key file. Without it: what `~/.ssh/config` says, the agent, the usual files."""
    jump: str | None = None
    """Alias or `user@host:port` to go through; several with commas, as in ProxyJump."""
    known_hosts: str | None = None
    """File with the only host keys to trust; without it the user's own."""
    address: str | None = None
    """IP address that other hosts reach its roles at; without it what `ssh_host` resolves to."""
    ports: str | int | None = None
    """`first-last`: TCP ports to listen on."""
    python: str | None = None
    """Interpreter to use; without it one is found or made."""
    workdir: str | None = None
    """Directory of TianJi on the host."""
    env: dict[str, str | int | float] = msgspec.field(default_factory=dict)
    """Environment variables for the roles."""
    gpus: tuple[NonNegativeInt, ...] | None = None
    """Numbers of the GPUs that the roles may use; without it all."""
    cores: PositiveInt | None = None
    """How many cores the roles may use; without it all. Placement goes by it."""
    pin: bool | None = None
    """Whether processes that compute get cores of their own where enough are idle; without it
    they do."""
    roles: RolesSpec | None = None
    """How many of each role; without it the placement decides."""


class GroupSpec(HostSpec, frozen=True, kw_only=True):
    """Hosts that share settings."""

    hosts: tuple[str, ...]


class InventoryFile(Spec, frozen=True, kw_only=True):
    """An inventory as it is written."""

    version: Literal[1] = 1
    defaults: HostSpec = HostSpec()
    hosts: dict[str, dict[str, Any] | None] = msgspec.field(default_factory=dict)
    """Name or range to `HostSpec`; null if there is nothing to say."""
    groups: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """Name to `GroupSpec`."""
