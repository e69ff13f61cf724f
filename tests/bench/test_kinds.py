"""What holds for every kind of benchmark: suites, blocks, resuming, refusals, damaged files."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config.config_file import parse_yaml
from engine.errors import ConfigError
from engine.trace.summary import LagSummary, Summary
from tests.helpers.bench.bench_requests import request_for
from tianji_cli.bench.campaign import AnyFiles, Campaign, read_campaign
from tianji_cli.bench.cells import Result
from tianji_cli.bench.comparison.measure import Figures
from tianji_cli.bench.comparison.results import CellResult
from tianji_cli.bench.kinds import KINDS, find_suite, kind_of_suite, kinds_at, read_suite
from tianji_cli.bench.machine import Load
from tianji_cli.bench.published.records import PublishedRun
from tianji_cli.bench.scaling.records import ScalingFigures, ScalingResult
from tianji_cli.bench.study.records import StudyRun
from tianji_cli.bench.transport.records import Point, TransportResult
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.commands.benchmarks.conduct import AnyKind, conduct, implementation
from tianji_cli.commands.report import report_command
from tianji_cli.config.lookup import shipped
from tianji_cli.output import Output
from tianji_cli.storage.json_files import create_result_dir

QUIET = Output(verbosity=-1)
TWO_FIGURES = Path(__file__).parent / "recorded" / "published.yaml"
HOSTS = "version: 1\nhosts: {'box[1-2]': {address: 192.0.2.1}}\n"


def compared(cell: Any) -> CellResult:  # noqa: ANN401 - a cell of whatever kind
    figures = Figures(first_sample_s=1.0, time_to_threshold_s=5.0, trained_s=6.0, env_steps=9)
    return CellResult(cell=cell, outcome="reached", figures=figures, machine_id="")


def scaled(cell: Any) -> ScalingResult:  # noqa: ANN401
    figures = ScalingFigures(collect_per_s=100.0 * cell.nodes, time_to_threshold_s=5.0)
    return ScalingResult(cell=cell, outcome="reached", figures=figures, machine_id="")


def transmitted(cell: Any) -> TransportResult:  # noqa: ANN401
    points = [Point(size_bytes=1024, messages=10, seconds=1.0)]
    return TransportResult(cell=cell, outcome="ok", points=points, wall_s=1.0, machine_id="")


def studied(cell: Any) -> StudyRun:  # noqa: ANN401
    summary = Summary(
        run_id=cell.name, status="ok", stop_reason="return_threshold", algorithm="ppo",
        env_id="CartPole-v1", policy="tianji", seed=cell.seed, num_hosts=1, num_actors=2,
        num_groups=1, wall_s=1.0, env_steps_collected=10, env_steps_consumed=10,
        env_steps_dropped=0, env_steps_in_flight=0, samples_trained=10, collect_per_s=1.0,
        consume_per_s=1.0, trained_per_s=1.0, updates=1, weights_version=1,
        lag=LagSummary(min=0, mean=0.0, p95=0.0, max=0), balance=1.0, return_mean=480.0,
        episodes=1, threshold=475.0, reached=True, time_to_threshold_s=1.0,
        steps_to_threshold=10, restarts=0,
    )  # fmt: skip
    return StudyRun(cell=cell, outcome="reached", disagreements=0, summary=summary, machine_id="")


def reproduced(cell: Any) -> PublishedRun:  # noqa: ANN401
    run = studied(cell)
    known = {name: getattr(run, name) for name in run.__struct_fields__}
    return PublishedRun(**known, judged=[480.0])


@dataclass(frozen=True)
class Case:
    """A kind, and a small benchmark of it.

    Attributes:
        suite: One that comes with TianJi.
        settings: Laid over it.
        result: Of a cell, as if it had been run; the machine is filled in.
        block: The name of a cell's block.
    """

    name: str
    suite: str
    settings: tuple[str, ...]
    result: Callable[[Any], Result[Any]]
    block: str = "seed"

    @property
    def kind(self) -> AnyKind:
        return implementation(KINDS[self.name])


CASES = (
    Case("comparison", "smoke", (), compared),
    Case("scaling", "scaling", ("nodes=[1, 2]",), scaled),
    Case(
        "transport",
        "transport",
        ("methods=[tianji, limit, pyzmq-ipc]", "senders=[1]", "sizes_bytes=[1024]"),
        transmitted,
        "block",
    ),
    Case("study", "staleness", ("tasks.impala=null",), studied),
    Case("published", str(TWO_FIGURES), (), reproduced),
)
DAMAGED = (b"", b"{", b"[]", b'{"schema_version": 1}', b'{"cell": 1}', b"\xff", b"[" * 99)
every_kind = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def planned(case: Case, root: Path, seeds: int = 3) -> Campaign[AnyFiles, Any, Any]:
    (hosts := root.parent / "hosts.yaml").write_text(HOSTS)
    request = replace(
        request_for(root, resume=False),
        suite=case.suite,
        settings=case.settings,
        seeds=seeds,
        name=root.name,
        inventory=str(hosts) if case.name == "scaling" else None,
    )
    work: Campaign[AnyFiles, Any, Any] = case.kind.plan(request, QUIET)
    return work


def begun(case: Case, root: Path, num_finished: int = 0) -> Campaign[AnyFiles, Any, Any]:
    """On disk, with so many cells finished."""
    shutil.copytree(_first_begun(case, root.name, num_finished), root, dirs_exist_ok=True)
    return read_campaign(case.kind.files(root))


@cache
def _first_begun(case: Case, name: str, num_finished: int) -> Path:
    """Planning takes longer than most tests of what was planned."""
    around = Path(tempfile.mkdtemp(prefix="tianji-kinds-"))
    atexit.register(shutil.rmtree, around)
    work = planned(case, around / name)
    create_result_dir(work.files.manifest, work.manifest)
    for cell in work.open_cells[:num_finished]:
        write(work, cell)
    return around / name


def write(work: Campaign[AnyFiles, Any, Any], cell: object, **changes: object) -> None:
    case = next(case for case in CASES if case.kind.files is type(work.files))
    work.files.cell(cell).mkdir(parents=True, exist_ok=True)
    facts = {"machine_id": work.manifest.machine.id, **changes}
    work.files.write_result(cell, msgspec.structs.replace(case.result(cell), **facts))


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_every_kind_has_a_case_and_an_implementation_whose_files_are_of_it():
    assert [case.name for case in sorted(CASES, key=lambda c: c.name)] == sorted(KINDS)
    for case in CASES:
        assert case.kind.files.kind is KINDS[case.name]


@pytest.mark.parametrize(
    "path",
    [*shipped("experiments").glob("bench/*.yaml"), *shipped("experiments").glob("*/study.yaml")],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_suite_that_comes_with_tianji_says_its_kind(path: Path):
    assert read_suite(str(path)).data["kind"] in KINDS


@every_kind
def test_a_suite_file_from_before_the_key_is_read_as_what_it_is(case: Case, tmp_path: Path):
    text = find_suite(case.suite).read_text()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("kind:"))
    assert without != text
    found = kind_of_suite(parse_yaml(without, source="old.yaml"))
    assert found.name == ("comparison" if case.name == "study" else case.name)


def test_a_kind_that_there_is_not_is_refused_with_the_nearest_that_there_is():
    with pytest.raises(ConfigError, match="unknown kind of benchmark 'scalling'") as caught:
        kind_of_suite(parse_yaml("version: 1\nkind: scalling\n", source="mine.yaml"))
    assert caught.value.where == "mine.yaml:2: kind"
    assert caught.value.fix == "did you mean 'scaling'?"
    for kind in ("[1]", "null", "3"):
        with pytest.raises(ConfigError, match="unknown kind"):
            kind_of_suite(parse_yaml(f"kind: {kind}\n", source="mine.yaml"))


@every_kind
def test_what_is_at_a_place_is_known_by_its_document(case: Case, tmp_path: Path):
    assert list(kinds_at(tmp_path)) == []
    begun(case, tmp_path / "b")
    assert [kind.name for kind in kinds_at(tmp_path / "b")] == [case.name]


@every_kind
def test_blocks_hold_every_side_once_in_an_order_that_can_be_repeated(case: Case, tmp_path: Path):
    work, again = (planned(case, tmp_path / "b", seeds=6) for _ in range(2))
    assert list(work.open_cells) == work.manifest.cells == again.manifest.cells
    blocks: dict[int, list[dict[str, Any]]] = {}
    for cell in work.manifest.cells:
        side = msgspec.structs.asdict(cell)
        blocks.setdefault(side.pop(case.block), []).append(side)
    assert list(blocks) == list(range(6)), "one block after the other"
    orders = [tuple(str(side) for side in block) for block in blocks.values()]
    assert len({tuple(sorted(order)) for order in orders}) == 1, "the same sides in each"
    assert len(set(orders[0])) == len(orders[0]) > 1, "each once"
    if case.name != "published":  # its rows are not compared with each other
        assert len(set(orders)) > 1, "not always in the same order"


@every_kind
def test_what_is_written_is_read_again(case: Case, tmp_path: Path):
    work = begun(case, tmp_path / "b", num_finished=2)
    planned_manifest = work.files.read_manifest()
    assert planned_manifest == work.manifest
    results = work.files.read_results(work.manifest)
    assert list(results) == work.manifest.cells[:2]
    assert all(result.cell == cell for cell, result in results.items())


@every_kind
def test_finished_cells_are_not_run_again(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work = begun(case, tmp_path / "b", num_finished=2)
    assert list(work.open_cells) == work.manifest.cells[2:]
    assert work.num_done == 2
    ran = []

    def runner(work: Campaign[AnyFiles, Any, Any], display: object, held: ExitStack) -> object:
        def run(cell: object) -> object:
            ran.append(cell)
            work.files.cell(cell).mkdir(parents=True, exist_ok=True)
            if len(ran) == 2:
                raise KeyboardInterrupt
            done = case.result(cell)
            return msgspec.structs.replace(done, machine_id=work.manifest.machine.id)

        return run

    kind = case.kind
    monkeypatch.setattr(kind, "runner", runner)
    monkeypatch.setattr(kind, "renew", lambda work: work)
    monkeypatch.setattr(kind, "report", lambda *_: True)
    assert conduct(kind, request_for(tmp_path / "b"), QUIET, tmp_path / "b") == 130
    assert ran == work.manifest.cells[2:4]
    assert list(read_campaign(work.files).open_cells) == work.manifest.cells[3:]
    assert conduct(kind, request_for(tmp_path / "b"), QUIET, tmp_path / "b") == 0
    assert ran == [*work.manifest.cells[2:4], *work.manifest.cells[3:]]
    assert read_campaign(work.files).open_cells == []


@every_kind
def test_results_of_another_machine_are_refused(case: Case, tmp_path: Path):
    work = begun(case, tmp_path / "b", num_finished=1)
    write(work, work.manifest.cells[1], machine_id="other")
    with pytest.raises(ConfigError, match="run on machine other, it was begun on") as caught:
        read_campaign(work.files)
    assert "cannot be compared" in caught.value.fix


@every_kind
def test_one_that_was_begun_elsewhere_or_by_other_code_may_not_go_on(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work = begun(case, tmp_path / "b")
    builtins = msgspec.to_builtins(work.manifest)
    request: BenchRequest = replace(request_for(tmp_path / "b"), trusts=True)
    for changes, words in (
        ({"machine": builtins["machine"] | {"id": "other"}}, "begun on machine other"),
        ({"git": {"commit": "0123456789abcdef", "dirty": False}}, "begun by commit 0123456789ab"),
        ({"versions": builtins["versions"] | {"torch": "1.0"}}, r"here: torch was 1\.0, is"),
    ):
        work.files.manifest.write_text(json.dumps(builtins | changes))
        with pytest.raises(ConfigError, match=words):
            conduct(case.kind, request, QUIET, tmp_path / "b")


@every_kind
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff", b"[" * 99]
)
def test_a_damaged_document_is_one_error_that_names_it(case: Case, tmp_path: Path, content: bytes):
    work = begun(case, tmp_path / "b")
    work.files.manifest.write_bytes(content)
    with pytest.raises(ConfigError, match=f"not a file of {work.files.kind.title}") as caught:
        read_campaign(work.files)
    assert caught.value.where == str(work.files.manifest)


@every_kind
@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_result_is_one_error_that_names_it(case: Case, tmp_path: Path, content: bytes):
    work = begun(case, tmp_path / "b", num_finished=1)
    file = work.files.root / work.files.kind.journal
    file = file if work.files.kind.journal else work.files.result(work.manifest.cells[0])
    file.write_bytes(content + b"\n")
    with pytest.raises(ConfigError, match=f"not a file of {work.files.kind.title}") as caught:
        read_campaign(work.files)
    assert caught.value.where.startswith(str(file))


@every_kind
def test_one_of_a_newer_program_is_refused(case: Case, tmp_path: Path):
    work = begun(case, tmp_path / "b")
    rewrite(work.files.manifest, schema_version=9)
    with pytest.raises(ConfigError, match="schema_version 9 is newer"):
        read_campaign(work.files)


@every_kind
def test_a_document_without_what_was_added_since_is_read(case: Case, tmp_path: Path):
    work = begun(case, tmp_path / "b")
    document = json.loads(work.files.manifest.read_bytes())
    del document["versions"]
    del document["study" if case.name == "study" else "suite"]["kind"]
    work.files.manifest.write_text(json.dumps(document))
    assert work.files.read_manifest() == msgspec.structs.replace(work.manifest, versions={})


@every_kind
def test_where_nothing_is_finished_there_is_nothing_to_report(case: Case, tmp_path: Path):
    begun(case, tmp_path / "b")
    with pytest.raises(ConfigError, match="nothing to report"):
        report_command(["b"], tmp_path, None, QUIET)


@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
@pytest.mark.usefixtures("without_drawing")
def test_a_kept_copy_makes_the_same_figures(case: Case, tmp_path: Path):
    """Comparisons are kept with their traces: test_bench_archive.py."""
    work = begun(case, tmp_path / "b")
    for cell in work.manifest.cells:
        write(work, cell, load=Load(average_1min=0.0, busy_cores=1.0))
    report_command(["b"], tmp_path, tmp_path / "kept", QUIET)
    kept = (tmp_path / "kept" / "comparison.json").read_bytes()
    for name in ("b", "kept"):
        report_command([name], tmp_path, None, QUIET)
        assert (tmp_path / name / "comparison.json").read_bytes() == kept


@every_kind
def test_two_that_cannot_share_a_report_are_refused(case: Case, tmp_path: Path):
    work = begun(case, tmp_path / "b", num_finished=1)
    write(work, work.manifest.cells[0])
    words = "cannot share" if case.kind.can_merge else "a report of its own"
    with pytest.raises(ConfigError, match=words):
        report_command(["b", "nothing"], tmp_path, None, QUIET)
