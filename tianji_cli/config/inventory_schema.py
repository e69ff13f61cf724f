"""The schema of an inventory file: its keys, the values that each allows, `box[1-8]` as a key."""

from __future__ import annotations

import itertools
import math
import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.spec import MAX_REPLICAS, NonNegativeInt, PositiveInt, Spec

ConnectionKind: TypeAlias = Literal["local", "ssh", "slurm", "ray"]
Network: TypeAlias = Literal["encrypted", "trusted"]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_REPLICAS)]


class RolesSpec(Spec, frozen=True, kw_only=True):
    """How many of each role run on a host."""

    coordinator: Count = 0
    """1 on the host where it runs."""
    learner: Count = 0
    """Learners; one for each compute group of the run."""
    buffer: Count = 0
    """Rollout queues or replay stores; one for each compute group of the run."""
    evaluator: Count = 0
    """1 on the host where it runs, if the experiment has an `evaluation`."""
    actor: Count = 0
    """Actors."""


class RaySpec(Spec, frozen=True, kw_only=True):
    """The Ray cluster of a host."""

    address: str | None = None
    """`HOST:PORT` of its head, as `ray start --address` takes it; default: `$RAY_ADDRESS`."""
    without_token: bool = False
    """Use the cluster although it lets in everyone who reaches it."""


class HostSpec(Spec, frozen=True, kw_only=True):
    """Settings of a host, a group of hosts, or all hosts."""

    connection: ConnectionKind | None = None
    """`local`: this machine, without SSH. `slurm`: a node of the Slurm job in which the command
    runs, by its name there. `ray`: a node of a Ray cluster, chosen by Ray. Default: `ssh`, except
    for `localhost`."""
    ssh_host: str | None = None
    """SSH: name, address or `~/.ssh/config` alias to connect to; default: the host's own name."""
    user: str | None = None
    """To log in as; default: that of `~/.ssh/config`, else yours."""
    port: int | None = None
    """Of sshd, 1 to 65535; default: that of `~/.ssh/config`, else 22."""
    key: str | None = None
    """Private key file. Default: that of `~/.ssh/config`, the agent, the usual files."""
    jump: str | None = None
    """Alias or `user@host:port` of a jump host; several comma-separated, as in ProxyJump."""
    known_hosts: str | None = None
    """File with the only host keys to trust; default: the user's own."""
    ray: RaySpec | None = None
    """The cluster, with `connection: ray`."""
    address: str | None = None
    """IP address at which other hosts reach its roles; default: that of `ssh_host`, or of the node
    as its manager has it. On Ray it also says which node it is to be."""
    ports: str | int | None = None
    """TCP ports to listen on, as `first-last`; default: 29500-29599, of a local host none: its
    roles use Unix sockets."""
    python: str | None = None
    """Interpreter to use; default: one is found or made."""
    workdir: str | None = None
    """Directory of TianJi on the host; default: `~/.tianji`."""
    env: dict[str, str | int | float] = msgspec.field(default_factory=dict)
    """Environment variables for the roles; not for nodes of Slurm, which have those of the job."""
    gpus: tuple[NonNegativeInt, ...] | None = None
    """Numbers of the GPUs that the roles may use; default: all, in a Slurm job those of the job,
    on Ray none: as many are reserved as the highest number needs."""
    cores: PositiveInt | None = None
    """Number of cores that the roles may use; default: all, in a Slurm job those of the job,
    on Ray 1: as many are reserved. Placement uses it."""
    pin: bool | None = None
    """Whether each computing process is pinned to its own core if enough are idle; default: yes."""
    roles: RolesSpec | None = None
    """Number of each role; default: decided by placement."""


class GroupSpec(HostSpec, frozen=True, kw_only=True):
    """Hosts that share settings."""

    hosts: tuple[str, ...]
    """Names or ranges, such as `box[1-8]`."""


class InventoryFile(Spec, frozen=True, kw_only=True):
    """An inventory as written."""

    version: Literal[1] = 1
    """Version of the file format."""
    network: Network = "encrypted"
    """`trusted`: learners of one update on several hosts exchange gradients by torch.distributed,
    which neither encrypts nor authenticates; everything else is encrypted in any case."""
    defaults: HostSpec = HostSpec()
    """For all hosts; a group overrides them, a host overrides its groups."""
    hosts: dict[str, dict[str, Any] | None] = msgspec.field(default_factory=dict)
    """Hosts by name or range, such as `box[1-8]`, with their settings, which are those of
    `defaults`; `null` or `{}` if nothing is set."""
    groups: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """Groups by name: their hosts, and settings as under `defaults`."""


_RANGE = re.compile(r"\[(?P<first>\d+)-(?P<last>\d+)\]")
MAX_HOSTS = 1024


def expand_range(text: str) -> list[str]:
    """All names of a host pattern; leading zeros of the first number are kept.

    >>> expand_range("box[1-3]")
    ['box1', 'box2', 'box3']
    >>> expand_range("node[08-10].lab")
    ['node08.lab', 'node09.lab', 'node10.lab']
    >>> expand_range("plain")
    ['plain']

    Raises:
        ValueError: A range runs backwards, there are too many names, or a bracket is not a range.
    """
    numbers, texts = [], []
    end = 0
    for match in _RANGE.finditer(text):
        texts.append(text[end : match.start()])
        numbers.append(_numbers_of(match, text))
        end = match.end()
    texts.append(text[end:])
    if any("[" in part or "]" in part for part in texts):
        raise ValueError(f"{text!r} holds a bracket that is no range such as [1-8]")
    if math.prod(map(len, numbers)) > MAX_HOSTS:
        raise ValueError(f"{text!r} stands for more than {MAX_HOSTS} hosts")
    return [
        "".join(itertools.chain.from_iterable(zip(texts, (*chosen, ""), strict=True)))
        for chosen in itertools.product(*numbers)
    ]


def _numbers_of(match: re.Match[str], text: str) -> list[str]:
    """The numbers of one range, as written."""
    first, last = int(match["first"]), int(match["last"])
    if last < first:
        raise ValueError(f"{text!r} runs backwards")
    if last - first >= MAX_HOSTS:
        raise ValueError(f"{text!r} stands for more than {MAX_HOSTS} hosts")
    width = len(match["first"]) if match["first"].startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]
