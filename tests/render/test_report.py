"""`tianji report` and `tianji runs`, from files only."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from engine.errors import ConfigError, PreflightError
from tests.helpers.synthetic_run import HOSTILE, write_synthetic_run
from tianji_cli.commands.report import ReportResult, report_command, write_report
from tianji_cli.commands.runs import list_runs, runs_command
from tianji_cli.output import Output
from tianji_cli.plotting.figure_style import COLOURS, DASHES, colour_of, dashes_of
from tianji_cli.render.run.tables import runs_table, summary_table
from tianji_cli.render.svg import inline_svg
from tianji_cli.storage.run_dir import RunPaths

FIGURE_NAMES = (
    "return_over_time",
    "return_over_env_steps",
    "rates",
    "lag_over_time",
    "lag_histogram",
    "rollout_age",
    "metrics",
)


class Page(HTMLParser):
    """Collects what a test asks about a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.svg_labels: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[n] for n in ("href", "src", "xlink:href") if n in values]
        if tag == "svg":
            self.svg_labels.append(values.get("aria-label", ""))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return write_synthetic_run(tmp_path_factory.mktemp("report") / "20260131-235959-one")


@pytest.fixture(scope="module")
def result(paths: RunPaths) -> ReportResult:
    return write_report([paths], None)


@pytest.fixture(scope="module")
def text(result: ReportResult) -> str:
    return result.report.read_text(encoding="utf-8")


def test_page_and_figures_land_in_the_run(paths: RunPaths, result: ReportResult):
    assert result.report == paths.report
    wanted = [paths.plots / f"{name}.{end}" for name in FIGURE_NAMES for end in ("png", "svg")]
    assert list(result.figures) == wanted
    for path in wanted:
        assert path.stat().st_size > 1000


def test_the_page_holds_no_text_of_a_file_as_markup(text: str):
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("title") == 1
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text


def test_the_page_needs_no_network(text: str):
    assert "default-src 'none'" in text
    for address in Page(text).addresses:
        assert re.match(r"#|data:|[\w%./-]+$", address), address
        assert "//" not in address
    assert not re.search(r"@import|url\((?!#)", text)


def test_links_lead_to_files(paths: RunPaths, text: str):
    from urllib.parse import unquote

    links = [unquote(a) for a in Page(text).addresses if not a.startswith(("#", "data:"))]
    assert "trace/episodes.jsonl" in links
    assert "logs/box<1>/actor-0.log" in links
    for link in links:
        assert (paths.root / link).is_file(), link


def test_ids_are_unique_and_references_resolve(text: str):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    references = [a[1:] for a in page.addresses if a.startswith("#")]
    references += re.findall(r"url\(#([^)]+)\)", text)
    assert references
    assert set(references) <= set(page.ids)


def test_figures_say_in_words_what_they_show(text: str):
    labels = Page(text).svg_labels
    assert len(labels) == len(FIGURE_NAMES)
    assert "Mean return reaches 450 after 4.4 s" in labels
    assert "Trained env steps are at most 1 version old, within the bound of 1" in labels
    assert any(re.fullmatch(r"Loss starts at [\d.]+ and ends at [\d.]+", label) for label in labels)
    assert all(labels)


def test_the_page_tells_that_the_counters_agree(text: str, result: ReportResult):
    assert "rebuilt from traces: agrees" in text
    (run,) = result.document.runs
    assert run.agrees
    assert run.warnings == []


def test_the_same_files_give_the_same_bytes(paths: RunPaths, result: ReportResult):
    first = {path: path.read_bytes() for path in (result.report, *result.figures)}
    write_report([paths], None)
    assert {path: path.read_bytes() for path in first} == first


def test_several_runs_are_compared_on_the_same_axes(tmp_path: Path):
    runs = [
        write_synthetic_run(tmp_path / "fast", num_batches=60),
        write_synthetic_run(tmp_path / "slow", speed=0.6, num_batches=50),
        write_synthetic_run(tmp_path / "killed", num_batches=20, has_summary=False),
    ]
    result = write_report([*runs, runs[0]], None)
    text = result.report.read_text(encoding="utf-8")
    assert result.report == tmp_path / "comparison" / "report.html"
    assert "Comparison of 3 runs" in text
    assert [run.run_id for run in result.document.runs] == ["fast", "slow", "killed"]
    assert result.document.runs[2].summary is None
    assert "killed: Unfinished" in text
    assert "../fast/manifest.json" in text
    assert not runs[0].report.exists()


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_partial_run_still_gets_a_report(tmp_path: Path, status: str):
    paths = write_synthetic_run(tmp_path / "run", status=status, num_batches=2)
    for table in ("episodes", "staleness", "consumption"):
        file = paths.trace / f"{table}.jsonl"
        file.write_bytes(b"")
    with (paths.trace / "production.jsonl").open("ab") as file:
        file.write(b'{"table":"produ')
    result = write_report([paths], tmp_path / "out")
    text = result.report.read_text(encoding="utf-8")
    assert result.report == tmp_path / "out" / "report.html"
    assert "killed by SIGKILL" in text
    assert "Return: no episode has finished" in text
    assert not result.document.runs[0].agrees
    assert "samples_trained" in text


