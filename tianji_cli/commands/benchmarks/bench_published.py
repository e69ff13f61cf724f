"""`tianji bench published`: published results, reproduced with the published settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from rich.table import Table
from rich.text import Text

from engine.errors import ConfigError
from tianji_cli import units
from tianji_cli.bench.campaign import check_finished
from tianji_cli.bench.places import RunPlace, places_of
from tianji_cli.bench.published.compare import PublishedComparison, RowResult, compare_published
from tianji_cli.bench.published.records import (
    PublishedFiles,
    PublishedManifest,
    PublishedRun,
    merged,
)
from tianji_cli.bench.published.run import PublishedCampaign, PublishedCrew, new_reproduction
from tianji_cli.bench.published.suite import PublishedSuite, load_published
from tianji_cli.bench.study.records import StudyCell
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.commands.benchmarks.conduct import ANOTHER_PLACE, Kind
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.render.bench.published_text import SHORT_HEADINGS, short_row, summary_line
from tianji_cli.storage.json_files import write_json, writing
from tianji_cli.storage.run_dir import from_here
from tianji_cli.storage.safe_files import make_inside, write_file

if TYPE_CHECKING:
    from tianji_cli.render.templating import PageFigure


@dataclass(frozen=True)
class PublishedReport:
    """A written report.

    Attributes:
        comparison: Every figure.
        page: The HTML page.
    """

    comparison: PublishedComparison
    page: Path


class PublishedKind(Kind[PublishedFiles, PublishedManifest, StudyCell, PublishedRun]):
    """TianJi with published settings, beside published figures."""

    files = PublishedFiles
    unused: ClassVar = {
        "--hosts": "published results are reproduced on this machine",
        "--compare": "ours is compared with published figures, not with other systems",
        "--skip-missing": "a reproduction uses no other system",
    }
    can_merge = True

    def plan(self, request: BenchRequest, output: Output) -> PublishedCampaign:
        suite = load_published(request.suite, request.settings, request.tasks)
        if request.seeds is not None:
            suite = msgspec.structs.replace(_without(suite, "seeds"), seeds=request.seeds)
        budget_s = request.checked_budget_s()
        if budget_s is not None:
            suite = msgspec.structs.replace(_without(suite, "budget_s"), budget_s=budget_s)
        root = request.results / request.new_id("published", suite.name)
        return new_reproduction(suite, root)

    def scheduled(self, work: PublishedCampaign, request: BenchRequest) -> PublishedCampaign:
        parallel = request.checked_parallel()
        if parallel is None:
            return work
        suite = msgspec.structs.replace(work.manifest.suite, parallel=parallel)
        return replace(work, manifest=msgspec.structs.replace(work.manifest, suite=suite))

    def announce(self, work: PublishedCampaign) -> Iterator[str]:
        suite, cells = work.manifest.suite, work.open_cells
        num_places = len(_places(suite))
        done = f" ({work.num_done} of {len(work.manifest.cells)} done)" if work.num_done else ""
        order = "one after the other" if num_places == 1 else f"{num_places} at a time"
        yield f"{units.plural(len(cells), 'run')}{done}, {order}"
        for name, row in suite.rows.items():
            num_open = sum(cell.task == name for cell in cells)
            yield f"  {name}: {units.plural(num_open, 'run')} of {row.experiment}"
        if num_places > 1:
            yield "runs share cores, so wall times are longer than those of a run alone"

    def runner(
        self, work: PublishedCampaign, display: BenchDisplay, held: ExitStack
    ) -> Callable[[StudyCell], PublishedRun]:
        def show(running: Sequence[str]) -> None:
            display.show(", ".join(running))

        return PublishedCrew(work, _places(work.manifest.suite), show, display.say)

    def line(self, result: PublishedRun) -> str:
        name = f"{result.cell.task} seed {result.cell.seed}"
        if result.outcome == "failed" or result.summary is None:
            return f"{name}: failed: {result.detail}"
        mean = units.mean_return(sum(result.judged) / len(result.judged))
        wall, steps = units.seconds(result.summary.wall_s), result.summary.env_steps_consumed
        return f"{name}: return {mean} after {units.count(steps)} env steps, {wall}"

    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        if archives:
            fix = "--out DIR, without --archive, copies what a report needs"
            raise ConfigError("there are no tables to archive", where="--archive", fix=fix)
        report = write_published_report(roots, out)
        show_published(report, output)
        rows = report.comparison.rows
        return all(row.num_planned == len(row.runs) and row.verdict != "worse" for row in rows)


def _places(suite: PublishedSuite) -> list[RunPlace]:
    """Where the runs take place: this machine, once for each run at a time."""
    return places_of(None, parallel=suite.parallel)


def _without(suite: PublishedSuite, key: str) -> PublishedSuite:
    """The same, without values of its rows that override the suite."""
    rows = {name: msgspec.structs.replace(row, **{key: None}) for name, row in suite.rows.items()}
    return msgspec.structs.replace(suite, rows=rows)


def write_published_report(roots: Sequence[Path], out: Path | None) -> PublishedReport:
    """Writes plots, `comparison.json` and both pages.

    Args:
        roots: Directories of reproductions; of several, each row is taken from the last one that
            has it.
        out: Directory for them and for copies of their inputs, so that it is complete without the
            runs; None: into the only reproduction.

    Raises:
        ConfigError: A damaged file, nothing has been finished yet, several without `out`, or
            another report there.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.render.bench.published_page import (
        PublishedPage,
        render_published_html,
        render_published_markdown,
    )

    if out is None and len(roots) > 1:
        raise ConfigError("several need a directory of their own", where="--out", fix="--out DIR")
    sources = [PublishedFiles(root.resolve()) for root in roots]
    manifest, runs = merged([(source.root, _load(source)) for source in sources])
    check_finished(runs, roots[0])
    comparison = compare_published(manifest, runs)
    target = PublishedFiles((out or roots[0]).resolve())
    with writing("the report", target.root, ANOTHER_PLACE):
        if out is not None:
            sources[0].keep_at(target, manifest, runs)
            manifest, runs = _load(target)  # without what is not for others
        make_inside(target.root, target.plots)
        figures = _draw(comparison, runs, target)
        page = PublishedPage(manifest, comparison, list(runs.values()), figures)
        write_json(target.comparison, comparison)
        write_file(target.report, render_published_html(page, target.root))
        write_file(target.readme, render_published_markdown(page, target.root))
    return PublishedReport(comparison, target.report)


