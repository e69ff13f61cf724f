"""One self-contained HTML page about runs: no script, nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tianji_cli import units
from tianji_cli.analysis.verify import ExaminedRun
from tianji_cli.render.run import page_parts
from tianji_cli.render.run.rows import verdict
from tianji_cli.render.run.staleness import staleness_tables
from tianji_cli.render.templating import PageFigure, render


def render_page(runs: Sequence[ExaminedRun], figures: Sequence[PageFigure], base: Path) -> str:
    """The whole page.

    Args:
        runs: One run, or several to compare.
        figures: In the order in which they are shown.
        base: The directory of the page; links are relative to it.

    Returns:
        HTML. The same files give the same text.
    """
    is_comparison = len(runs) > 1
    labels = [examined.label for examined in runs]
    title = f"Comparison of {len(runs)} runs" if is_comparison else labels[0]
    return render(
        "run.html",
        title=f"{title} · TianJi",
        heading=title,
        is_comparison=is_comparison,
        verdict="" if is_comparison else verdict(runs[0].summary),
        soft=", ".join(labels) if is_comparison else _facts(runs[0]),
        labels=labels,
        notes=page_parts.warnings(runs),
        tiles=[] if is_comparison else page_parts.tiles(runs[0]),
        figures=[
            figure.drawn(base, prefix=figure.name, caption=figure.name.replace("_", " "))
            for figure in figures
        ],
        settings=page_parts.settings(runs) if is_comparison else None,
        summary=page_parts.summary_rows(runs),
        staleness=[(examined.label, staleness_tables(examined.run)) for examined in runs],
        profiles=page_parts.profiles(runs),
        checks=[page_parts.check(examined) for examined in runs],
        provenance=[page_parts.provenance(examined, base) for examined in runs],
    )


def _facts(run: ExaminedRun) -> str:
    summary = run.summary
    place = units.plural(summary.num_hosts, "host")
    actors = units.plural(summary.num_actors, "actor")
    facts = (summary.algorithm, summary.env_id, f"policy {summary.policy}", place, actors)
    return " · ".join(facts)
