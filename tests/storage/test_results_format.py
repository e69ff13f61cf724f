"""`docs/results-format.md` names every file and field that exists, table by table."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from engine.control_protocol import HostFacts
from engine.export.agreement import Agreement
from engine.export.space_document import SpaceDocument
from engine.timing import SECTIONS
from engine.trace.records import RECORD_TYPES, Record, columns_of, table_of
from engine.trace.summary import LagSummary, Summary
from engine.trace.warm_start import TakenWeights, WarmStart
from tests.helpers.paths import REPOSITORY
from tianji_cli.analysis.profile import RoleProfile
from tianji_cli.analysis.runs import RunRow
from tianji_cli.analysis.settings import Differences, DifferingSetting, RunGroup
from tianji_cli.bench.statistics import Interval
from tianji_cli.commands.benchmarks.bench import InstalledDocument
from tianji_cli.commands.check import CheckDocument
from tianji_cli.commands.down import DownDocument, HostDown
from tianji_cli.commands.fetch import FetchDocument, HostFetched
from tianji_cli.commands.lab import LabDownDocument
from tianji_cli.commands.logs import LogsDocument, RoleLog
from tianji_cli.commands.outcome import DetachedDocument
from tianji_cli.commands.planning.plan import PlanDocument, PlannedChannel, PlannedWeights
from tianji_cli.commands.planning.simulate import ForecastDocument
from tianji_cli.commands.report_document import ReportDocument, RunReport, WrongFigure
from tianji_cli.commands.runs_delete import DeletedDocument, DeletedRun
from tianji_cli.commands.status import RoleStatus, StatusDocument
from tianji_cli.commands.submitted.submit import SubmittedDocument
from tianji_cli.commands.version import VersionDocument
from tianji_cli.commands.watching.tracked import TrackDocument, TrackedRun
from tianji_cli.commands.watching.watching import WatchDocument
from tianji_cli.evaluation.playing import PlayDocument
from tianji_cli.evaluation.records import (
    EpisodeRow,
    EvaluatedFiles,
    EvaluateDocument,
    EvaluatedRun,
    LengthStatistics,
    ReturnStatistics,
)
from tianji_cli.git_state import GitState
from tianji_cli.planning.placement import Placement
from tianji_cli.planning.resources import ProcessResources
from tianji_cli.provisioning.findings import Finding
from tianji_cli.render.export.documents import (
    EnvironmentDocument,
    ExportDocument,
    PolicyDocument,
    PortDocument,
    PrecisionDocument,
    TrainingDocument,
    VerifiedDocument,
)
from tianji_cli.runs.manifest import RunManifest
from tianji_cli.simulation.costs import Basis, Cost, Costs
from tianji_cli.simulation.forecast import Forecast, SizeForecast
from tianji_cli.simulation.limits import ResourceLoad
from tianji_cli.slurm.job_state import JobState
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.tracking.state import TrackerState

DOCUMENTS = [
    *(ReportDocument, Differences, DifferingSetting, RunGroup),
    *(RunReport, WrongFigure, RunRow, RoleProfile, DetachedDocument),
    *(WatchDocument, StatusDocument, RoleStatus, LogsDocument, RoleLog, DownDocument, HostDown),
    *(
        CheckDocument,
        Finding,
        PlanDocument,
        Placement,
        PlannedChannel,
        PlannedWeights,
        ForecastDocument,
        Forecast,
        SizeForecast,
        ResourceLoad,
        Costs,
        Basis,
        Cost,
        InstalledDocument,
    ),
    *(LabDownDocument, VersionDocument, FetchDocument, HostFetched),
    *(EvaluateDocument, EvaluatedFiles, PlayDocument, ExportDocument),
    *(DeletedDocument, DeletedRun),
    *(SubmittedDocument, JobState),
    *(TrackDocument, TrackedRun),
]
PAGE = REPOSITORY / "docs" / "results-format.md"


def section(heading: str) -> str:
    """The text under a heading, up to the next one of its own level or above."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"no section {heading!r}"
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def missing_fields(struct: type[msgspec.Struct], text: str) -> list[str]:
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    return [f.encode_name for f in msgspec.structs.fields(struct) if f.encode_name not in named]


