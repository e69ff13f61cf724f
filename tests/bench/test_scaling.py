"""Scaling: suites, blocks, speed-up, efficiency, resumption, refusals; pure as far as it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.trace.records import Resources
from tests.helpers.bench.bench_requests import request_for
from tests.helpers.running import run_tianji
from tianji_cli.bench.compatibility import code_state
from tianji_cli.bench.kinds import SCALING, kind_of_suite, read_suite
from tianji_cli.bench.machine import this_machine
from tianji_cli.bench.scaling.compare import ScalingComparison, compare
from tianji_cli.bench.scaling.records import (
    ScalingCell,
    ScalingFigures,
    ScalingFiles,
    ScalingManifest,
    ScalingResult,
    make_cells,
)
from tianji_cli.bench.scaling.run_cell import command_of, run_cell, used_cores, versions_of
from tianji_cli.bench.scaling.suite import check_hosts, load_scaling_suite
from tianji_cli.commands.benchmarks.bench_scaling import KIND, report_scaling
from tianji_cli.commands.benchmarks.conduct import conduct
from tianji_cli.config.inventory import Inventory, load_inventory
from tianji_cli.git_state import GitState
from tianji_cli.output import Output
from tianji_cli.render.bench.figures_scaling import scaling_figure
from tianji_cli.storage.json_files import create_result_dir, write_json
from tianji_cli.storage.run_dir import RunPaths

SEEDS = [0, 1, 2]


def hosts_file(directory: Path, count: int) -> Path:
    path = directory / "hosts.yaml"
    path.write_text(f"version: 1\nhosts: {{'box[1-{count}]': {{address: 192.0.2.1}}}}\n")
    return path


def manifest_of(directory: Path, nodes: str = "[1, 8]") -> ScalingManifest:
    suite = load_scaling_suite("scaling", [f"nodes={nodes}", "budget_s=100"])
    return ScalingManifest(
        bench_id="b",
        argv=[],
        suite=suite,
        inventory=load_inventory(hosts_file(directory, 8)),
        seeds=SEEDS,
        cells=make_cells(suite, SEEDS),
        machine=this_machine(),
        git=GitState(commit=None, dirty=None),
        started_at="",
    )


def result(
    manifest: ScalingManifest, nodes: int, seed: int, rate: float, time_s: float | None
) -> ScalingResult:
    return ScalingResult(
        cell=ScalingCell(nodes=nodes, seed=seed),
        outcome="censored" if time_s is None else "reached",
        figures=ScalingFigures(collect_per_s=rate, time_to_threshold_s=time_s, used_cores=0.5),
        started_at="",
        busy_share=0.1 * nodes,
        machine_id=manifest.machine.id,
    )


def compared(manifest: ScalingManifest, times: dict[int, list[float | None]]) -> ScalingComparison:
    results = [
        result(manifest, nodes, seed, 100.0 * nodes * (0.98 if nodes > 1 else 1) + seed, time_s)
        for nodes, of_seeds in times.items()
        for seed, time_s in enumerate(of_seeds)
    ]
    return compare(manifest, {r.cell: r for r in results})


def test_the_shipped_suite_grows_to_eight_nodes_and_leaves_each_group_as_it_is():
    assert kind_of_suite(read_suite("scaling")) is SCALING
    suite = load_scaling_suite("scaling")
    assert suite.nodes == (1, 2, 4, 8)
    one, eight = suite.experiment_on(1, 3), suite.experiment_on(8, 3)
    assert (one.groups, one.actors, eight.groups, eight.actors) == (1, 1, 8, 8)
    assert (one.seed, one.stop.return_threshold) == (3, 475)
    assert one.stop.seconds == eight.stop.seconds == suite.budget_s
    same = {"groups": 1, "actors": 1}
    assert msgspec.structs.replace(eight, **same) == one, "the same hyperparameters for each group"


def test_speed_up_and_efficiency_are_paired_by_seed(tmp_path: Path):
    manifest = manifest_of(tmp_path)
    comparison = compared(manifest, {1: [80.0, 100.0, 90.0], 8: [40.0, 50.0, 45.0]})
    one, eight = comparison.rows
    assert one.speedup is None
    assert one.time_ratio is None
    assert eight.speedup is not None
    assert eight.speedup.estimate == pytest.approx(7.8, rel=0.01)
    assert eight.efficiency == pytest.approx(eight.speedup.estimate / 8)
    assert eight.time_ratio is not None
    assert eight.time_ratio.estimate == pytest.approx(2.0)
    assert (one.median_time_s, eight.median_time_s) == (90.0, 45.0)


def test_runs_that_miss_the_threshold_are_neither_dropped_nor_taken_for_reached(tmp_path: Path):
    manifest = manifest_of(tmp_path)
    _, eight = compared(manifest, {1: [80.0, None, 90.0], 8: [40.0, 50.0, 45.0]}).rows
    assert eight.time_ratio is not None
    assert eight.time_ratio.estimate == pytest.approx((80 + 100 + 90) / (40 + 50 + 45))
    one, eight = compared(manifest, {1: [None, None, 90.0], 8: [40.0, 50.0, 45.0]}).rows
    assert (one.num_reached, one.num_observed, one.median_time_s) == (1, 3, None)
    assert eight.time_ratio is None


def test_what_limits_the_figures_is_said(tmp_path: Path):
    comparison = compared(manifest_of(tmp_path), {1: [9.0] * 3, 8: [3.0] * 3})
    notes = " ".join(comparison.notes)
    assert "environment latency is emulated" in notes
    assert "at 8 nodes this machine was 80% busy" in notes
    assert "at 1 nodes" not in notes
    assert "3 seeds" in notes


def test_the_figure_shows_every_run_and_the_ideal(tmp_path: Path):
    comparison = compared(manifest_of(tmp_path), {1: [80.0, None, 90.0], 8: [40.0, 50.0, 45.0]})
    left, right = scaling_figure(comparison).axes
    assert "times as much" in left.get_title(loc="left")
    drawn = sorted(len(line.get_xdata()) for line in left.lines)
    assert drawn == [2, 2, 3, 3], "two curves, and a point for each run"
    assert sorted(len(line.get_xdata()) for line in right.lines) == [0, 0, 1, 2, 2, 3]
    (missed,) = [line for line in right.lines if len(line.get_xdata()) == 1]
    assert list(missed.get_ydata()) == [100.0], "at its budget"


def resources(host: str, process: str, *samples: tuple[float, float]) -> list[Resources]:
    return [
        Resources(
            t_s=t_s, host=host, process=process, pid=7, cpu_s=cpu_s, rss_bytes=1, num_threads=1
        )
        for t_s, cpu_s in samples
    ]


def test_cores_are_added_up_over_hosts_each_over_its_own_time():
    rows = resources("a", "actor-0", (0, 1.0), (5, 2.0), (10, 3.0))
    rows += resources("b", "actor-0", (2, 0.0), (4, 0.6))
    assert used_cores(rows) == pytest.approx(0.5)
    assert used_cores(rows[:1]) is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("nodes=[2, 1]", "does not grow"),
        ("nodes=[0, 1]", ">= 1"),
        ("experiment.stop.return_threshold=null", "threshold"),
        ("experiment.env.num_env=3", "unknown key 'num_env'"),
    ],
)
def test_a_suite_that_cannot_be_used_is_refused(setting: str, words: str):
    with pytest.raises(ConfigError, match=words):
        load_scaling_suite("scaling", [setting])


def test_fewer_hosts_than_nodes_are_refused_with_what_to_do(tmp_path: Path):
    suite, few = load_scaling_suite("scaling"), load_inventory(hosts_file(tmp_path, 4))
    assert isinstance(few, Inventory)
    with pytest.raises(
        ConfigError, match="8 nodes are asked for, but the inventory has 4"
    ) as error:
        check_hosts(suite, few)
    assert error.value.fix == "tianji lab up --hosts 8, or -s nodes=[1, 2, 4]"


def variables(cwd: Path) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIANJI_")}
    return {**environment, "NO_COLOR": "1", "HOME": str(cwd)}


def ask(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What starts nothing."""
    return run_tianji(cwd, "bench", *arguments, env=variables(cwd))