def _load(source: PublishedFiles) -> tuple[PublishedManifest, dict[StudyCell, PublishedRun]]:
    manifest = source.read_manifest()
    return manifest, source.read_results(manifest)


def _draw(
    comparison: PublishedComparison, runs: dict[StudyCell, PublishedRun], target: PublishedFiles
) -> list[PageFigure]:
    from tianji_cli.plotting.figure_style import save
    from tianji_cli.render.bench import figures_published, published_text
    from tianji_cli.render.templating import PageFigure

    drawn = {
        "agreement": (
            figures_published.make_agreement(comparison),
            published_text.title_of_agreement(comparison),
        ),
        "learning": (
            figures_published.make_learning(comparison, runs),
            published_text.title_of_learning(comparison),
        ),
    }
    found = []
    for name, (figure, title) in drawn.items():
        png, svg = save(figure, target.plots, name)
        text = svg.read_text(encoding="utf-8")
        found.append(PageFigure(name=name, title=title, svg=text, png=png))
    return found


def show_published(report: PublishedReport, output: Output) -> None:
    """Prints the table, or one JSON document."""
    found = report.comparison
    sources = dict.fromkeys(row.source.name for row in found.rows)
    tables = [
        _table(f"{found.bench_id} · {source}", [r for r in found.rows if r.source.name == source])
        for source in sources
    ]
    place = f"report: {from_here(report.page)}"
    output.findings(found, (*tables, Text(summary_line(found))), found.warnings, place)


def _table(title: str, rows: Sequence[RowResult]) -> Table:
    """The rows of one source."""
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    for number, heading in enumerate(SHORT_HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, short_row(row)))
    return table


KIND = PublishedKind()
