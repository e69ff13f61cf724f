"""Experiments, suites and inventories: those that come with TianJi, and those in the folders
`experiments` and `inventories` of the working directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.config.config_file import Document, convert, read_yaml
from engine.errors import ConfigError
from engine.spec import Experiment, StopSpec
from tianji_cli.bench.kinds import kind_of_suite
from tianji_cli.config.inventory import load_inventory
from tianji_cli.config.lookup import shipped
from tianji_cli.reference.rows import ListedRow, RowT


class ExperimentRow(ListedRow, frozen=True, kw_only=True):
    """An experiment.

    Attributes:
        name: As after `tianji up -x`.
        algorithm, env_id, policy: Of the experiment; empty if it cannot be read.
        until: The rules that end it, in words.
        about: The comment at the top of the file, or what is wrong with it.
        is_shipped: Whether it comes with TianJi.
    """

    name: str
    algorithm: str = ""
    env_id: str = ""
    policy: str = ""
    until: str = ""
    about: str
    is_shipped: bool

    headings = ("experiment", "algorithm", "environment", "until return")

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, self.algorithm, self.env_id, self.until or self.about


class SuiteRow(ListedRow, frozen=True, kw_only=True):
    """A suite or study.

    Attributes:
        name: As after `tianji bench`.
        kind: `comparison`, `scaling`, `transport`, `study` or `published`; empty if it cannot be
            read.
        tasks: Their names, or those of its rows; suites of other kinds have none.
        about: Its summary, or what is wrong with the file.
        is_shipped: Whether it comes with TianJi.
    """

    name: str
    kind: str = ""
    tasks: tuple[str, ...] = ()
    about: str
    is_shipped: bool

    headings = ("suite", "kind", "tasks", "about")

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, self.kind, str(len(self.tasks) or ""), self.about


class InventoryRow(ListedRow, frozen=True, kw_only=True):
    """An inventory.

    Attributes:
        name: As after `tianji up`.
        hosts: Their names; none if it cannot be read.
        about: The comment at the top of the file, or what is wrong with it.
        is_shipped: Whether it comes with TianJi.
    """

    name: str
    hosts: tuple[str, ...] = ()
    about: str
    is_shipped: bool

    headings = ("inventory", "hosts", "about")

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, str(len(self.hosts) or ""), self.about


def experiments() -> list[ExperimentRow]:
    """Own ones first."""
    return [*_rows("experiments", _experiment)]


def suites() -> list[SuiteRow]:
    """Own ones first."""
    return [*_rows("experiments", _suite)]


def inventories() -> list[InventoryRow]:
    """Own ones first."""
    return [*_rows("inventories", _inventory)]


def _rows(kind: str, row_of: Callable[[Path, str, bool], RowT | None]) -> Iterator[RowT]:
    """Rows of all YAML files below the user's folder and TianJi's; None for one of another kind."""
    own, theirs = Path(kind), shipped(kind)
    if own.is_dir() and not own.samefile(theirs):
        for path in sorted(own.rglob("*.yaml")):
            if (row := row_of(path, str(path), False)) is not None:
                yield row
    for path in sorted(theirs.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        name = str(path.relative_to(theirs).with_suffix(""))
        if (row := row_of(path, name, True)) is not None:
            yield row


def _experiment(path: Path, name: str, is_shipped: bool) -> ExperimentRow | None:
    try:
        document = read_yaml(path)
        if is_suite(document):
            return None
        experiment = convert(document, Experiment)
    except ConfigError as error:
        return ExperimentRow(name=name, about=str(error), is_shipped=is_shipped)
    return ExperimentRow(
        name=name,
        algorithm=str(experiment.algorithm.get("name", "")),
        env_id=experiment.env.id,
        policy=experiment.policy,
        until=stop_words(experiment.stop),
        about=top_comment(path.read_text(encoding="utf-8")),
        is_shipped=is_shipped,
    )


def _suite(path: Path, name: str, is_shipped: bool) -> SuiteRow | None:
    if is_shipped:  # `bench/smoke` is called `smoke`, `staleness/study` is called `staleness`
        name = path.parent.name if path.name == "study.yaml" else path.stem
    try:
        document = read_yaml(path)
    except ConfigError:
        return None  # listed as an experiment, with what is wrong
    if not is_suite(document):
        return None
    try:
        kind = kind_of_suite(document).name
    except ConfigError as error:
        return SuiteRow(name=name, about=str(error), is_shipped=is_shipped)
    tasks = document.data.get("tasks", document.data.get("rows"))
    return SuiteRow(
        name=name,
        kind=kind,
        tasks=tuple(tasks) if isinstance(tasks, dict) else (),
        about=str(document.data.get("summary", "")),
        is_shipped=is_shipped,
    )


def _inventory(path: Path, name: str, is_shipped: bool) -> InventoryRow:
    try:
        hosts = tuple(host.name for host in load_inventory(path).hosts)
    except ConfigError as error:
        return InventoryRow(name=name, about=str(error), is_shipped=is_shipped)
    about = top_comment(path.read_text(encoding="utf-8"))
    return InventoryRow(name=name, hosts=hosts, about=about, is_shipped=is_shipped)


def stop_words(stop: StopSpec) -> str:
    """The rules of an experiment, as short as a table needs them.

    >>> stop_words(StopSpec(env_steps=2_000_000, return_threshold=475))
    '475, or 2M steps'
    """
    rules = []
    if stop.return_threshold is not None:
        rules.append(f"{stop.return_threshold:g}")
    if stop.env_steps is not None:
        thousands = stop.env_steps / 1e3
        rules.append(f"{thousands / 1e3:g}M steps" if thousands >= 1e3 else f"{thousands:g}k steps")
    if stop.seconds is not None:
        rules.append(f"{stop.seconds:g} s")
    return ", or ".join(rules)


def is_suite(document: Document) -> bool:
    """Whether a file describes a benchmark rather than an experiment; only the latter has `env`."""
    return "env" not in document.data


def top_comment(text: str) -> str:
    """The first paragraph of the comment at the top of a file, as one line.

    >>> top_comment("# Two\\n# lines.\\n#\\n# More.\\nversion: 1\\n")
    'Two lines.'
    """
    lines = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip() if line.startswith("#") else ""
        if not words:
            break
        lines.append(words)
    return " ".join(lines)
