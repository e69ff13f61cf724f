"""Tasks of a suite based on an experiment file, which gives the values the task leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from engine.config.config_file import Document, load_experiment, require_numbers, suggest
from engine.errors import ConfigError
from engine.spec import Experiment, Spec
from tianji_cli.bench.tasks.work import (
    BenchDqn,
    BenchEnv,
    BenchImpala,
    BenchIppo,
    BenchNetwork,
    BenchPpo,
    BenchSac,
    BenchTd3,
)
from tianji_cli.config.lookup import find_file

ALGORITHMS: Mapping[str, type[msgspec.Struct]] = {
    "ppo": BenchPpo,
    "ippo": BenchIppo,
    "impala": BenchImpala,
    "dqn": BenchDqn,
    "sac": BenchSac,
    "td3": BenchTd3,
}


class TaskBase(Spec, frozen=True, kw_only=True):
    """A key that a task in a file can have besides those of `Task`."""

    experiment: str | None = None
    """An experiment, as after `tianji up -x`: values that the task leaves out are taken from it."""


def with_experiments(document: Document) -> Document:
    """The same suite, with the key `experiment` of its tasks replaced by the values of that file.

    Raises:
        ConfigError: There is no such file, or other systems cannot run it.
    """
    tasks = document.data.get("tasks")
    if not isinstance(tasks, dict):
        return document
    filled = {
        name: _filled(task, document, name)
        if isinstance(task, dict) and "experiment" in task
        else task
        for name, task in tasks.items()
    }
    return replace(document, data={**document.data, "tasks": filled})


def _filled(task: Mapping[str, Any], document: Document, name: str) -> dict[str, Any]:
    where = document.where(("tasks", name, "experiment"))
    try:
        experiment, read = load_experiment(find_file("experiments", str(task["experiment"])))
        require_numbers(read, "a benchmark compares equal work")
        base = _task_of(experiment)
    except ConfigError as error:
        text = f"{error.where}: {error.what}" if error.where else error.what
        raise ConfigError(text, where=where, fix=error.fix) from error
    for key, value in task.items():
        is_section = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = {**base[key], **value} if is_section else value
    del base["experiment"]
    return base


def _task_of(experiment: Experiment) -> dict[str, Any]:
    """The values of an experiment that a task has keys for."""
    from engine.algorithms.registry import read_config  # PyTorch, only where it is needed

    name = experiment.algorithm_name
    if name not in ALGORITHMS:
        raise ConfigError(
            f"other systems are not set up for {name}",
            where="algorithm.name",
            fix=suggest(name, ALGORITHMS),
        )
    if experiment.env.wrappers:
        raise ConfigError(
            "other systems do not apply wrappers",
            where="env.wrappers",
            fix="register an environment that is wrapped already, in a module of your own",
        )
    if experiment.init_from is not None:
        raise ConfigError(
            "all systems start with initial weights", where="init_from", fix="leave it out"
        )
    if experiment.env.squash_actions:
        raise ConfigError(
            "other systems are not set up for squashed actions", where="env.squash_actions"
        )
    if not experiment.env.scale_actions:
        raise ConfigError("other systems are set up for scaled actions", where="env.scale_actions")
    if experiment.agents not in (None, "shared"):
        raise ConfigError("other systems are set up for one policy of all agents", where="agents")
    for key in ("core", "encoders"):
        if getattr(experiment.network, key):
            raise ConfigError(
                f"other systems are not set up for network.{key}", where=f"network.{key}"
            )
    algorithm = msgspec.to_builtins(read_config(experiment))
    task: dict[str, Any] = {
        "env": _known(msgspec.to_builtins(experiment.env), BenchEnv),
        "algorithm": {"name": name, **_known(algorithm, ALGORITHMS[name])},
        "network": _known(msgspec.to_builtins(experiment.network), BenchNetwork),
        "workers": experiment.actors,
        "envs_per_worker": experiment.env.num_envs,
        "rollout_steps": algorithm["rollout_steps"],
        "threshold": experiment.stop.return_threshold,
        "budget_s": experiment.stop.seconds,
    }
    if issubclass(ALGORITHMS[name], BenchPpo):
        if experiment.staleness.is_adaptive:
            raise ConfigError(
                "other systems do not move it: a comparison needs a number",
                where="staleness.max_lag",
                fix="-s staleness.max_lag=N",
            )
        task["max_lag"] = experiment.staleness.max_lag
    return {key: value for key, value in task.items() if value is not None}


def _known(values: Mapping[str, Any], target: type[msgspec.Struct]) -> dict[str, Any]:
    names = target.__struct_fields__
    return {key: value for key, value in values.items() if key in names and value is not None}