@pytest.mark.parametrize("record_type", RECORD_TYPES, ids=table_of)
def test_every_field_of_every_table_is_documented(record_type: type[Record]):
    text = section(f"{table_of(record_type)}.jsonl")
    assert [name for name in missing_fields(record_type, text) if name != "t_s"] == []


def test_what_all_tables_share_is_documented():
    assert {"`table`", "`t_s`"} <= set(re.findall(r"`\w+`", section("trace/")))


@pytest.mark.parametrize("struct", [Summary, LagSummary])
def test_every_field_of_the_summary_is_documented(struct: type[msgspec.Struct]):
    assert missing_fields(struct, section("summary.json")) == []


@pytest.mark.parametrize(
    "struct", [RunManifest, GitState, HostFacts, ProcessResources, WarmStart, TakenWeights]
)
def test_every_field_of_the_manifest_is_documented(struct: type[msgspec.Struct]):
    assert missing_fields(struct, section("manifest.json")) == []


@pytest.mark.parametrize(
    "struct", [EvaluatedRun, EpisodeRow, ReturnStatistics, LengthStatistics, Interval]
)
def test_every_field_of_an_evaluation_is_documented(struct: type[msgspec.Struct]):
    assert missing_fields(struct, section("evaluations/, videos/")) == []


@pytest.mark.parametrize(
    "struct",
    [
        *(PolicyDocument, PortDocument, SpaceDocument, EnvironmentDocument, TrainingDocument),
        *(PrecisionDocument, VerifiedDocument, Agreement),
    ],
)
def test_every_field_of_an_exported_policy_is_documented(struct: type[msgspec.Struct]):
    assert missing_fields(struct, section("exports/")) == []


@pytest.mark.parametrize("struct", DOCUMENTS)
def test_every_field_of_the_json_documents_is_documented(struct: type[msgspec.Struct]):
    assert missing_fields(struct, section("Documents on standard output")) == []


def test_every_field_of_a_trackers_state_is_documented():
    assert missing_fields(TrackerState, section("tracking/")) == []


def test_every_file_of_a_run_is_documented():
    paths = RunPaths(Path("run"))
    text = PAGE.read_text(encoding="utf-8")
    files = (paths.manifest, paths.summary, paths.trace, paths.logs, paths.report)
    for path in (*files, paths.initial_weights):
        assert path.name in text
    for path in (
        paths.checkpoints,
        paths.plots,
        paths.evaluations,
        paths.videos,
        paths.tracking,
        paths.exports,
    ):
        assert f"{path.name}/" in text


def test_the_page_names_no_field_in_a_table_that_does_not_exist():
    for record_type in RECORD_TYPES:
        rows = re.findall(r"^\| (`[^|]+`) \|", section(f"{table_of(record_type)}.jsonl"), re.M)
        named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert named <= {f.encode_name for f in msgspec.structs.fields(record_type)}


@pytest.mark.parametrize("record_type", RECORD_TYPES, ids=table_of)
def test_the_page_says_of_every_field_what_the_columns_of_its_frame_say(record_type: type[Record]):
    text = section(f"{table_of(record_type)}.jsonl")
    rows = re.findall(r"^\| (`[^|]+`) \| *([^|]*?) *\| (.*) \|$", text, re.M)
    page = {n: (unit, words) for names, unit, words in rows for n in re.findall(r"`(\w+)`", names)}
    columns = {name: tuple(doc) for name, doc in columns_of(record_type).items()}
    assert columns.pop("t_s")[0] == "s"
    assert page == columns


def test_every_section_of_a_profile_is_explained():
    rows = re.findall(r"^\| `(\w+)` \|", section("The sections of a profile"), re.M)
    assert rows == list(SECTIONS)
