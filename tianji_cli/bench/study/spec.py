"""A study as data: experiments, settings and number of seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from engine.config.config_file import Document, convert, load_experiment
from engine.errors import ConfigError
from engine.spec import PositiveFloat, PositiveInt, Scalar, Spec
from tianji_cli.bench.kinds import read_suite
from tianji_cli.config.lookup import find_file
from tianji_cli.storage.run_dir import check_run_id

Settings = dict[str, Scalar]
"""Values by dotted key of the experiment, as `-s` takes them."""


class StudyTask(Spec, frozen=True, kw_only=True):
    """One experiment under one or several settings."""

    experiment: str
    """As after `tianji up -x`."""
    settings: Settings = msgspec.field(default_factory=dict)
    """For all variants."""
    variants: dict[str, Settings] = msgspec.field(default_factory=lambda: {"default": {}})
    """The compared variants, by their names on the axis, in the order of tables and figures."""
    axis: str = "variant"
    """What the variants vary, with its unit."""
    baseline: str | None = None
    """The variant that the others are divided by; `null`: no ratios."""
    seeds: PositiveInt | None = None
    """Blocks, if not as many as the study's."""
    budget_s: PositiveFloat | None = None
    """Seconds of training that a run may use, if not the study's."""


class Study(Spec, frozen=True, kw_only=True, tag_field="kind", tag="study"):
    """Complete description of a study.

    A run that has not reached its experiment's threshold after `budget_s` is right-censored.
    """

    version: Literal[1] = 1
    """Version of the file format."""
    name: str
    """Part of the study's id."""
    summary: str
    """One line about it, for reports."""
    seeds: PositiveInt
    """Blocks: every variant runs once with seed 0, then with seed 1, and so on."""
    budget_s: PositiveFloat
    """Seconds of training that a run may use."""
    tasks: dict[str, StudyTask]
    """What is run, by name."""

    def seeds_of(self, task: str) -> int:
        return self.tasks[task].seeds or self.seeds

    def settings_of(self, task: str, variant: str) -> list[str]:
        """`KEY=VALUE` words for one run, later ones winning."""
        spec = self.tasks[task]
        budget: Settings = {"stop.seconds": spec.budget_s or self.budget_s}
        return setting_words(budget | spec.settings | spec.variants[variant])


def setting_words(settings: Mapping[str, Scalar]) -> list[str]:
    """Words that are read back as the same values: JSON is YAML, except for halves of characters.

    >>> setting_words({"staleness.mode": "block", "stop.seconds": None})
    ['staleness.mode="block"', 'stop.seconds=null']
    """
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]


def load_study(name: str, settings: Sequence[str] = ()) -> Study:
    """Reads a study and checks every experiment in it.

    Args:
        name: Name of a study that comes with TianJi, or a path.
        settings: `tasks.ppo.budget_s=10`, laid over the file; `tasks.ppo=null` leaves a task out.

    Raises:
        ConfigError: It cannot be used.
    """
    document = read_suite(name, settings)
    tasks = document.data.get("tasks")
    if isinstance(tasks, dict):
        kept = {name: task for name, task in tasks.items() if task is not None}
        document = replace(document, data={**document.data, "tasks": kept})
        if not kept:
            raise ConfigError("no task is left", where=document.where(("tasks",)))
    study = convert(document, Study)
    for name in study.tasks:
        _check_task(study, name, document)
    return study


def _check_task(study: Study, name: str, document: Document) -> None:
    task = study.tasks[name]
    here = ("tasks", name)
    if not task.variants:
        raise ConfigError("no variant is left", where=document.where((*here, "variants")))
    if task.baseline is not None and task.baseline not in task.variants:
        raise ConfigError(
            f"the baseline {task.baseline!r} is no variant",
            where=document.where((*here, "baseline")),
            fix=f"one of: {', '.join(task.variants)}",
        )
    for variant, settings in task.variants.items():
        where = document.where((*here, "variants", variant))
        check_run_id(f"{name}-{variant}", where)
        if "seed" in {*task.settings, *settings}:
            raise ConfigError("seeds belong to the study", where=where, fix="set seeds")
        try:
            experiment = find_file("experiments", task.experiment)
            load_experiment(experiment, study.settings_of(name, variant))
        except ConfigError as error:
            text = f"{error.where}: {error.what}" if error.where else error.what
            raise ConfigError(text, where=where, fix=error.fix) from error
