"""A reproduction's page, as HTML that needs nothing else, and as Markdown for a repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tianji_cli.bench.published.compare import PublishedComparison, RowResult
from tianji_cli.bench.published.records import PublishedManifest, PublishedRun
from tianji_cli.render.bench.published_text import (
    HEADINGS,
    MEANING,
    RUN_HEADINGS,
    differences,
    long_row,
    provenance_rows,
    run_rows,
    summary_line,
)
from tianji_cli.render.bench.study_page import markdown_list, markdown_table
from tianji_cli.render.templating import PageFigure, render


@dataclass(frozen=True)
class PublishedPage:
    """Content of both pages.

    Attributes:
        manifest: What was to be done.
        comparison: Every figure.
        runs: Finished runs.
        figures: In order.
    """

    manifest: PublishedManifest
    comparison: PublishedComparison
    runs: Sequence[PublishedRun]
    figures: Sequence[PageFigure]


def render_published_html(page: PublishedPage, base: Path) -> str:
    """One self-contained page; the same files give the same text.

    Args:
        page: What it shows.
        base: The directory that it will lie in; links are relative to it.
    """
    suite, rows = page.manifest.suite, page.comparison.rows
    return render(
        "published.html",
        title=f"{suite.name} · TianJi and published results",
        heading=suite.name,
        soft=suite.summary,
        notes=page.comparison.warnings,
        summary=summary_line(page.comparison),
        headings=HEADINGS,
        results=[long_row(row) for row in rows],
        meaning=MEANING,
        sources=[_source(page, row) for row in rows],
        figures=[
            figure.drawn(base, prefix=figure.name, caption=figure.name) for figure in page.figures
        ],
        run_headings=RUN_HEADINGS,
        runs=run_rows(page.runs, rows),
        facts=provenance_rows(page.manifest, page.runs),
    )


@dataclass(frozen=True)
class SourcePart:
    """Where a figure comes from and what differs, as templates take it."""

    row: str
    experiment: str
    figure: str
    settings: str
    differences: Sequence[str]


def _source(page: PublishedPage, row: RowResult) -> SourcePart:
    experiment = page.manifest.suite.rows[row.row].experiment
    source = row.source
    return SourcePart(row.row, experiment, source.figure, source.settings, differences(row))


def render_published_markdown(page: PublishedPage, base: Path) -> str:
    """The same for readers of a repository; arguments as of `render_published_html`."""
    suite, rows = page.manifest.suite, page.comparison.rows
    figures = [
        f"![{figure.title}]({Path(os.path.relpath(figure.png, base)).as_posix()})"
        for figure in page.figures
    ]
    parts = [
        f"# {suite.name}",
        f"{suite.summary}.",
        *([markdown_list(page.comparison.warnings)] if page.comparison.warnings else []),
        f"{summary_line(page.comparison).capitalize()}.",
        markdown_table(HEADINGS, [long_row(row) for row in rows]),
        MEANING,
        *figures,
        "## Sources, and what differs",
        "\n".join(_source_lines(_source(page, row)) for row in rows),
        "## Every run",
        markdown_table(RUN_HEADINGS, run_rows(page.runs, rows)),
        "## Provenance",
        markdown_table(("fact", "value"), provenance_rows(page.manifest, page.runs)),
        "Written by `tianji report` from `published.json` and `runs.jsonl` alone.",
    ]
    return "\n\n".join(parts) + "\n"


def _source_lines(part: SourcePart) -> str:
    head = (
        f"- **{part.row}** (`{part.experiment}`): [figure]({part.figure}),"
        f" [settings]({part.settings})"
    )
    return "\n".join([head, *(f"  - {text}" for text in part.differences)])
