"""docs/reference.md tells every key of every file, and is what the specs say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, inspect

from engine.algorithms.registry import ALGORITHMS, Entry
from engine.config.config_file import read_yaml
from engine.spec import NonNegativeInt, PositiveFloat, PositiveInt, Scalar, Seed, Spec
from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.kinds import KINDS
from tianji_cli.reference.contents import Chapter, chapters
from tianji_cli.reference.keys import Key, Source, sections_of
from tianji_cli.reference.page import anchor, reference_page
from tianji_cli.reference.type_words import choices_of, type_words, yaml_words

PAGE = REPOSITORY / "docs/reference.md"
FILES = sorted(
    path
    for folder in ("experiments", "inventories", "engine/graph/policies")
    for path in (REPOSITORY / folder).rglob("*.yaml")
)
OPEN = ("kwargs", "wrappers", "settings", "variants", "env", "without", "space")
"""Keys whose inner keys are the author's own; `env` only in an inventory."""


@pytest.fixture(scope="module")
def told() -> list[Chapter]:
    return chapters()


def keys_of(told: list[Chapter], title: str | None = None) -> list[Key]:
    wanted = [chapter for chapter in told if title in (None, chapter.title)]
    return [key for chapter in wanted for section in chapter.sections for key in section.keys]


def test_the_page_is_current(told: list[Chapter]) -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(told), "run `make reference`"


def test_every_key_has_a_meaning_and_every_section_says_what_it_is(told: list[Chapter]) -> None:
    assert [key.path for key in keys_of(told) if not key.meaning] == []
    assert all(section.about for chapter in told for section in chapter.sections)
    assert len(keys_of(told)) > 150


def title_of(path: Path, data: dict[str, Any]) -> str:
    """The chapter about a file."""
    if path.is_relative_to(REPOSITORY / "engine"):
        return "Distribution policies"
    if path.is_relative_to(REPOSITORY / "inventories"):
        return "Inventories"
    titles = {
        "comparison": "Suites that compare systems",
        "scaling": "Suites of scaling",
        "transport": "Suites of transport",
        "study": "Studies",
        "published": "Suites of published results",
    }
    assert titles.keys() == KINDS.keys()
    return titles.get(data.get("kind", ""), "Experiments")


def paths_in(data: dict[str, Any], before: str = "") -> Iterator[str]:
    """The path of every key, except in places whose keys are free, or told elsewhere."""
    for key, value in data.items():
        path = f"{before}{key}"
        yield path
        is_free = key in OPEN and (key != "env" or "hosts" in path or "groups" in path)
        if isinstance(value, dict) and not is_free and path != "experiment":
            yield from paths_in(value, f"{path}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict) and not is_free:
            for entry in value:
                yield from paths_in(entry, f"{path}.0.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_key_of_a_shipped_file_is_told(path: Path, told: list[Chapter]) -> None:
    data = read_yaml(path).data
    (chapter,) = (one for one in told if one.title == title_of(path, data))
    known = {section.path for section in chapter.sections} | {
        key.path for key in keys_of([chapter])
    }
    if chapter.title == "Inventories":
        for place in ("defaults", "groups.NAME"):
            known |= {one.replace("hosts.NAME", place) for one in known}
    pattern = "|".join(re.escape(one).replace("NAME", "[^.]+") for one in known)
    assert [one for one in paths_in(data) if not re.fullmatch(pattern, one)] == []


def test_every_hyperparameter_of_every_algorithm_is_told(told: list[Chapter]) -> None:
    sections = {s.title: s for s in told[0].sections}
    parents = {"apex": "dqn", "ddpg": "td3", "ippo": "ppo", "mappo": "ippo"}

    def keys_told(name: str) -> set[str]:
        names = {key.name for key in sections[f"`algorithm`: {name}"].keys}
        return names | (keys_told(parents[name]) if name in parents else set())

    for name, entry in ALGORITHMS.items():
        if entry.config.__module__.startswith("engine."):
            assert keys_told(name) == {"name", *entry.config.__struct_fields__}


def test_algorithms_of_own_modules_are_not(told: list[Chapter], monkeypatch) -> None:
    class OwnConfig(Spec, frozen=True, kw_only=True):
        """Mine."""

    monkeypatch.setitem(ALGORITHMS, "own", Entry(OwnConfig, lambda *_: None))
    assert chapters() == told


def test_links_lead_to_headings_which_are_unique() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = Counter(anchor(one) for one in re.findall(r"^##+ (.+)$", text, re.MULTILINE))
    assert max(headings.values()) == 1
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert len(links) > 20
    assert links <= headings.keys()


class Inner(Spec, frozen=True, kw_only=True):
    """What is inside.

    More of it.
    """

    size: PositiveInt = 3
    """How much,
    in all."""


class Outer(Spec, frozen=True, kw_only=True):
    """What is outside."""

    inner: dict[str, Inner]
    wait_s: PositiveFloat | None = None
    """To wait."""
    lacking: bool = True


def test_a_section_is_followed_by_those_inside_it() -> None:
    outer, inner = sections_of([Source(spec=Outer, title="all")])
    assert [key.path for key in outer.keys] == ["inner", "wait_s", "lacking"]
    assert [key.default for key in outer.keys] == [None, "null", "true"]
    assert [key.meaning for key in outer.keys] == ["What is inside.", "To wait.", ""]
    assert outer.keys[1].type_and_unit == "number above 0 (seconds), or `null`"
    assert inner.path == "inner.NAME"
    assert inner.about == ("What is inside.", "More of it.")
    assert [(key.path, key.meaning) for key in inner.keys] == [
        ("inner.NAME.size", "How much, in all.")
    ]


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "true or false"),
        (NonNegativeInt, "whole number, at least 0"),
        (Seed, "whole number, 0 to 2^63 - 1"),
        (Annotated[int, Meta(ge=1, le=10_000)], "whole number, 1 to 10,000"),
        (Annotated[float, Meta(gt=0.0, le=1.0)], "number above 0, at most 1"),
        (Annotated[float, Meta(le=5.0)], "number, at most 5"),
        (tuple[PositiveInt, ...], "list of whole numbers, at least 1"),
        (Literal["b", "a"], "`b` or `a`"),
        (tuple[Literal["b", "a"], ...], "list of `b`, `a`"),
        (PositiveInt | Literal["actors"], "whole number, at least 1 or `actors`"),
        (Scalar, "value"),
        (dict[str, Scalar], "values by name"),
        (dict[str, str | int | float], "text or number by name"),
        (dict[str, dict[str, Any]], "mappings by name"),
    ],
)
def test_types_are_told_in_plain_words(hint: object, words: str) -> None:
    assert type_words(inspect.type_info(hint), choices_of(hint)) == words


def test_a_section_that_differs_from_its_own_default_cannot_pass_for_it() -> None:
    assert yaml_words(Inner()) == "{}"
    with pytest.raises(AssertionError, match="not the default"):
        yaml_words(msgspec.structs.replace(Inner(), size=4))
