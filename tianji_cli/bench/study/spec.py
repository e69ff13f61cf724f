"""A study as data: experiments, settings and number of seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from engine.config.config_file import Document, convert, load_experiment, require_numbers
from engine.errors import ConfigError
from engine.spec import Experiment, PositiveFloat, PositiveInt, Scalar, Spec
from tianji_cli.bench.kinds import read_suite
from tianji_cli.bench.search.space import corners, flaws_of, num_trials
from tianji_cli.bench.search.spec import Search
from tianji_cli.config.lookup import find_file
from tianji_cli.storage.run_dir import check_run_id

Settings = dict[str, Scalar]
"""Values by dotted key of the experiment, as `-s` takes them."""
TRIAL = "trial"
UNSEARCHED = ("seed", "stop.seconds", "name")
"""Keys that a search must not vary: what they say belongs to the study."""


def trial_name(number: int, total: int) -> str:
    """Of a trial, as names of variants: sorted by number.

    >>> trial_name(7, 12)
    'trial07'
    """
    return f"{TRIAL}{number:0{len(str(total - 1))}d}"


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
    parallel: PositiveInt | Literal["auto"] = "auto"
    """Runs at once. `auto`: as many as the hosts of an inventory allow without sharing one; without
    an inventory, one."""
    hosts_per_run: PositiveInt = 1
    """Hosts of the inventory that each run gets."""
    search: Search | None = None
    """Tries settings that a sampler chooses, in place of variants; `null`: no search."""
    tasks: dict[str, StudyTask]
    """What is run, by name."""

    def seeds_of(self, task: str) -> int:
        return self.tasks[task].seeds or self.seeds

    def budget_of(self, task: str) -> float:
        """Seconds of training that a run of this task may use."""
        return self.tasks[task].budget_s or self.budget_s

    def variants_of(self, task: str) -> list[str]:
        """What is compared: the variants of a task, or the trials of the search."""
        if self.search is None:
            return list(self.tasks[task].variants)
        total = num_trials(self.search)
        return [trial_name(number, total) for number in range(total)]

    def trial_of(self, variant: str) -> int:
        """The number of the trial of this name."""
        return int(variant.removeprefix(TRIAL))

    def settings_of(
        self, task: str, variant: str, params: Mapping[str, Scalar] | None = None
    ) -> list[str]:
        """`KEY=VALUE` words for one run, later ones winning.

        Args:
            task, variant: Which.
            params: The setting of a trial.
        """
        spec = self.tasks[task]
        budget: Settings = {"stop.seconds": self.budget_of(task)}
        own = spec.variants[variant] if self.search is None else params or {}
        return setting_words({**budget, **spec.settings, **own})


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
    if study.search is not None:
        _check_searched(study, study.search, name, document)
        return
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
        check_experiment_of(task.experiment, study.settings_of(name, variant), where)


def _check_searched(study: Study, search: Search, name: str, document: Document) -> None:
    """A task that is searched has no variants; every bound and choice must be allowed."""
    task = study.tasks[name]
    if "variants" in document.data["tasks"][name] or task.baseline is not None:
        key = "variants" if task.baseline is None else "baseline"
        raise ConfigError(
            f"a study that searches has no {key}: the trials are what is compared",
            where=document.where(("tasks", name, key)),
            fix="leave it out, or leave out search",
        )
    for flaw in flaws_of(search):
        raise ConfigError(flaw.what, where=document.where(("search", *flaw.path)), fix=flaw.fix)
    check_run_id(f"{name}-{study.variants_of(name)[-1]}", document.where(("tasks", name)))
    for key in search.space:
        where = document.where(("search", "space", key))
        if key in UNSEARCHED:
            raise ConfigError(f"{key} belongs to the study", where=where, fix="leave it out")
        if key in task.settings:
            what = f"it is searched, and set to {task.settings[key]!r} in the task {name}"
            raise ConfigError(what, where=where, fix="leave out one of the two")
    for params in corners(search):
        words = study.settings_of(name, "", params)
        shown = ", ".join(setting_words(params))
        where = f"{document.where(('search', 'space'))}: {shown}"
        experiment = check_experiment_of(task.experiment, words, where)
        check_hyperparameters(experiment, where)
        if search.objective == "time to threshold" and experiment.stop.return_threshold is None:
            raise ConfigError(
                "the objective is the time to the threshold, but there is none",
                where=document.where(("tasks", name)),
                fix="settings: {stop.return_threshold: 475}",
            )


def check_experiment_of(name: str, settings: Sequence[str], where: str) -> Experiment:
    """The experiment of a task; an error names `where` the task is."""
    try:
        experiment, read = load_experiment(find_file("experiments", name), settings)
        require_numbers(read, "runs of a study differ only in what it varies")
    except ConfigError as error:
        text = f"{error.where}: {error.what}" if error.where else error.what
        raise ConfigError(text, where=where, fix=error.fix) from error
    return experiment


def check_hyperparameters(experiment: Experiment, where: str) -> None:
    """Of algorithms that come with TianJi; others are checked when they run."""
    if experiment.named_modules:
        return
    from engine.algorithms.registry import read_config  # it imports torch

    try:
        read_config(experiment)
    except ConfigError as error:
        raise ConfigError(f"{error.where}: {error.what}", where=where, fix=error.fix) from error
