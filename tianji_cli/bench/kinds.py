"""The kinds of benchmark: how each is called, and which module does it. One list for all.

A suite file says `kind:`. Files written before that key are known by what only one kind has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.config.config_file import Document, apply_settings, read_yaml, suggest
from engine.errors import ConfigError
from tianji_cli.config.lookup import find_file, is_file, study_file, study_names

Stem = Literal["study", "bench", "scaling", "transport", "published"]


@dataclass(frozen=True)
class KindInfo:
    """One kind of benchmark.

    Attributes:
        name: What a suite file says after `kind:`.
        stem: Of its document (`scaling.json`), and what lists of results call it.
        title: For messages.
        module: Where its `KIND` is; imported when it is needed, as it brings figures and tables.
        old_key: A key that only suite files of this kind have.
        journal: The file in which each finished cell has a line; empty: each has a file of its own.
    """

    name: str
    stem: Stem
    title: str
    module: str
    old_key: str = ""
    journal: str = ""

    def is_at(self, place: Path) -> bool:
        """Whether a directory holds a benchmark of this kind."""
        return is_file(place / f"{self.stem}.json")


STUDY = KindInfo(
    "study", "study", "a study", "tianji_cli.commands.benchmarks.study", journal="runs.jsonl"
)
COMPARISON = KindInfo("comparison", "bench", "a benchmark", "tianji_cli.commands.benchmarks.bench")
SCALING = KindInfo(
    "scaling",
    "scaling",
    "a benchmark of scaling",
    "tianji_cli.commands.benchmarks.bench_scaling",
    "nodes",
)
TRANSPORT = KindInfo(
    "transport",
    "transport",
    "a benchmark of transport",
    "tianji_cli.commands.benchmarks.bench_transport",
    "sizes_bytes",
)
PUBLISHED = KindInfo(
    "published",
    "published",
    "a reproduction of published results",
    "tianji_cli.commands.benchmarks.bench_published",
    "rows",
    journal="runs.jsonl",
)
KINDS = {kind.name: kind for kind in (STUDY, COMPARISON, SCALING, TRANSPORT, PUBLISHED)}


def find_suite(name: str) -> Path:
    """The file of a suite or study: a path, or the name of one that comes with TianJi.

    Raises:
        ConfigError: There is no such file.
    """
    if name in study_names() and not is_file(Path(name)):
        return study_file(name)
    return find_file("experiments/bench", name, study_names())


def read_suite(name: str, settings: Sequence[str] = ()) -> Document:
    """The document of a suite, with settings laid over it; errors as of `find_suite`."""
    return apply_settings(read_yaml(find_suite(name)), settings)


def kind_of_suite(document: Document) -> KindInfo:
    """What kind of benchmark a suite file describes.

    Raises:
        ConfigError: It says a kind that there is not.
    """
    named = document.data.get("kind", _old_kind(document.data))
    if not isinstance(named, str) or named not in KINDS:
        raise ConfigError(
            f"unknown kind of benchmark {named!r}",
            where=document.where(("kind",)),
            fix=suggest(str(named), KINDS),
        )
    return KINDS[named]


def _old_kind(data: Mapping[str, object]) -> str:
    """Of a file that says none: suites of before had no key for it."""
    found = (kind.name for kind in KINDS.values() if kind.old_key in data)
    return next(found, COMPARISON.name)


def kinds_at(place: Path) -> Iterator[KindInfo]:
    """The kinds whose document a directory holds; none: it holds no benchmark."""
    return (kind for kind in KINDS.values() if kind.is_at(place))