def bench(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", "bench", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env=variables(cwd),
    )


MIXED = """version: 1
defaults: {user: me, env: {A: 1}}
hosts:
  box[1-2]: {address: 192.0.2.1, key: ~/k, jump: "me@gate:22", ports: 29000, gpus: [0], cores: 3}
  far: {known_hosts: /k, port: 2222, pin: false, env: {B: x}, roles: {actor: 2}, python: /p}
  localhost: {workdir: /w, ports: 29500-29510, address: 127.0.0.2}
"""


def test_a_cell_is_run_on_the_hosts_of_the_manifest_whatever_the_file_says_by_now(tmp_path: Path):
    manifest, source = manifest_of(tmp_path, nodes="[1, 2]"), tmp_path / "mixed.yaml"
    source.write_text(MIXED)
    manifest = msgspec.structs.replace(manifest, inventory=load_inventory(source))
    source.write_text("version: 1\nhosts: {stranger: {address: 192.0.2.9}}\n")
    (root := tmp_path / "cell").mkdir()
    argv = command_of(manifest, root, ScalingCell(nodes=2, seed=0))
    assert (given := Path(argv[argv.index("up") + 1])).parent == root
    assert load_inventory(given).hosts == manifest.inventory.hosts
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--limit"] == ["box1", "box2"]


