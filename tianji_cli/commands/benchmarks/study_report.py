"""The report of a study: tables, plots and two pages from its two small files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tianji_cli.bench.campaign import check_finished
from tianji_cli.bench.study.compare import StudyComparison, TaskResult, compare_study
from tianji_cli.bench.study.records import StudyCell, StudyFiles, StudyRun
from tianji_cli.commands.benchmarks.conduct import ANOTHER_PLACE
from tianji_cli.output import Output
from tianji_cli.render.bench.study_text import SHORT_HEADINGS, ratio_lines, short_row
from tianji_cli.storage.json_files import write_json, writing
from tianji_cli.storage.run_dir import from_here
from tianji_cli.storage.safe_files import make_inside, write_file

if TYPE_CHECKING:
    from tianji_cli.plotting.figures import Figure
    from tianji_cli.render.templating import PageFigure


@dataclass(frozen=True)
class StudyReport:
    """A written report.

    Attributes:
        comparison: Every figure.
        page: The HTML page.
    """

    comparison: StudyComparison
    page: Path


def write_study_report(root: Path, out: Path | None) -> StudyReport:
    """Writes plots, `comparison.json`, `report.html` and `README.md`.

    Args:
        root: A study's directory.
        out: Directory for them and for copies of `study.json` and `runs.jsonl`, so that it is
            complete without the runs; None: into the study.

    Raises:
        ConfigError: A damaged file, nothing has been finished yet, or another report at `out`.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.render.bench.study_page import (
        StudyPage,
        render_study_html,
        render_study_markdown,
    )

    source, target = StudyFiles(root.resolve()), StudyFiles((out or root).resolve())
    manifest = source.read_manifest()
    runs = source.read_results(manifest)
    check_finished(runs, root)
    comparison = compare_study(manifest, runs)
    with writing("the report", target.root, ANOTHER_PLACE):
        if target != source:
            source.keep_at(target, manifest, runs)
        make_inside(target.root, target.plots)
        page = StudyPage(manifest, comparison, list(runs.values()), _draw(comparison, runs, target))
        write_json(target.comparison, comparison)
        write_file(target.report, render_study_html(page, target.root))
        write_file(target.readme, render_study_markdown(page, target.root))
    return StudyReport(comparison, target.report)


def _draw(
    comparison: StudyComparison, runs: Mapping[StudyCell, StudyRun], target: StudyFiles
) -> list[PageFigure]:
    from tianji_cli.render.bench.figures_study import make_comparison, make_learning, make_returns
    from tianji_cli.render.bench.study_text import (
        title_of_comparison,
        title_of_learning,
        title_of_returns,
    )

    drawn = []
    for task in comparison.tasks:
        for kind, figure, title in (
            ("comparison", make_comparison(task, runs), title_of_comparison),
            ("returns", make_returns(task, runs), title_of_returns),
            ("learning", make_learning(task, runs), title_of_learning),
        ):
            if figure is not None:
                drawn.append(_save(figure, target, f"{task.task}-{kind}", title(task)))
    return drawn


def _save(figure: Figure, target: StudyFiles, name: str, title: str) -> PageFigure:
    from tianji_cli.plotting.figure_style import save
    from tianji_cli.render.templating import PageFigure

    png, svg = save(figure, target.plots, name)
    return PageFigure(name=name, title=title, svg=svg.read_text(encoding="utf-8"), png=png)


def show_study(report: StudyReport, output: Output) -> None:
    """Prints the table, or one JSON document."""
    found = report.comparison
    tables = (_task_table(found.study_id, task) for task in found.tasks)
    lines = (Text(line) for line in ratio_lines(found))
    output.findings(
        found, itertools.chain(tables, lines), found.warnings, f"report: {from_here(report.page)}"
    )


def _task_table(study_id: str, task: TaskResult) -> Table:
    """Medians of one task, one row per variant."""
    goal = "" if task.threshold is None else f" to {task.threshold:g}"
    title = Text(f"{study_id} · {task.task}{goal}")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    for heading in SHORT_HEADINGS:
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for item in task.variants:
        table.add_row(*(Text(cell) for cell in short_row(item)))
    return table
