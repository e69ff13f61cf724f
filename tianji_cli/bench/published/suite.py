"""A suite of published results: experiments with the published settings, and what they reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.config.config_file import Document, convert, suggest
from engine.errors import ConfigError
from engine.spec import NonNegativeFloat, PositiveFloat, PositiveInt, Spec
from tianji_cli.bench.kinds import read_suite
from tianji_cli.bench.study.spec import (
    Settings,
    Study,
    StudyTask,
    check_experiment_of,
    check_hyperparameters,
)
from tianji_cli.storage.run_dir import check_run_id

Judge = Literal["training", "evaluation"]
VARIANT = "published"
"""The only variant of a row, as the study that makes its runs calls it."""


class PublishedReturn(Spec, frozen=True, kw_only=True):
    """A published mean return."""

    mean: float
    """Over runs; of a single run over its evaluation episodes."""
    spread: NonNegativeFloat
    """The published standard deviation, squares divided by their number as by `numpy.std`: over
    `runs`, or, of a single run, over `episodes`."""
    runs: PositiveInt
    """How many, with different seeds."""
    episodes: PositiveInt | None = None
    """Evaluation episodes of a single run."""


class PublishedSource(Spec, frozen=True, kw_only=True):
    """Where a figure was published."""

    name: str
    """Of the project or paper."""
    figure: str
    """Address of the page or file with the figure."""
    settings: str
    """Address of the file with the settings."""


class PublishedRow(Spec, frozen=True, kw_only=True):
    """One published figure and the experiment that is to reproduce it."""

    experiment: str
    """As after `tianji up -x`. It must have `stop.env_steps` and no threshold."""
    published: PublishedReturn
    """The figure."""
    source: PublishedSource
    """Where it was published."""
    judge: Judge
    """`training`: the mean return of the last training episodes of each run. `evaluation`: that of
    greedy episodes which its final policy plays after training."""
    episodes: PositiveInt = 100
    """Of each run, that judge it."""
    differs: tuple[str, ...] = ()
    """What is known to differ from the published settings, a sentence for each."""
    settings: Settings = msgspec.field(default_factory=dict)
    """Changes to the experiment, such as another policy."""
    seeds: PositiveInt | None = None
    """Runs, if not as many as the suite's."""
    budget_s: PositiveFloat | None = None
    """Seconds that a run may train, if not the suite's."""


class PublishedSuite(Spec, frozen=True, kw_only=True, tag_field="kind", tag="published"):
    """Complete description of a reproduction of published results."""

    version: Literal[1] = 1
    """Version of the file format."""
    name: str
    """Part of the benchmark's id."""
    summary: str
    """One line about it, for reports."""
    seeds: PositiveInt = 3
    """Runs of each row, with seeds 0, 1 and so on. At least two are needed for a verdict."""
    budget_s: PositiveFloat = 3600.0
    """Seconds that a run may train. One that has not done all its env steps by then has failed."""
    parallel: PositiveInt | Literal["auto"] = "auto"
    """Runs at once on this machine; `auto` is one."""
    settings: Settings = msgspec.field(default_factory=dict)
    """Changes to the experiments of all rows, such as `{policy: tianji}`."""
    rows: dict[str, PublishedRow]
    """What is reproduced, by name."""

    @property
    def study(self) -> Study:
        """The study that makes the runs: each row is a task with a single variant."""
        return Study(
            name=self.name,
            summary=self.summary,
            seeds=self.seeds,
            budget_s=self.budget_s,
            parallel=self.parallel,
            tasks={
                name: StudyTask(
                    experiment=row.experiment,
                    settings={**self.settings, **row.settings},
                    variants={VARIANT: {}},
                    seeds=row.seeds,
                    budget_s=row.budget_s,
                )
                for name, row in self.rows.items()
            },
        )


def load_published(
    name: str, settings: Sequence[str] = (), rows: Sequence[str] = ()
) -> PublishedSuite:
    """Reads a suite and checks every experiment in it.

    Args:
        name: Name of a suite that comes with TianJi, or a path.
        settings: `rows.cartpole-ppo.seeds=5`, laid over the file.
        rows: Those to keep; none: all.

    Raises:
        ConfigError: It cannot be used.
    """
    document = read_suite(name, settings)
    suite = convert(document, PublishedSuite)
    for row in rows:
        if row not in suite.rows:
            what = f"the suite has no row {row!r}"
            raise ConfigError(what, where="--row", fix=suggest(row, suite.rows))
    kept = {row: found for row, found in suite.rows.items() if row in rows or not rows}
    if not kept:
        raise ConfigError("it has no row", where=document.where(("rows",)))
    suite = msgspec.structs.replace(suite, rows=kept)
    for row in kept:
        _check_row(suite, row, document)
    return suite


def _check_row(suite: PublishedSuite, name: str, document: Document) -> None:
    row, study = suite.rows[name], suite.study
    where = document.where(("rows", name))
    check_run_id(f"{name}-{VARIANT}", where)
    if row.published.runs == 1 and row.published.episodes is None:
        raise ConfigError(
            "a figure of one run needs the number of its episodes",
            where=document.where(("rows", name, "published")),
            fix="episodes: 100",
        )
    if "seed" in study.tasks[name].settings:
        raise ConfigError("seeds belong to the suite", where=where, fix="set seeds")
    experiment = check_experiment_of(row.experiment, study.settings_of(name, VARIANT), where)
    check_hyperparameters(experiment, where)
    if experiment.stop.env_steps is None or experiment.stop.return_threshold is not None:
        raise ConfigError(
            f"{row.experiment} must train for stop.env_steps, and not stop at a threshold",
            where=where,
            fix="stop: {env_steps: 500000}",
        )
