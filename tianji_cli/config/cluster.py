"""A cluster as a file: hosts that need not exist, for `tianji plan --simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.config.config_file import convert, read_yaml
from engine.spec import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Spec


class ClusterNetworkSpec(Spec, frozen=True, kw_only=True):
    """The network between the hosts."""

    bandwidth_mbit_s: PositiveFloat = 10_000.0
    """Of the link of each host, each way."""
    latency_ms: NonNegativeFloat = 0.1
    """From host to host, one way."""
    encryption_mb_s: PositiveFloat = 600.0
    """What a process passes on encrypted. 560 to 810 MB/s were measured when one thread of ZeroMQ
    encrypted (results/reference/transport-10gbit); sealed as now it is more."""


class SpeedSpec(Spec, frozen=True, kw_only=True):
    """How many times as fast as in the measured run these are; your assumptions."""

    stepping: PositiveFloat = 1.0
    """Computing in environments; an emulated latency stays as it is."""
    acting: PositiveFloat = 1.0
    """Choosing actions."""
    updating: PositiveFloat = 1.0
    """Training on a batch."""
    merging: PositiveFloat = 1.0
    """Merging models."""


class ClusterSpec(Spec, frozen=True, kw_only=True):
    """Equal hosts, and how a run is spread over them."""

    version: Literal[1] = 1
    """Version of the file format."""
    summary: str = ""
    """One line about it, for the table."""
    cores: PositiveInt | None = None
    """Of each host. `null`: as the host of the measured run that had most."""
    gpus: NonNegativeInt = 0
    """Of each host. If there are any, learners (and loops fused on a device) train on them, and
    those of one host share them."""
    actors_per_host: PositiveInt | None = None
    """`null`: as many as the measured run had on the host with most actors."""
    hosts_per_group: PositiveInt | None = None
    """A compute group for so many hosts. `null`: one for each host if the measured run had several
    groups, otherwise one for all."""
    grow_batch: bool = False
    """Whether a batch has more rollouts with more hosts, in proportion to the actors of a group.
    It is another experiment then: more env steps between two weights versions."""
    shared_cores: bool = False
    """Whether all hosts share the cores of one machine, as those of a lab do."""
    network: ClusterNetworkSpec = ClusterNetworkSpec()
    speed: SpeedSpec = SpeedSpec()


def load_cluster(path: Path) -> ClusterSpec:
    """Reads a cluster file.

    Raises:
        ConfigError: It cannot be used; file, line and key are named.
    """
    return convert(read_yaml(path), ClusterSpec)
