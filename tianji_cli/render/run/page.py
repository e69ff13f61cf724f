"""One self-contained HTML page: no script, nothing from the network, readable in ten years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tianji_cli import units
from tianji_cli.analysis.verify import ExaminedRun
from tianji_cli.render.page_style import CSS
from tianji_cli.render.run import page_parts
from tianji_cli.render.run.page_parts import esc
from tianji_cli.render.run.rows import verdict
from tianji_cli.render.svg import inline_svg


@dataclass(frozen=True)
class PageFigure:
    """A figure in the page.

    Attributes:
        name: Unique; the stem of its files.
        title: What it shows, for readers who cannot see it.
        svg: Text of its SVG file.
        png: Its PNG file, to link to.
    """

    name: str
    title: str
    svg: str
    png: Path


def render_page(runs: Sequence[ExaminedRun], figures: Sequence[PageFigure], base: Path) -> str:
    """The whole page.

    Args:
        runs: One run, or several to compare.
        figures: In the order in which they are shown.
        base: The directory that the page will lie in; links are relative to it.

    Returns:
        HTML. The same files give the same text.
    """
    title = runs[0].label if len(runs) == 1 else f"Comparison of {len(runs)} runs"
    return "".join(
        [
            head(f"{title} · TianJi"),
            _header(runs, title),
            "<main>",
            page_parts.warnings(runs),
            page_parts.tiles(runs[0]) if len(runs) == 1 else "",
            _figures(figures, base),
            page_parts.settings_section(runs),
            page_parts.summary_section(runs),
            page_parts.profile_section(runs),
            page_parts.check_section(runs),
            page_parts.provenance_section(runs, base),
            "</main>",
            "<footer>Written by <code>tianji report</code> from the files of the run alone. "
            "Rates are taken over the last 80% of the run; lag is in weights versions.</footer>",
            "</body></html>\n",
        ]
    )


def head(title: str) -> str:
    """Everything of a page up to its body; forbids scripts and the network."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{esc(title)}</title><style>{CSS}</style></head><body>"
    )


def _header(runs: Sequence[ExaminedRun], title: str) -> str:
    summary = runs[0].summary
    if len(runs) > 1:
        names = ", ".join(examined.label for examined in runs)
        return f'<header><h1>{esc(title)}</h1><p class="soft">{esc(names)}</p></header>'
    place = units.plural(summary.num_hosts, "host")
    actors = units.plural(summary.num_actors, "actor")
    facts = (summary.algorithm, summary.env_id, f"policy {summary.policy}", place, actors)
    return (
        f'<header><h1>{esc(title)}</h1><p class="lead">{esc(verdict(summary))}.</p>'
        f'<p class="soft">{esc(" · ".join(facts))}</p></header>'
    )


def _figures(figures: Sequence[PageFigure], base: Path) -> str:
    cards = "".join(
        f'<figure><div class="paper">'
        f"{inline_svg(figure.svg, prefix=figure.name, label=figure.title)}</div>"
        f"<figcaption>{_files_of(figure, base)}</figcaption></figure>"
        for figure in figures
    )
    return f'<section><h2>What happened</h2><div class="figures">{cards}</div></section>'


def _files_of(figure: PageFigure, base: Path) -> str:
    png = page_parts.link(figure.png, base)
    svg = page_parts.link(figure.png.with_suffix(".svg"), base)
    return (
        f'{esc(figure.name.replace("_", " "))}: <a href="{png}">PNG</a> · <a href="{svg}">SVG</a>'
    )
