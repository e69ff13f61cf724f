"""A scaling suite as data: one experiment, numbers of nodes, and number of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from engine.config.config_file import convert
from engine.errors import ConfigError
from engine.host.account import expand
from engine.spec import Experiment, PositiveFloat, PositiveInt, Spec, StopSpec, check_experiment
from engine.wording import is_or_are, plural
from tianji_cli.bench.kinds import read_suite
from tianji_cli.config.inventory import Inventory
from tianji_cli.config.lookup import find_file


class ScalingSuite(Spec, frozen=True, kw_only=True, tag_field="kind", tag="scaling"):
    """A benchmark of scaling, completely described."""

    version: Literal[1] = 1
    """Version of the file format."""
    name: str
    """Part of the benchmark's id."""
    summary: str
    """One line about it, for reports."""
    nodes: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    """Numbers of hosts; each host has a compute group. Ratios are relative to the first number."""
    seeds: PositiveInt = 3
    """Blocks: in each, every number of nodes runs once with the same seed."""
    budget_s: PositiveFloat
    """Seconds of training after which a run has not reached the threshold."""
    experiment: Experiment
    """The work. `actors` are those of one node; `seed`, `groups` and `stop.seconds` are set."""

    @property
    def threshold(self) -> float:
        assert self.experiment.stop.return_threshold is not None
        return self.experiment.stop.return_threshold

    def experiment_on(self, nodes: int, seed: int) -> Experiment:
        """The same hyperparameters for each group, whatever their number."""
        work = self.experiment
        stop = StopSpec(
            seconds=self.budget_s,
            return_threshold=work.stop.return_threshold,
            return_window=work.stop.return_window,
            judge=work.stop.judge,
            sustained=work.stop.sustained,
        )
        return msgspec.structs.replace(
            work, seed=seed, groups=nodes, actors=work.actors * nodes, stop=stop
        )


def load_scaling_suite(name: str, settings: Sequence[str] = ()) -> ScalingSuite:
    """Reads a suite: the name of one that comes with TianJi, or a path.

    Args:
        name: Such as `scaling` or `my/suite.yaml`.
        settings: `experiment.env.step_latency_ms=30`, laid over the file.

    Raises:
        ConfigError: No such suite, or it cannot be used.
    """
    document = read_suite(name, settings)
    suite = convert(document, ScalingSuite)
    check_experiment(suite.experiment)
    if suite.experiment.stop.return_threshold is None:
        raise ConfigError(
            "a time to threshold is to be measured, but there is no threshold",
            where=document.where(("experiment", "stop", "return_threshold")),
            fix="return_threshold: 475",
        )
    if sorted(set(suite.nodes)) != list(suite.nodes):
        raise ConfigError(
            f"{list(suite.nodes)} does not grow",
            where=document.where(("nodes",)),
            fix="nodes: [1, 2, 4, 8]",
        )
    return suite


def check_hosts(suite: ScalingSuite, inventory: Inventory) -> None:
    """Raises ConfigError if there are fewer hosts than the largest number of nodes."""
    wanted, found = max(suite.nodes), len(inventory.hosts)
    if found < wanted:
        fewer = [nodes for nodes in suite.nodes if nodes <= found]
        raise ConfigError(
            f"{plural(wanted, 'node')} {is_or_are(wanted)} asked for, but the inventory has"
            f" {plural(found, 'host')}",
            where=inventory.source,
            fix=f"tianji lab up --hosts {wanted}, or -s nodes={fewer}",
        )


LAB = "~/.tianji/lab/inventory.yaml"
"""Hosts of the running lab."""


def is_lab(inventory: Inventory) -> bool:
    """Whether its hosts are those of the lab, which are all on this machine."""
    return Path(inventory.source).absolute() == expand(LAB)


def find_inventory(given: str | None) -> Path:
    """The inventory to use: the given one, or that of the lab that is up.

    Raises:
        ConfigError: None is given and no lab is up.
    """
    if given is not None:
        return find_file("inventories", given)
    lab = expand(LAB)
    if not lab.is_file():
        raise ConfigError(
            "there are no hosts to run on: no INVENTORY is given and no lab is running",
            where="bench scaling",
            fix="tianji lab up --hosts 8, or tianji bench scaling INVENTORY",
        )
    return lab