def test_a_run_without_any_row_is_an_error(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run", num_batches=1)
    for file in paths.trace.iterdir():
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="nothing to report"):
        write_report([paths], None)


def test_no_run_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="no run"):
        write_report([], None)
    with pytest.raises(ConfigError, match="no run"):
        report_command([], tmp_path, None, Output())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, paths: RunPaths):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PreflightError) as caught:
        write_report([paths], tmp_path / "file")
    assert "file" in caught.value.where


def test_json_is_one_document_on_standard_output(
    paths: RunPaths, capsys: pytest.CaptureFixture[str]
):
    report_command([paths.run_id[:11]], paths.root.parent, None, Output(is_json=True))
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert document["schema_version"] == 1
    assert document["report"] == str(paths.report)
    assert document["runs"][0]["summary"]["env_steps_collected"] == 96096
    assert document["runs"][0]["rebuilt"]["samples_trained"] == 384000


@pytest.mark.usefixtures("without_drawing")
def test_tables_go_to_standard_output_and_warnings_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_synthetic_run(tmp_path / "run", status="failed", num_batches=5)
    report_command([], tmp_path, None, Output())
    captured = capsys.readouterr()
    assert "env steps/s" in captured.out
    assert "rebuilt from traces: agrees" in captured.out
    assert "The run failed" in captured.err
    assert "The run failed" not in captured.out


def render(table: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_summary_table_speaks_in_human_units(result: ReportResult):
    (summary,) = result.summaries
    shown = render(summary_table(summary))
    assert "10,383 env steps/s" in shown
    assert "450 reached in 4.4 s" in shown
    assert "0 / 0.5 / 1 / 1" in shown


def test_a_table_does_not_read_text_as_markup(result: ReportResult):
    (summary,) = result.summaries
    odd = msgspec.structs.replace(summary, env_id="[red]Env[/red]", error="[/oops]")
    shown = render(summary_table(odd))
    assert "[red]Env[/red]" in shown
    assert "[/oops]" in shown


def test_runs_are_listed_whatever_their_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_synthetic_run(tmp_path / "a-good", num_batches=60)
    write_synthetic_run(tmp_path / "b-killed", num_batches=2, has_summary=False)
    write_synthetic_run(tmp_path / "c-damaged", num_batches=2).summary.write_bytes(b"{")
    rows = {row.run_id: row for row in list_runs(tmp_path)}
    assert {name: row.status for name, row in rows.items()} == {
        "a-good": "ok",
        "b-killed": "unfinished",
        "c-damaged": "unreadable",
    }
    assert rows["b-killed"].env_id == "CartPole-v1"
    assert "c-damaged" in render(runs_table(list(rows.values())))
    runs_command(tmp_path, Output(is_json=True))
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert len(document["runs"]) == 3


def test_no_runs_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert list_runs(tmp_path / "nowhere") == []
    runs_command(tmp_path, Output())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no run here yet" in captured.err


def test_lines_of_a_comparison_differ_without_colour_next_to_each_other():
    looks = [(colour_of(i), dashes_of(i)) for i in range(len(COLOURS) * len(DASHES))]
    assert len(set(looks)) == len(looks)
    assert all(dashes_of(i) != dashes_of(i + 1) for i in range(20))


def test_an_inlined_svg_keeps_its_references():
    svg = '<?xml version="1.0"?>\n<svg width="4pt" height="3pt" viewBox="0 0 4 3"><g id="a"/>'
    svg += '<use xlink:href="#a" clip-path="url(#a)"/></svg>'
    inlined = inline_svg(svg, prefix="p", label='<"')
    assert inlined.startswith('<svg role="img" aria-label="&lt;&#34;" viewBox')
    assert 'id="p-a"' in inlined
    assert '"#p-a" clip-path="url(#p-a)"' in inlined


def test_the_commands_load_no_heavy_package():
    code = (
        "import sys, tianji_cli.commands.report, tianji_cli.commands.runs;"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