def resumed(root: Path) -> int:
    return conduct(KIND, request_for(root), Output(verbosity=-1), root)


def test_a_host_that_has_other_packages_by_now_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    manifest, paths = manifest_of(tmp_path), ScalingFiles(tmp_path / "b")
    create_result_dir(paths.manifest, msgspec.structs.replace(manifest, git=code_state()))
    runs: list[ScalingCell] = []

    def run(_: ScalingManifest, paths: ScalingFiles, cell: ScalingCell, *__: object):
        runs.append(cell)
        paths.cell(cell).mkdir(parents=True, exist_ok=True)
        versions = {"box1": {"torch": f"2.{len(runs) // 3}"}}
        done = result(manifest, cell.nodes, cell.seed, 100.0, 9.0)
        return msgspec.structs.replace(done, versions=versions)

    monkeypatch.setattr("tianji_cli.commands.benchmarks.bench_scaling.run_cell", run)
    with pytest.raises(ConfigError, match=r"box1: torch was 2.0, is 2.1"):
        resumed(paths.root)
    assert list(paths.read_results(manifest)) == manifest.cells[:2]
    with pytest.raises(ConfigError, match=r"box1: torch was 2.0, is 2.1"):
        resumed(paths.root)
    assert runs == [*manifest.cells[:3], manifest.cells[2]]


def test_versions_are_those_that_the_run_found_on_its_hosts(tmp_path: Path):
    run = RunPaths(tmp_path)
    assert versions_of(run) == {}
    hosts = {"box1": {"versions": {"torch": "2.13.0"}}, "box2": {"hostname": "x"}}
    write_json(run.manifest, {"hosts": hosts})
    assert versions_of(run) == {"box1": {"torch": "2.13.0"}}


@pytest.mark.processes
@pytest.mark.parametrize("summary", ['{"run_id": "cut', '{"schema_version": 99}', "[]"])
def test_a_summary_that_cannot_be_read_is_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summary: str
):
    manifest, paths = manifest_of(tmp_path), ScalingFiles(tmp_path / "b")
    cell = manifest.cells[0]
    place = paths.cell(cell) / "run" / "summary.json"
    program = f"import pathlib; p = pathlib.Path({str(place)!r}); p.parent.mkdir(); "
    command = [sys.executable, "-c", f"{program}p.write_text({summary!r})"]
    monkeypatch.setattr("tianji_cli.bench.scaling.run_cell.command_of", lambda *_: command)
    found = run_cell(manifest, paths, cell, lambda _: None)
    assert (found.outcome, found.exit_code, found.figures) == ("failed", 0, ScalingFigures())
    assert str(place) in found.detail


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path):
    hosts = str(hosts_file(tmp_path, 4))
    for arguments, words in (
        (("scaling", "--yes"), "no lab is running"),
        (("scaling", hosts, "--yes"), "the inventory has 4 hosts"),
        (("smoke", hosts, "--dry-run"), "takes no inventory"),
        (("scaling", hosts, "-s", "nodes=[1, 4]"), "standard input is not a terminal"),
        (("scaling", hosts, "--compare", "rllib", "--yes"), "not systems"),
        (("scaling", hosts, "--budget", "0", "--dry-run", "-s", "nodes=[1]"), "0 is not a time"),
    ):
        result = ask(tmp_path, *arguments)
        assert result.returncode == 2, result.stderr
        assert words in result.stderr
    planned = ask(tmp_path, "scaling", hosts, "-s", "nodes=[1, 4]", "--dry-run", "-v")
    assert planned.returncode == 0, planned.stderr
    assert "nodes-4-seed2" in planned.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.processes
