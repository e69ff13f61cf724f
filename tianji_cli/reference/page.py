"""The reference as Markdown (`docs/reference.md`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tianji_cli.reference.contents import Chapter
from tianji_cli.reference.keys import ANY_NAME, Key, Section

_SECTION = re.compile(r"\b(sections?|mappings|values by name)\b")

_HEAD = """\
# Reference: every key

Written by `make reference` from the specs that read these files; a test holds it current.
`tianji list keys WORD` searches it from the command line.

A key without a default is required. Whole numbers can be written as `1e6`. NAME in a path stands
for a name of your choice. A misspelt key is an error that suggests the right one.
"""


def reference_page(chapters: Sequence[Chapter]) -> str:
    """The whole page.

    >>> reference_page([]).partition("\\n")[0]
    '# Reference: every key'
    """
    lines = [_HEAD]
    for chapter in chapters:
        sections = [f"[{s.title}](#{anchor(_heading(s, chapter))})" for s in chapter.sections]
        links = f": {', '.join(sections)}" if len(sections) > 1 else ""
        lines.append(f"- [{chapter.title}](#{anchor(chapter.title)}){links}")
    for chapter in chapters:
        lines.append(f"\n## {chapter.title}\n")
        lines.append("\n\n".join(chapter.about))
        for section in chapter.sections:
            is_all = len(chapter.sections) == 1
            lines.append("" if is_all else f"\n### {_heading(section, chapter)}\n")
            lines += [f"{paragraph}\n" for paragraph in section.about]
            lines += _table(section.keys, _anchors(chapter))
    return "\n".join(lines) + "\n"


def anchor(heading: str) -> str:
    """What GitHub calls a heading in links.

    >>> anchor("`algorithm`, name: ppo")
    'algorithm-name-ppo'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _heading(section: Section, chapter: Chapter) -> str:
    """Unique in the page: other chapters have sections of the same name."""
    return f"{chapter.prefix}: {section.title}" if chapter.prefix else section.title


def _anchors(chapter: Chapter) -> dict[str, str]:
    """Of each section of a file, by its path; of several at one place, the first."""
    sections = reversed(chapter.sections)
    return {section.path: anchor(_heading(section, chapter)) for section in sections}


def _table(keys: Sequence[Key], anchors: Mapping[str, str]) -> list[str]:
    rows = [f"| {' | '.join(map(_cell, _row(key, anchors)))} |" for key in keys]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows]


def _row(key: Key, anchors: Mapping[str, str]) -> tuple[str, str, str, str]:
    default = "required" if key.default is None else f"`{key.default}`"
    inside = anchors.get(key.path) or anchors.get(f"{key.path}.{ANY_NAME}")
    words = _SECTION.sub(rf"[\1](#{inside})", key.type_and_unit) if inside else key.type_and_unit
    return f"`{key.name}`", words, default, key.meaning


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
