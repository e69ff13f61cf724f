"""The report of a study: tables, plots and two pages from its two small files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tianji_cli.bench.campaign import check_finished
from tianji_cli.bench.study.best import best_experiment
from tianji_cli.bench.study.compare import StudyComparison, TaskResult, compare_study
from tianji_cli.bench.study.records import StudyCell, StudyFiles, StudyManifest, StudyRun
from tianji_cli.commands.benchmarks.conduct import ANOTHER_PLACE
from tianji_cli.output import Output
from tianji_cli.render.bench.search_text import best_rows, search_lines, short_headings
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
    """Writes plots, `comparison.json` and both pages; of a search also its best setting.

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
            manifest = target.read_manifest()  # without what is not for others
        make_inside(target.root, target.plots)
        figures = _draw(manifest, comparison, runs, target)
        page = StudyPage(manifest, comparison, list(runs.values()), figures)
        write_json(target.comparison, comparison)
        write_file(target.report, render_study_html(page, target.root))
        write_file(target.readme, render_study_markdown(page, target.root))
        _write_best(manifest, comparison, target)
    return StudyReport(comparison, target.report)


def _write_best(manifest: StudyManifest, comparison: StudyComparison, target: StudyFiles) -> None:
    """The best setting of each search, as an experiment file."""
    for task in comparison.tasks:
        text = None if task.search is None else best_experiment(manifest, task.task, task.search)
        if text is not None:
            path = target.best(task.task, is_only=len(comparison.tasks) == 1)
            make_inside(target.root, path.parent)
            write_file(path, text)


def _draw(
    manifest: StudyManifest,
    comparison: StudyComparison,
    runs: Mapping[StudyCell, StudyRun],
    target: StudyFiles,
) -> list[PageFigure]:
    return [
        _save(figure, target, f"{task.task}-{kind}", title(task))
        for task in comparison.tasks
        for kind, figure, title in _figures(manifest, task, runs)
        if figure is not None
    ]


def _figures(
    manifest: StudyManifest, task: TaskResult, runs: Mapping[StudyCell, StudyRun]
) -> list[tuple[str, Figure | None, Callable[[TaskResult], str]]]:
    """Name, figure and title of what is drawn for a task."""
    from tianji_cli.render.bench import figures_search, figures_study, search_text, study_text

    search = manifest.suite.search
    if search is None:
        return [
            (
                "comparison",
                figures_study.make_comparison(task, runs),
                study_text.title_of_comparison,
            ),
            ("returns", figures_study.make_returns(task, runs), study_text.title_of_returns),
            ("learning", figures_study.make_learning(task, runs), study_text.title_of_learning),
        ]
    return [
        ("history", figures_search.make_history(task), search_text.title_of_history),
        ("importance", figures_search.make_importance(task), search_text.title_of_importance),
        ("slices", figures_search.make_slices(task, search.space), search_text.title_of_slices),
        ("trials", figures_search.make_trials(task, runs), search_text.title_of_trials),
    ]


def _save(figure: Figure, target: StudyFiles, name: str, title: str) -> PageFigure:
    from tianji_cli.plotting.figure_style import save
    from tianji_cli.render.templating import PageFigure

    png, svg = save(figure, target.plots, name)
    return PageFigure(name=name, title=title, svg=svg.read_text(encoding="utf-8"), png=png)


def show_study(report: StudyReport, output: Output) -> None:
    """Prints the table, or one JSON document."""
    found = report.comparison
    tables = (_task_table(found.study_id, task) for task in found.tasks)
    lines = (
        Text(line)
        for line in (*itertools.chain(*map(search_lines, found.tasks)), *ratio_lines(found))
    )
    where = [f"report: {from_here(report.page)}"]
    if any(task.search is not None and task.search.best is not None for task in found.tasks):
        best = StudyFiles(report.page.parent)
        only = len(found.tasks) == 1
        files = (from_here(best.best(task.task, is_only=only)) for task in found.tasks)
        where += [f"best setting: {file}" for file in files]
    output.findings(found, itertools.chain(tables, lines), found.warnings, "\n".join(where))


def _task_table(study_id: str, task: TaskResult) -> Table:
    """Medians of one task, one row per variant; of a search its best trials."""
    goal = "" if task.threshold is None else f" to {task.threshold:g}"
    if task.search is not None:
        rows = best_rows(task.search)
        return _table(f"{study_id} · {task.task}: best trials", short_headings(task.search), rows)
    rows = [short_row(item, task.threshold) for item in task.variants]
    return _table(f"{study_id} · {task.task}{goal}", SHORT_HEADINGS, rows)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
