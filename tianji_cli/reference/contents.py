"""What the reference describes: chapter by chapter, each from the specs that read such files."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.graph.policy import DistributionPolicy
from engine.spec import Experiment, Spec
from tianji_cli.bench.published.suite import PublishedSuite
from tianji_cli.bench.scaling.suite import ScalingSuite
from tianji_cli.bench.study.spec import Study
from tianji_cli.bench.tasks.from_experiment import TaskBase
from tianji_cli.bench.tasks.suite import Suite, Task
from tianji_cli.bench.transport.suite import TransportSuite
from tianji_cli.config.cluster import ClusterSpec
from tianji_cli.config.inventory_schema import GroupSpec, HostSpec, InventoryFile
from tianji_cli.reference.keys import Section, Source, sections_of
from tianji_cli.reference.rows import ListedRow

TOP = "top level"


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one kind of file.

    Attributes:
        title: What the file is.
        prefix: Of the titles of its sections, so that they are unique.
        about: Paragraphs in Markdown.
        sections: In the order of the file.
    """

    title: str
    prefix: str = ""
    about: tuple[str, ...]
    sections: tuple[Section, ...]


def chapters() -> list[Chapter]:
    """The whole reference. Imports PyTorch, with the algorithms."""
    return [_experiments(), _inventories(), _clusters(), *_suites(), _policies()]


def _experiments() -> Chapter:
    first, *others = sections_of([Source(spec=Experiment, title=TOP)])
    order = [section.title for section in others]
    place = order.index("`network`")
    return Chapter(
        title="Experiments",
        about=(
            "`experiments/*.yaml`, given to `tianji up -x`. Every key can be set on the command"
            " line, with its path: `-s env.num_envs=16`, `-s staleness.max_lag=0`.",
        ),
        sections=(first, *others[:place], *_algorithms(), *others[place:]),
    )


def _algorithms() -> list[Section]:
    from engine.algorithms.registry import ALGORITHMS

    described: dict[type[Spec], str] = {}
    sources = []
    for name, entry in ALGORITHMS.items():
        if not entry.config.__module__.startswith("engine."):
            continue  # of a module of the user's
        base = next((cls for cls in entry.config.__mro__ if cls in described), None)
        like = None if base is None else (described[base], base)
        described[entry.config] = name
        sources.append(_algorithm(name, entry.config, like))
    return sections_of(sources)


def _algorithm(name: str, config: type[Spec], like: tuple[str, type[Spec]] | None) -> Source:
    """An algorithm that has the keys of another is described by those that are new or have other
    defaults.

    Args:
        name: Of the algorithm.
        config: Its keys.
        like: Name and keys of the other; None: there is none.
    """
    tag = ("name", name)
    if like is None:
        return Source(spec=config, path="algorithm", tag=tag)
    base, parent = like
    own = tuple(vars(config).get("__annotations__", {}))
    about = " ".join((config.__doc__ or "").split())
    overrides = all(key in parent.__struct_fields__ for key in own)
    differences = "these have other defaults:" if overrides else "these are new:"
    return Source(
        spec=config,
        path="algorithm",
        tag=tag,
        about=(about, f"All keys of `{base}`; {differences}" if own else f"All keys of `{base}`."),
        only=own,
    )


def _inventories() -> Chapter:
    all_of = "`defaults`, `hosts.NAME`, `groups.NAME`"
    return Chapter(
        title="Inventories",
        prefix="inventory",
        about=(
            "`inventories/*.yaml`, given to `tianji up` and `tianji check`"
            " ([running on hosts](running-on-hosts.md)).",
        ),
        sections=tuple(
            sections_of(
                [
                    Source(spec=InventoryFile, title=TOP, is_deep=False),
                    Source(spec=HostSpec, path="hosts.NAME", title=all_of),
                    Source(
                        spec=GroupSpec,
                        path="groups.NAME",
                        only=("hosts",),
                        about=("Besides the keys above:",),
                        is_deep=False,
                    ),
                ]
            )
        ),
    )


def _clusters() -> Chapter:
    return Chapter(
        title="Clusters",
        prefix="cluster",
        about=("Given to `tianji plan --simulate … --cluster` ([planner](planner.md)).",),
        sections=tuple(sections_of([Source(spec=ClusterSpec, title=TOP)])),
    )


def _suites() -> list[Chapter]:
    return [
        Chapter(
            title="Suites that compare systems",
            prefix="comparison",
            about=("Given to `tianji bench` ([benchmarks](bench.md)); `-s` sets any key.",),
            sections=tuple(_comparison()),
        ),
        Chapter(
            title="Suites of scaling",
            prefix="scaling",
            about=("Given to `tianji bench` ([scaling](scaling.md)).",),
            sections=tuple(
                sections_of(
                    [Source(spec=ScalingSuite, title=TOP, tag=("kind", "scaling"), is_deep=False)]
                )
            ),
        ),
        Chapter(
            title="Suites of transport",
            prefix="transport",
            about=("Given to `tianji bench` ([transport](transport.md)).",),
            sections=tuple(
                sections_of([Source(spec=TransportSuite, title=TOP, tag=("kind", "transport"))])
            ),
        ),
        Chapter(
            title="Studies",
            prefix="study",
            about=("Given to `tianji bench` ([studies](studies.md)); `-s` sets any key.",),
            sections=tuple(sections_of([Source(spec=Study, title=TOP, tag=("kind", "study"))])),
        ),
        Chapter(
            title="Suites of published results",
            prefix="published",
            about=(
                "Given to `tianji bench` ([published results](bench.md#published-results)); `-s`"
                " sets any key.",
            ),
            sections=tuple(
                sections_of([Source(spec=PublishedSuite, title=TOP, tag=("kind", "published"))])
            ),
        ),
    ]


def _comparison() -> list[Section]:
    base = sections_of([Source(spec=TaskBase, path="tasks.NAME")])[0]
    sections = sections_of([Source(spec=Suite, title=TOP, tag=("kind", "comparison"))])
    task = sections_of([Source(spec=Task, path="tasks.NAME")])[0].title
    return [
        msgspec.structs.replace(one, keys=(*base.keys, *one.keys)) if one.title == task else one
        for one in sections
    ]


def _policies() -> Chapter:
    return Chapter(
        title="Distribution policies",
        prefix="policy",
        about=("Given to `--policy` ([writing a policy](policies.md#writing-a-policy)).",),
        sections=tuple(sections_of([Source(spec=DistributionPolicy, title=TOP)])),
    )


class KeyRow(ListedRow, frozen=True, kw_only=True):
    """A key, for lists of all.

    Attributes:
        key: Its path, as after `-s`.
        file: Where it can be written, such as `experiment` or `experiment, ppo`.
        type, default, meaning: As in the reference.
    """

    key: str
    file: str
    type: str
    default: str
    meaning: str


def key_rows(chapters: Sequence[Chapter]) -> list[KeyRow]:
    """All keys of all files, in the order of the reference."""
    return [
        KeyRow(
            key=key.path,
            file=", ".join(filter(None, (chapter.prefix or "experiment", section.variant))),
            type=key.type_and_unit.replace("`", ""),
            default="required" if key.default is None else key.default,
            meaning=key.meaning.replace("`", ""),
        )
        for chapter in chapters
        for section in chapter.sections
        for key in section.keys
    ]