def test_one_node_without_ssh_is_measured_reported_and_not_run_again(tmp_path: Path):
    """The whole way with what every machine has; the lab's tests take several hosts."""
    local = tmp_path / "here.yaml"
    local.write_text("version: 1\nhosts: {localhost: {}}\n")
    quick = ("-s", "nodes=[1]", "-s", "experiment.stop.return_threshold=15", "--seeds", "2")
    fast = ("-s", "experiment.env.step_latency_ms=1", "--budget", "30")
    first = bench(tmp_path, "--json", "scaling", str(local), *quick, *fast, "--name", "b", "--yes")
    assert first.returncode == 0, first.stderr
    (row,) = json.loads(first.stdout)["rows"]
    assert (row["num_reached"], row["num_failed"]) == (2, 0)
    assert row["throughput"]["estimate"] > 100
    root = tmp_path / "results" / "b"
    assert (root / "plots" / "scaling.png").stat().st_size > 5000
    assert list((root / "cells" / "nodes-1-seed0" / "run" / "trace").glob("*.jsonl"))
    (root / "cells" / "nodes-1-seed1" / "cell.json").unlink()
    kept = (root / "cells" / "nodes-1-seed0" / "cell.json").stat().st_mtime_ns
    again = bench(tmp_path, "--resume", "b", "--yes", "--strict")
    assert again.returncode == 0, again.stderr
    assert "1 run," in again.stderr
    assert (root / "cells" / "nodes-1-seed0" / "cell.json").stat().st_mtime_ns == kept
    shown = subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", "report", "b"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "efficiency" in shown.stdout


def write(files: ScalingFiles, manifest: ScalingManifest, results: list[ScalingResult]) -> None:
    files.keep_at(files, manifest, {one.cell: one for one in results})


def test_a_kept_copy_is_reported_as_the_original_was(tmp_path: Path):
    manifest, paths = manifest_of(tmp_path), ScalingFiles(tmp_path / "b")
    results = [result(manifest, n, seed, 100.0 * n, 9.0) for n in (1, 8) for seed in SEEDS]
    write(paths, manifest, results)
    first = report_scaling(paths.root, tmp_path / "kept", Output(verbosity=-1))
    assert len(list((tmp_path / "kept" / "cells").glob("*/cell.json"))) == 6
    assert report_scaling(tmp_path / "kept", None, Output(verbosity=-1)) == first


def test_a_kept_copy_is_renewed_but_never_mixed_with_another(tmp_path: Path):
    manifest, kept = manifest_of(tmp_path), tmp_path / "kept"
    results = [result(manifest, n, seed, 100.0 * n, 9.0) for n in (1, 8) for seed in SEEDS]
    write(ScalingFiles(tmp_path / "b"), manifest, results[:2])
    report_scaling(tmp_path / "b", kept, Output(verbosity=-1))
    write(ScalingFiles(tmp_path / "b"), manifest, results)
    report_scaling(tmp_path / "b", kept, Output(verbosity=-1))
    assert len(list((kept / "cells").glob("*/cell.json"))) == 6
    other = msgspec.structs.replace(manifest, bench_id="other")
    write(ScalingFiles(tmp_path / "other"), other, results[:1])
    before = (kept / "comparison.json").read_bytes()
    with pytest.raises(ConfigError, match="kept there and is not overwritten"):
        report_scaling(tmp_path / "other", kept, Output(verbosity=-1))
    assert (kept / "comparison.json").read_bytes() == before
    assert ScalingFiles(kept).read_manifest().bench_id == manifest.bench_id
