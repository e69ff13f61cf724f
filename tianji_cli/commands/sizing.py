"""Chooses what an experiment leaves to `auto`, once its hosts are known."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import msgspec

from engine.config.yaml_text import KeyPath
from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph, build_graph
from engine.graph.policy import read_policy
from engine.graph.workload import ActorSize, MeasuredWork
from engine.host.malloc import reading_libraries
from engine.search_path import look_in
from engine.spec import Experiment
from tianji_cli.config.inventory import Inventory
from tianji_cli.planning.automatic import (
    are_placed_alone,
    are_separate,
    choose,
    room_for_actors,
    rules_of,
    spread,
    with_actors_on,
    with_cores,
)
from tianji_cli.planning.chosen import Automatic
from tianji_cli.planning.placement import actors_for_all, head_of, with_named_actors
from tianji_cli.planning.plan import shares_updates
from tianji_cli.provisioning.core_counts import are_unknown, core_counts
from tianji_cli.provisioning.reaching import Connect, Reach

ACTORS: KeyPath = ("actors",)
NUM_ENVS: KeyPath = ("env", "num_envs")
_NOT_OF_TENSORS = "environments of tensors are not measured"


@dataclass(frozen=True)
class Sized:
    """An experiment whose numbers are all chosen.

    Attributes:
        experiment, inventory: With what was chosen.
        automatic: What was chosen; None if nothing was left to choose.
    """

    experiment: Experiment
    inventory: Inventory
    automatic: Automatic | None = None


def kept(experiment: Experiment, former: Experiment, keys: Collection[KeyPath]) -> Experiment:
    """The experiment with the values that a former run had chosen for these keys."""
    if ACTORS in keys:
        experiment = msgspec.structs.replace(experiment, actors=former.actors)
    if NUM_ENVS in keys:
        experiment = _with_envs(experiment, former.env.num_envs)
    return experiment


def in_former_places(inventory: Inventory, former: Inventory) -> Inventory:
    """The inventory with as many actors on each host as a former run had chosen for it."""
    return with_actors_on(inventory, {host.name: host.actors for host in former.hosts})


def sized(
    experiment: Experiment,
    inventory: Inventory,
    keys: Collection[KeyPath],
    *,
    directories: Sequence[str] = (),
    num_apart: int = 1,
    reach: Connect | None = None,
) -> Sized:
    """Chooses the values of these keys.

    Args:
        experiment: With any values there.
        inventory: The hosts.
        keys: `ACTORS`, `NUM_ENVS`, both or none.
        directories: Where the user's own modules are.
        num_apart: See `engine.graph.dataflow.build_graph`.
        reach: Makes connections to hosts whose cores are not known; see `Reach`.

    Raises:
        ConfigError: The environment or the algorithm cannot be made here, or no number suits it.
        TianJiError: A host cannot be asked.
    """
    if not keys:
        return Sized(experiment, inventory)
    experiment = with_named_actors(experiment, inventory)
    is_named = _names_actors(inventory)
    if ACTORS in keys and not is_named:
        least = max(experiment.actors, experiment.groups)
        experiment = msgspec.structs.replace(experiment, actors=least)
    graph = build_graph(read_policy(experiment.policy), experiment, num_apart)
    seeks_actors = ACTORS in keys and not is_named and are_separate(graph)
    work = _work(experiment, graph, directories, seeks_envs=NUM_ENVS in keys, limits=seeks_actors)
    cores: dict[str, int] = {}
    if are_separate(graph):
        cores = core_counts(inventory.hosts, reach or Reach())
    room = room_for_actors(graph, experiment, inventory, cores) if cores else {}
    rules = rules_of(
        graph, room, _least(graph, inventory), work, on_gpu=_on_gpu(experiment, inventory)
    )
    actors, size = choose(work.sizes, rules, None if seeks_actors else experiment.actors)
    experiment = msgspec.structs.replace(_with_envs(experiment, size.num_envs), actors=actors)
    chosen = Automatic(
        actors=actors if ACTORS in keys else None,
        num_envs=size.num_envs if NUM_ENVS in keys else None,
        bound=rules.bound_of(size) if seeks_actors else None,
        cores=cores,
        unknown=[host.name for host in inventory.hosts if cores and are_unknown(host)],
        env_steps_per_s={
            item.num_envs: item.env_steps_per_s for item in work.sizes if item.env_steps_per_s
        },
        learnt_per_s=work.learnt_per_s or None,
    )
    if seeks_actors and len(inventory.hosts) > 1:
        inventory, chosen = _placed(graph, inventory, chosen, room)
    return Sized(experiment, inventory, chosen)


def _placed(
    graph: DataflowGraph, inventory: Inventory, chosen: Automatic, room: Mapping[str, int]
) -> tuple[Inventory, Automatic]:
    """How the actors that were chosen are spread over several hosts."""
    assert chosen.actors is not None
    if not are_placed_alone(graph) or any(host.roles is not None for host in inventory.hosts):
        return with_cores(inventory, chosen.cores), chosen  # they are dealt in proportion
    head = head_of(inventory.hosts)
    others = [host.name for host in inventory.hosts if host is not head]
    actors_on = spread(chosen.actors, room, others)
    chosen = msgspec.structs.replace(chosen, actors_on=actors_on)
    return with_actors_on(inventory, actors_on), chosen


def _work(
    experiment: Experiment,
    graph: DataflowGraph,
    directories: Sequence[str],
    *,
    seeks_envs: bool,
    limits: bool,
) -> MeasuredWork:
    """What is known of the experiment's environment and algorithm.

    Args:
        experiment, graph: The run, with any number of actors.
        directories: Where the user's own modules are.
        seeks_envs: Whether the number of environments is sought, so that they are measured.
        limits: Whether it matters how many actors can collect at the same time.
    """
    num_envs = experiment.env.num_envs
    unknown = MeasuredWork(sizes=(ActorSize(num_envs=num_envs, rollouts_per_batch=0),))
    if not (seeks_envs or limits):
        return unknown
    if seeks_envs and graph.cut.steps_tensors(experiment.env):
        raise ConfigError(_NOT_OF_TENSORS, where="env.num_envs", fix="give a number")
    with reading_libraries():
        from engine.host.user_code import restored_process
        from engine.runtime.measuring import measured_work

    look_in(directories)
    try:
        with restored_process(), redirect_stdout(sys.stderr):
            return measured_work(
                experiment, graph.cut, seeks_num_envs=seeks_envs, measures=seeks_envs
            )
    except ConfigError as error:
        if not error.where.startswith("env."):
            raise
        if not seeks_envs:
            return unknown  # only the hosts need its packages
        fix = f"{error.fix}; or give a number, for which nothing is measured here"
        raise ConfigError(error.what, where=error.where, fix=fix.removeprefix("; or ")) from error


def _least(graph: DataflowGraph, inventory: Inventory) -> int:
    """Actors with which every host has work."""
    if graph.cut.is_apart:
        return 1
    return max(actors_for_all(graph.processes, inventory, is_joint=shares_updates(graph)), 1)


def _names_actors(inventory: Inventory) -> bool:
    return any((host.roles or {}).get("actor") for host in inventory.hosts)


def _on_gpu(experiment: Experiment, inventory: Inventory) -> bool:
    """Whether learners may be on GPUs, as far as that is known here."""
    wanted = experiment.learner.device
    return wanted.startswith("cuda") or (wanted == "auto" and any(h.gpus for h in inventory.hosts))


def _with_envs(experiment: Experiment, num_envs: int) -> Experiment:
    env = msgspec.structs.replace(experiment.env, num_envs=num_envs)
    return msgspec.structs.replace(experiment, env=env)
