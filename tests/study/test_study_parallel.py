"""Runs of a study side by side: at different places, and what is then compared."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError, HostUnreachableError
from tests.helpers.bench.bench_requests import request_for
from tests.helpers.bench.study_fakes import make_runs, manifest_of, run_of, summary
from tianji_cli.bench.campaign import Campaign, run_open_cells
from tianji_cli.bench.places import RunPlace, places_of
from tianji_cli.bench.study import crew as crew_module
from tianji_cli.bench.study.comparability import hardware_of, why_no_times
from tianji_cli.bench.study.compare import compare_study
from tianji_cli.bench.study.crew import StudyCrew
from tianji_cli.bench.study.records import StudyCell, StudyFiles, StudyRun
from tianji_cli.bench.study.run import StudyCampaign, Turn, command_of
from tianji_cli.commands.benchmarks.bench import bench_command
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.commands.benchmarks.study import KIND
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.output import Output
from tianji_cli.render.bench.figures_study import make_comparison, make_returns
from tianji_cli.render.bench.study_text import ratio_lines, result_rows
from tianji_cli.storage.json_files import create_result_dir

QUIET = Output(verbosity=-1)
THREE = {"a": [100, 200, 300], "b": [110, 240, 390]}
WAIT_S = 20.0


def host(name: str) -> Host:
    return Host(name=name, connection="ssh", ssh_host=name, address="", ports=(29500, 29600))


HOSTS = Inventory(source="hosts.yaml", hosts=tuple(host(f"box{n}") for n in range(1, 4)))


def facts(model: str) -> dict[str, object]:
    return {"hosts": {"box1": {"cpu_model": model, "num_cores": 8, "gpus": []}}}


def changed(runs: Mapping[StudyCell, StudyRun], **changes: object) -> dict[StudyCell, StudyRun]:
    """The first run of task `two` is another."""
    cell = next(cell for cell in runs if cell.task == "two")
    return {**runs, cell: msgspec.structs.replace(runs[cell], **changes)}


def test_runs_that_shared_cores_are_compared_by_returns_and_steps_alone():
    runs = changed(make_runs(THREE), num_beside=1)
    found = compare_study(manifest_of(), runs)
    two, one = found.tasks
    assert two.times_not_compared == "1 of 6 runs shared the cores with other runs"
    assert two.horizon_s is None
    for item in two.variants:
        assert item.consume_per_s is None
        assert item.time_to_threshold_s is None
        assert item.mean_return_over_time is None
        assert item.final_return is not None
        assert item.mean_return is not None
        assert item.steps_to_threshold is not None
    assert set(two.variants[1].ratios) == {"steps_to_threshold"}
    assert set(two.variants[1].differences) == {"final_return", "mean_return"}
    assert one.times_not_compared is None, "another task is not concerned"
    assert one.variants[0].time_to_threshold_s is not None
    assert any("two: times and rates are not compared" in line for line in found.warnings)
    row = next(row for row in result_rows(found) if row[:2] == ("two", "a"))
    assert row.count("not compared") == 3
    assert "throughput" not in "\n".join(ratio_lines(found))


def test_figures_of_times_are_not_drawn_where_they_are_not_compared():
    runs = changed(make_runs(THREE), num_beside=1)
    task = compare_study(manifest_of(), runs).tasks[0]
    figure = make_comparison(task, runs)
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["env steps to 475"]
    returns = make_returns(task, runs)
    assert returns is not None
    assert "return over time" not in [axes.get_ylabel() for axes in returns.axes]
    unreached = changed(make_runs({"a": [None] * 3, "b": [None] * 3}), num_beside=1)
    assert make_comparison(compare_study(manifest_of(), unreached).tasks[0], unreached) is None


def test_runs_on_different_hardware_are_compared_by_returns_alone():
    runs = [run for cell, run in make_runs(THREE).items() if cell.task == "two"]
    same = [msgspec.structs.replace(run, manifest=facts("EPYC")) for run in runs]
    assert why_no_times(same) is None
    mixed = [msgspec.structs.replace(same[0], manifest=facts("Xeon")), *same[1:]]
    reason = why_no_times(mixed)
    assert reason is not None
    assert "different kinds of hosts: Xeon, 8 cores; EPYC, 8 cores" in reason
    assert why_no_times([*same, msgspec.structs.replace(same[0], manifest={})]) is None
    for damaged in ({"hosts": 3}, {"hosts": {"a": 3}}, {}):
        hardware_of(msgspec.structs.replace(same[0], manifest=damaged))


def test_returns_are_compared_with_the_baseline_over_the_same_seeds():
    runs = make_runs(THREE)
    for cell, run in runs.items():
        assert run.summary is not None
        value = {"a": 100.0, "b": 80.0}.get(cell.variant, 1.0) + 10 * cell.seed
        found = msgspec.structs.replace(run.summary, return_mean=value)
        runs[cell] = msgspec.structs.replace(run, summary=found)
    comparison = compare_study(manifest_of(), runs)
    a, b = comparison.tasks[0].variants
    assert a.differences == {}
    found = b.differences["final_return"]
    assert (found.estimate, found.low, found.high) == (-20, -20, -20)
    assert b.mean_return_over_time is not None
    assert any(
        line.startswith("two: the final return of b is lower by 20.0 [-20.0–-20.0] than that of a")
        for line in ratio_lines(comparison)
    )


def campaign(root: Path, num_hosts: int = 0) -> StudyCampaign:
    inventory = msgspec.structs.replace(HOSTS, hosts=HOSTS.hosts[:num_hosts])
    manifest = msgspec.structs.replace(manifest_of(), inventory=inventory if num_hosts else None)
    root.mkdir()
    return Campaign(StudyFiles(root), manifest, manifest.cells)


def crew_of(
    work: StudyCampaign, places: list[RunPlace], said: list[str] | None = None
) -> StudyCrew:
    heard = [] if said is None else said
    return StudyCrew(work, places, None, lambda _: None, heard.append)


def finished_run(cell: StudyCell, turn: Turn) -> StudyRun:
    run = run_of(cell, summary(cell.seed, steps=100))
    return msgspec.structs.replace(run, hosts=[host.name for host in turn.place.hosts])


def test_each_run_knows_where_it_was_and_who_was_beside(tmp_path, monkeypatch):
    work = campaign(tmp_path / "s", num_hosts=3)
    together = threading.Barrier(3, timeout=WAIT_S)
    rounds = iter(range(100))

    def run(_: object, cell: StudyCell, turn: Turn) -> StudyRun:
        if next(rounds) < 3:
            together.wait()
        return finished_run(cell, turn)

    monkeypatch.setattr(crew_module, "run_cell", run)
    crew = crew_of(work, places_of(work.manifest.inventory))
    results = run_open_cells(work, crew)
    assert set(results) == set(work.manifest.cells)
    assert {tuple(run.hosts) for run in results.values()} == {("box1",), ("box2",), ("box3",)}
    assert {run.num_beside for run in results.values()} == {0}
    assert list(work.files.read_results(work.manifest)) == work.manifest.cells, "in block order"


def test_runs_that_share_this_machine_say_so(tmp_path, monkeypatch):
    work = campaign(tmp_path / "s")
    together = threading.Barrier(2, timeout=WAIT_S)
    rounds = iter(range(100))

    def run(_: object, cell: StudyCell, turn: Turn) -> StudyRun:
        if next(rounds) < 2:
            together.wait()
        return finished_run(cell, turn)

    monkeypatch.setattr(crew_module, "run_cell", run)
    results = run_open_cells(work, crew_of(work, places_of(None, parallel=2)))
    assert [results[cell].num_beside for cell in work.manifest.cells[:2]] == [1, 1]


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    work = campaign(tmp_path / "s", num_hosts=2)

    def run(_: object, cell: StudyCell, turn: Turn) -> StudyRun:
        status = "failed" if cell.variant == "a" else "ok"
        return run_of(cell, summary(cell.seed, steps=100, status=status))

    monkeypatch.setattr(crew_module, "run_cell", run)
    results = run_open_cells(work, crew_of(work, places_of(work.manifest.inventory)))
    assert len(results) == len(work.manifest.cells)
    assert {run.outcome for run in results.values()} == {"failed", "reached"}


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_run_moves_on_from_a_host_that_is_lost(parallel: int, tmp_path, monkeypatch):
    work = campaign(tmp_path / "s", num_hosts=3)
    tried: list[str] = []

    def run(_: object, cell: StudyCell, turn: Turn) -> StudyRun:
        tried.append(turn.place.name)
        if turn.place.name == "box2":
            raise HostUnreachableError("no answer", where="box2")
        return finished_run(cell, turn)

    monkeypatch.setattr(crew_module, "run_cell", run)
    said: list[str] = []
    places = places_of(work.manifest.inventory)
    places = places if parallel == 3 else [places[1], places[0]]
    results = run_open_cells(work, crew_of(work, places, said))
    assert len(results) == len(work.manifest.cells)
    assert tried.count("box2") == 1
    assert said == ["box2: no more runs there: no answer"]


def test_where_no_host_is_left_the_study_ends_and_can_be_resumed(tmp_path, monkeypatch):
    work = campaign(tmp_path / "s", num_hosts=2)

    def run(_: object, __: StudyCell, turn: Turn) -> StudyRun:
        raise HostUnreachableError("no answer", where=turn.place.name)

    monkeypatch.setattr(crew_module, "run_cell", run)
    with pytest.raises(HostUnreachableError, match="no host is left"):
        run_open_cells(work, crew_of(work, places_of(work.manifest.inventory)))
    assert work.files.read_results(work.manifest) == {}


def test_a_run_with_hosts_is_given_them_as_an_inventory():
    manifest, files = manifest_of(), StudyFiles(Path("s"))
    cell = manifest.cells[0]
    words = command_of(manifest, cell, files, has_inventory=True)
    assert words[:4] == ["-q", "up", f"s/runs/{cell.name}.inventory.json", "-x"]


def request(tmp_path: Path, **changes: object) -> BenchRequest:
    (tmp_path / "hosts.yaml").write_text(
        "version: 1\nhosts: {'box[1-3]': {address: 192.0.2.1, env: {TOKEN: abc}}}\n"
    )
    base = replace(
        request_for(tmp_path / "s", resume=False), suite="overlap", name="s", dry_run=True
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "10 runs, one after the other"),
        ({"parallel": "auto"}, "10 runs, one after the other"),
        ({"parallel": "2"}, "2 at a time"),
        ({"inventory": "hosts.yaml"}, "3 at a time"),
        ({"inventory": "hosts.yaml", "parallel": "2"}, "2 at a time"),
        ({"inventory": "hosts.yaml", "settings": ("hosts_per_run=2",)}, "one after the other"),
        ({"settings": ("parallel=2",)}, "2 at a time"),
        ({"settings": ("parallel=2",), "parallel": "auto"}, "one after the other"),
    ],
)
def test_how_many_runs_go_on_at_once_is_said_before(changes, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = KIND.scheduled(
        KIND.plan(request(tmp_path, **changes), QUIET), request(tmp_path, **changes)
    )
    text = "\n".join(KIND.announce(work))
    assert words in text
    is_shared = words == "2 at a time" and "inventory" not in changes
    assert ("share cores, so their times will not be compared" in text) == is_shared


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "", "999", "Auto"])
def test_what_is_no_number_of_runs_is_refused(value: str, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        bench_command(request(tmp_path, parallel=value), QUIET)
    assert caught.value.where == "--parallel"
    assert "auto" in caught.value.fix


@pytest.mark.parametrize("suite", ["smoke", "scaling", "transport"])
def test_other_benchmarks_refuse_to_run_side_by_side(suite: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="one cell at a time") as caught:
        bench_command(request(tmp_path, suite=suite, parallel="2"), QUIET)
    assert caught.value.where == "--parallel"


def test_hosts_are_kept_without_the_values_of_their_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = request(tmp_path, inventory="hosts.yaml")
    work = KIND.plan(asked, QUIET)
    create_result_dir(work.files.manifest, work.manifest)
    text = work.files.manifest.read_text()
    assert "abc" not in text
    read = Campaign(work.files, work.files.read_manifest(), work.open_cells)
    again = KIND.renew(read).manifest.inventory
    assert again == work.manifest.inventory
    assert again is not None
    assert again.hosts[0].env == {"TOKEN": "abc"}
