"""`tianji report`: tables, figures and one page from the files of a run. Needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from engine.errors import ConfigError, PreflightError
from engine.trace.summary import Summary
from tianji_cli.commands.benchmarks.report_kinds import report_other
from tianji_cli.commands.options import optional
from tianji_cli.commands.report_document import ReportDocument, document_of
from tianji_cli.output import Output
from tianji_cli.render.run.profile import profile_table
from tianji_cli.render.run.tables import settings_table, summary_table
from tianji_cli.storage.comparison_dir import claim_comparison, claim_out
from tianji_cli.storage.run_dir import RunPaths, from_here, resolve_run
from tianji_cli.storage.safe_files import make_inside, write_file

if TYPE_CHECKING:
    from tianji_cli.analysis.verify import ExaminedRun
    from tianji_cli.render.templating import PageFigure

OutOption = Annotated[
    Path | None,
    optional(
        "--out",
        metavar="DIR",
        help="Directory for report.html, plots/. Default: the run's; several: RESULTS/comparison."
        " Never replaces another report.",
    ),
]


ArchiveOption = Annotated[
    bool,
    typer.Option(
        "--archive",
        help="With --out: archive a benchmark there, compact and without local paths.",
    ),
]


PdfOption = Annotated[
    bool | None,
    typer.Option(
        "--pdf/--no-pdf",
        help="Write each figure as PDF too. Default: in comparisons of runs.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class ReportResult:
    """A written report.

    Attributes:
        report: The page.
        figures: PNG and SVG files, in the page's order.
        pdfs: PDF files, in the same order; empty if none were asked for.
        document: The same for programs.
        summaries: One per run; rebuilt if a run wrote none.
    """

    report: Path
    figures: tuple[Path, ...]
    document: ReportDocument
    summaries: tuple[Summary, ...]
    pdfs: tuple[Path, ...] = ()


def write_report(
    paths: list[RunPaths], out: Path | None, *, writes_pdf: bool | None = None
) -> ReportResult:
    """Writes figures and page of one run, or the comparison of several.

    Args:
        paths: The runs; the same run twice counts once.
        out: Directory for `report.html` and `plots/`; None: the run's, or, for several, one for
            this comparison beside the first (`claim_comparison`).
        writes_pdf: Whether to write each figure as PDF too; None: if there are several runs.

    Raises:
        ConfigError: No run, a damaged file, a run without any trace row, or another report at
            `out`.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.analysis.verify import examine_runs
    from tianji_cli.render.run.page import render_page

    unique = list(dict.fromkeys(paths))
    if not unique:
        raise ConfigError("no run was given", where="report", fix="tianji runs lists them")
    examined = examine_runs(unique)
    base = out or unique[0].root
    try:
        if out is None and len(unique) > 1:
            base = claim_comparison(unique[0].root.parent, unique)
        elif out is not None:
            claim_out(out, [run.root for run in unique])
        target = RunPaths(base.resolve())
        make_inside(target.root, target.plots)
        writes_pdf = len(unique) > 1 if writes_pdf is None else writes_pdf
        figures = _write_figures(examined, target.plots, writes_pdf=writes_pdf)
        page = render_page(examined, figures, target.root)
        write_file(target.report, page)
    except OSError as error:
        raise PreflightError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(base),
            fix="free space or permissions there, or give another place with --out DIR",
        ) from error
    files = tuple(path for f in figures for path in (f.png, f.png.with_suffix(".svg")))
    pdfs = tuple(f.pdf for f in figures if f.pdf is not None)
    return ReportResult(
        report=target.report,
        figures=files,
        document=document_of(examined, target.report, [*files, *pdfs]),
        summaries=tuple(run.summary for run in examined),
        pdfs=pdfs,
    )


def _write_figures(
    runs: Sequence[ExaminedRun], directory: Path, *, writes_pdf: bool
) -> list[PageFigure]:
    from tianji_cli.plotting.figure_style import save, save_pdf
    from tianji_cli.render.run.figures import FIGURES, make_figure
    from tianji_cli.render.templating import PageFigure

    curves = [examined.curves for examined in runs]
    written = []
    for spec in FIGURES:
        if not spec.suits(curves):
            continue
        drawn, title = make_figure(spec, curves), spec.title(curves)
        png, svg = save(drawn, directory, spec.name)
        pdf = save_pdf(drawn, directory, spec.name) if writes_pdf else None
        text = svg.read_text(encoding="utf-8")
        written.append(PageFigure(name=spec.name, title=title, svg=text, png=png, pdf=pdf))
    return written


def report_command(
    runs: Sequence[str],
    results: Path,
    out: Path | None,
    output: Output,
    *,
    archives: bool = False,
    writes_pdf: bool | None = None,
) -> ReportResult | None:
    """Finds the runs, writes the report, and prints tables or one JSON document.

    Args:
        runs: Ids, unique prefixes or paths; empty means the newest run.
        results: The results directory.
        out: See `write_report`.
        output: The command's output.
        archives: Whether to archive a benchmark at `out`.
        writes_pdf: See `write_report`.

    Returns:
        The written report; None for benchmarks and studies, which have other reports.

    Raises:
        ConfigError: As `resolve_run`, `write_report` and `report_other`.
        PreflightError: As `write_report`.
    """
    if report_other(runs, results, out, output, archives=archives):
        if writes_pdf:
            output.say("note: figures of benchmarks and studies are PNG and SVG only")
        return None
    paths = [resolve_run(results, name) for name in runs] or [resolve_run(results, None)]
    result = write_report(paths, out, writes_pdf=writes_pdf)
    if output.is_json:
        output.document(result.document)
        return result
    _show_runs(result, output)
    output.data.print(Text(f"report: {from_here(result.report)}"), soft_wrap=True)
    return result


def _show_runs(result: ReportResult, output: Output) -> None:
    """Prints the table of each run, whether its traces agree, and its warnings."""
    for run, summary in zip(result.document.runs, result.summaries, strict=True):
        output.data.print(summary_table(summary))
        if run.profile:
            output.data.print(profile_table(run.profile))
        wrong = len(run.disagreements)
        check = f"disagreements: {wrong}" if wrong else "agrees"
        style = "red" if wrong else "green"
        output.data.print(Text(f"rebuilt from traces: {check}\n", style=style))
        for warning in run.warnings:
            output.say(f"{run.run_id}: {warning}")
    if result.document.differences is not None:
        names = [run.run_id for run in result.document.runs]
        output.data.print(settings_table(result.document.differences, names))
