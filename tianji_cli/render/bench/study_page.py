"""A study's page, as HTML that needs nothing else, and as Markdown for reading in a repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tianji_cli.bench.study.compare import StudyComparison
from tianji_cli.bench.study.records import StudyManifest, StudyRun
from tianji_cli.render.bench.study_text import (
    HEADINGS,
    MEANING,
    RUN_HEADINGS,
    fact_rows,
    ratio_lines,
    result_rows,
    run_rows,
)
from tianji_cli.render.run.page import PageFigure, head
from tianji_cli.render.run.page_parts import esc, link, table
from tianji_cli.render.svg import inline_svg


@dataclass(frozen=True)
class StudyPage:
    """What both pages are made of.

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
    lines = "".join(f"<li>{esc(line)}</li>" for line in ratio_lines(page.comparison))
    said = f"<ul>{lines}</ul>" if lines else ""
    results = table(HEADINGS, result_rows(page.comparison), label="Results")
    runs = table(RUN_HEADINGS, run_rows(page.runs), label="Runs")
    facts = table(("fact", "value"), fact_rows(page.manifest), label="Provenance")
    figures = "".join(_figure(figure, base) for figure in page.figures)
    return "".join(
        [
            head(f"{study.name} · TianJi study"),
            f"<header><h1>{esc(study.name)}</h1>"
            f'<p class="soft">{esc(study.summary)}</p></header><main>',
            _warnings(page.comparison.warnings),
            f'<section><h2>Results</h2><div class="card">{results}{said}'
            f'<p class="soft">{esc(MEANING)}</p></div></section>',
            f'<section><h2>Figures</h2><div class="figures">{figures}</div></section>',
            f'<section><h2>Every run</h2><div class="card">{runs}</div></section>',
            f'<section><h2>Provenance</h2><div class="card">{facts}</div></section>',
            "</main><footer>Written by <code>tianji report</code> from <code>study.json</code> and"
            " <code>runs.jsonl</code> alone.</footer></body></html>\n",
        ]
    )


def _warnings(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{esc(line)}</li>" for line in lines)
    note = f'<div class="warnings" role="note"><strong>Please note</strong><ul>{items}</ul></div>'
    return note if lines else ""


def _figure(figure: PageFigure, base: Path) -> str:
    drawn = inline_svg(figure.svg, prefix=figure.name, label=figure.title)
    png, svg = (link(path, base) for path in (figure.png, figure.png.with_suffix(".svg")))
    caption = f'{esc(figure.name)}: <a href="{png}">PNG</a> · <a href="{svg}">SVG</a>'
    return f'<figure><div class="paper">{drawn}</div><figcaption>{caption}</figcaption></figure>'


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
        *([_list(page.comparison.warnings)] if page.comparison.warnings else []),
        _table(HEADINGS, result_rows(page.comparison)),
        *([_list(lines)] if (lines := ratio_lines(page.comparison)) else []),
        MEANING,
        *figures,
        "## Every run",
        _table(RUN_HEADINGS, run_rows(page.runs)),
        "## Provenance",
        _table(("fact", "value"), fact_rows(page.manifest)),
        "Written by `tianji report` from `study.json` and `runs.jsonl` alone.",
    ]
    return "\n\n".join(parts) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
