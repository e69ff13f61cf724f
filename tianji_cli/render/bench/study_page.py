"""A study's page, as HTML that needs nothing else, and as Markdown for reading in a repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tianji_cli.bench.study.compare import StudyComparison, TaskResult
from tianji_cli.bench.study.records import StudyManifest, StudyRun
from tianji_cli.render.bench.search_text import MEANING as SEARCH_MEANING
from tianji_cli.render.bench.search_text import search_lines, trial_headings, trial_rows
from tianji_cli.render.bench.study_text import (
    HEADINGS,
    MEANING,
    RUN_HEADINGS,
    fact_rows,
    ratio_lines,
    result_rows,
    run_rows,
)
from tianji_cli.render.templating import PageFigure, render


@dataclass(frozen=True)
class StudyPage:
    """Content of both pages.

    Attributes:
        manifest: What was to be done.
        comparison: Every figure.
        runs: Finished runs.
        figures: In order.
    """

    manifest: StudyManifest
    comparison: StudyComparison
    runs: Sequence[StudyRun]
    figures: Sequence[PageFigure]


def render_study_html(page: StudyPage, base: Path) -> str:
    """One self-contained page; the same files give the same text.

    Args:
        page: What it shows.
        base: The directory that it will lie in; links are relative to it.
    """
    study = page.manifest.suite
    return render(
        "study.html",
        title=f"{study.name} · TianJi study",
        heading=study.name,
        soft=study.summary,
        notes=page.comparison.warnings,
        searches=[_search(task) for task in page.comparison.tasks if task.search is not None],
        search_meaning=SEARCH_MEANING,
        headings=HEADINGS,
        results=result_rows(page.comparison),
        sentences=ratio_lines(page.comparison),
        meaning=MEANING,
        figures=[
            figure.drawn(base, prefix=figure.name, caption=figure.name) for figure in page.figures
        ],
        run_headings=RUN_HEADINGS,
        runs=run_rows(page.runs),
        facts=fact_rows(page.manifest),
    )


def render_study_markdown(page: StudyPage, base: Path) -> str:
    """The same for readers of a repository; arguments as of `render_study_html`."""
    study = page.manifest.suite
    figures = [
        f"![{figure.title}]({Path(os.path.relpath(figure.png, base)).as_posix()})"
        for figure in page.figures
    ]
    parts = [
        f"# {study.name}",
        f"{study.summary}.",
        *([markdown_list(page.comparison.warnings)] if page.comparison.warnings else []),
        *_search_parts(page),
        *_result_parts(page),
        *figures,
        "## Every run",
        markdown_table(RUN_HEADINGS, run_rows(page.runs)),
        "## Provenance",
        markdown_table(("fact", "value"), fact_rows(page.manifest)),
        "Written by `tianji report` from `study.json` and `runs.jsonl` alone.",
    ]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class SearchPart:
    """What a search has found for one task, as templates take it."""

    task: str
    sentences: Sequence[str]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def _search(task: TaskResult) -> SearchPart:
    assert task.search is not None
    rows = trial_rows(task.search)
    return SearchPart(task.task, search_lines(task), trial_headings(task.search), rows)


def _search_parts(page: StudyPage) -> list[str]:
    found = [_search(task) for task in page.comparison.tasks if task.search is not None]
    parts = [
        part
        for search in found
        for part in (markdown_list(search.sentences), markdown_table(search.headings, search.rows))
    ]
    return [*parts, SEARCH_MEANING] if parts else []


def _result_parts(page: StudyPage) -> list[str]:
    if not (rows := result_rows(page.comparison)):
        return []
    lines = ratio_lines(page.comparison)
    return [markdown_table(HEADINGS, rows), *([markdown_list(lines)] if lines else []), MEANING]


def markdown_list(lines: Sequence[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
