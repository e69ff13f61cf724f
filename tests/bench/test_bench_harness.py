"""The harness with fake systems that are real processes: whatever they do, the bench goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from engine.envs.extras import install_command
from engine.errors import ConfigError, PreflightError
from engine.trace.records import Episode
from engine.trace.writer import TraceWriter
from tests.helpers.bench.bench_fakes import FakeSystem, make_suite, make_task
from tianji_cli.bench.campaign import run_open_cells
from tianji_cli.bench.comparison import run_cell as run_cell_module
from tianji_cli.bench.comparison.harness import (
    Bench,
    CellRunner,
    check_games,
    find_systems,
    new_bench,
    read_bench,
)
from tianji_cli.bench.comparison.results import BenchFiles, Cell, CellResult
from tianji_cli.bench.process_tree import LeftFile, ProcessTree, remove_left
from tianji_cli.bench.systems.base import Command, Installed, SystemMissingError, SystemOptions
from tianji_cli.bench.tasks.suite import Task
from tianji_cli.bench.tasks.work import BenchEnv
from tianji_cli.storage.json_files import create_result_dir, write_json

pytestmark = pytest.mark.processes


def make_bench(root: Path, *systems: FakeSystem, seeds: int = 1, **limits: object) -> Bench:
    task = make_task([system.name for system in systems], **limits)
    installed = {system.name: system.prepare(SystemOptions(root)) for system in systems}
    bench = new_bench(make_suite(task, seeds), systems, installed, range(seeds), root)
    create_result_dir(bench.files.manifest, bench.manifest)
    return bench


def run(bench: Bench, *systems: FakeSystem) -> list[CellResult]:
    by_name = {system.name: system for system in systems}
    results = run_open_cells(bench, CellRunner(bench, by_name))
    return [results[cell] for cell in bench.open_cells]


def run_one(root: Path, behaviour: str, **limits: object) -> CellResult:
    system = FakeSystem("rllib", behaviour)
    (result,) = run(make_bench(root, system, **limits), system)
    return result


def members(root: Path) -> list[int]:
    """Processes of any cell below `root` that still run, whoever their parent is by now."""
    return [process.pid for process in psutil.process_iter() if _belongs_to(process, root)]


def _belongs_to(process: psutil.Process, root: Path) -> bool:
    try:
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.environ().get("TIANJI_BENCH_RAW", "").startswith(str(root))
    except (psutil.Error, OSError):
        return False


def test_a_good_system_is_stopped_at_the_threshold_and_measured(tmp_path):
    result = run_one(tmp_path / "b", "good", min_s=0.3, budget_s=10.0)
    assert result.outcome == "reached"
    assert result.exit_code == 0
    assert result.leftovers == []
    assert result.figures.env_steps > 200
    assert result.figures.time_to_threshold_s < 5
    assert result.figures.collect_per_s > 100
    assert result.stop_asked_s < result.ended_s
    assert not members(tmp_path)


def test_a_slow_system_is_censored_at_its_budget(tmp_path):
    result = run_one(tmp_path / "b", "slow")
    assert result.outcome == "censored"
    assert result.figures.time_to_threshold_s is None
    assert 0.8 <= result.figures.trained_s < 5


@pytest.mark.parametrize(
    ("behaviour", "outcome", "words"),
    [
        ("crash", "crashed", ["exit code -11", "the reason for it"]),
        ("garbage", "garbage", ["no record at all"]),
        ("stall", "hung", ["no new env step"]),
        ("silent", "hung", ["no first sample within"]),
        ("liar", "garbage", ["claims 1,000,000 env steps"]),
    ],
)
def test_what_goes_wrong_is_an_outcome_and_nothing_is_left(tmp_path, behaviour, outcome, words):
    limits = {"budget_s": 1.5 if behaviour == "liar" else 30.0, "threshold": 1e9}
    limits["start_s"] = 1.0 if behaviour == "silent" else 20.0
    result = run_one(tmp_path / "b", behaviour, **limits)
    assert result.outcome == outcome, result.detail
    for word in words:
        assert word in result.detail
    assert not members(tmp_path)


def test_a_system_that_will_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_cell_module, "GRACE_S", 0.5)
    result = run_one(tmp_path / "b", "deaf", budget_s=10.0)
    assert result.outcome == "reached"
    assert result.exit_code is None
    assert not members(tmp_path)


def test_what_a_system_leaves_behind_is_ended_and_reported(tmp_path):
    result = run_one(tmp_path / "b", "orphan", budget_s=10.0)
    assert result.outcome == "reached"
    (left,) = result.leftovers
    assert left.listening[0].startswith("127.0.0.1:")
    assert not members(tmp_path)


def test_shared_memory_that_a_system_leaves_is_removed_and_reported(tmp_path):
    result = run_one(tmp_path / "b", "litter", budget_s=10.0)
    assert result.outcome == "reached"
    assert [left.size_bytes for left in result.left_files] == [1000]
    assert not (Path("/dev/shm") / result.left_files[0].name).exists()


def test_memory_of_a_system_that_is_ended_by_force_is_counted_once(tmp_path):
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    )
    output = tmp_path / "out"
    tree = ProcessTree(
        [sys.executable, "-c", f"{program}; time.sleep(60)"], os.environ, tmp_path, output
    )
    while not output.read_text():
        time.sleep(0.02)
    tree.look()
    grown_bytes = 1.5 * tree.peak_rss_bytes
    tree.end()
    assert tree.peak_rss_bytes < grown_bytes


def test_shared_memory_of_others_is_left_alone(tmp_path):
    now_s = time.time()
    names = ("torch_7_1_0", "torch_8_1_0", "torch_77_1_0", "torch_7_1_0.part", "sem.7")
    for name in names:
        (tmp_path / name).write_bytes(b"12345")
    births_s = {7: now_s, 8: now_s + 60}  # 8 is another process than the one that made its file
    assert remove_left(births_s, tmp_path) == [LeftFile(name="torch_7_1_0", size_bytes=5)]
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    assert remove_left(births_s, tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        ("crash", "crashed"),
        pytest.param("garbage", "garbage", marks=pytest.mark.slow),
        pytest.param("stall", "hung", marks=pytest.mark.slow),
    ],
)
def test_after_a_failure_the_bench_goes_on(tmp_path, behaviour, outcome):
    systems = FakeSystem("tianji", "good"), FakeSystem("rllib", behaviour)
    limits = {"threshold": 150.0, "budget_s": 20.0, "min_s": 1.0}
    results = run(make_bench(tmp_path / "b", *systems, seeds=2, **limits), *systems)
    by_system = {(r.cell.system, r.cell.seed): r.outcome for r in results}
    assert by_system == {
        ("tianji", 0): "reached",
        ("tianji", 1): "reached",
        ("rllib", 0): outcome,
        ("rllib", 1): outcome,
    }
    assert not members(tmp_path)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('made in 3 s'); print('and 4')", ["made in 3 s", "and 4"]),
        ("raise SystemExit('no room')", ["no room"]),
        ("raise SystemExit(3)", ["ended with code 3"]),
        ("import os; os.write(1, b'caf\\xe9\\n')", ["caf\ufffd"]),
    ],
)
def test_what_is_done_before_the_first_cell_is_done_once_and_told(tmp_path, program, said):
    class Rehearsing(FakeSystem):
        def rehearsal(self, job, scratch, installed):  # type: ignore[no-untyped-def]
            assert job.task_name == "t"
            return Command([installed.python, "-c", program])

    system = Rehearsing("rllib", "good")
    bench = make_bench(tmp_path / "b", system, seeds=2, threshold=150.0, budget_s=20.0, min_s=0.1)
    lines: list[str] = []
    results = run_open_cells(bench, CellRunner(bench, {"rllib": system}, say=lines.append))
    assert lines == [f"  fake, t: {line}" for line in said]
    assert {result.outcome for result in results.values()} == {"reached"}


def test_a_task_that_a_system_cannot_do_is_refused_or_said(tmp_path):
    fake = FakeSystem("rllib", "good")
    fake.drivers = {}
    systems = FakeSystem("tianji", "good"), fake
    found = {system.name: system.prepare(SystemOptions(tmp_path)) for system in systems}
    with pytest.raises(ConfigError, match="fake has no PPO") as caught:
        new_bench(make_suite(make_task(["tianji", "rllib"])), systems, found, [0], tmp_path / "b")
    assert caught.value.where == "tasks.t.peers.rllib"
    suite = make_suite(make_task(["tianji"]))
    assert new_bench(suite, systems, found, [0], tmp_path / "b").manifest.unable == {
        "t": {"rllib": "fake has no PPO"}
    }


def test_games_that_are_missing_here_are_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    check_games(make_suite(make_task()))
    with pytest.raises(PreflightError, match="needs the package minatar") as caught:
        check_games(make_suite(make_task(env=BenchEnv(id="MinAtar/Breakout-v1"))))
    assert caught.value.fix == install_command("minatar", "minatar")


def test_a_finished_cell_is_never_run_twice(tmp_path):
    system = FakeSystem("rllib", "good")
    bench = make_bench(tmp_path / "b", system, seeds=2, threshold=150.0)
    first, second = bench.manifest.cells
    run(replace(bench, open_cells=[first]), system)
    stamp = bench.files.files(first).result.stat().st_mtime_ns
    bench.files.files(second).root.mkdir(parents=True)
    (bench.files.files(second).root / "rest").write_text("of an interrupted attempt")
    again = read_bench(tmp_path / "b")
    assert again.open_cells == [second]
    run(again, system)
    assert bench.files.files(first).result.stat().st_mtime_ns == stamp
    assert not (bench.files.files(second).root / "rest").exists()
    assert read_bench(tmp_path / "b").open_cells == []


def test_ctrl_c_ends_the_system_and_leaves_the_cell_open(tmp_path):
    system = FakeSystem("rllib", "slow")
    bench = make_bench(tmp_path / "b", system, budget_s=60.0)
    seen = threading.Event()

    def interrupt() -> None:
        assert seen.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_open_cells(bench, CellRunner(bench, {"rllib": system}, lambda *_: seen.set()))
    thread.join()
    assert not members(tmp_path)
    assert read_bench(tmp_path / "b").open_cells == bench.manifest.cells


def test_a_cell_whose_traces_find_no_room_ends_the_bench_and_is_run_again(tmp_path, monkeypatch):
    class FullDisk(TraceWriter):
        def __init__(self, directory: Path) -> None:
            super().__init__(directory)
            self._files[Episode].close()
            self._files[Episode] = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115

    system = FakeSystem("rllib", "good")
    bench = make_bench(tmp_path / "b", system, min_s=0.1, budget_s=10.0)
    with monkeypatch.context() as patch:
        patch.setattr(run_cell_module, "TraceWriter", FullDisk)
        with pytest.raises(PreflightError, match=r"No space left.*--resume"):
            run(bench, system)
    again = read_bench(tmp_path / "b")
    assert again.open_cells == bench.manifest.cells
    (result,) = run(again, system)
    assert result.outcome == "reached"


def test_a_nearly_full_disk_is_not_trusted_with_a_cell(tmp_path, monkeypatch):
    paths = BenchFiles(tmp_path).files(Cell(task="t", system="rllib", seed=0))
    paths.trace.mkdir(parents=True)
    full = types.SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("engine.trace.writer.os.statvfs", lambda _: full)
    with pytest.raises(PreflightError, match=r"MiB are free"):
        run_cell_module.write_trace(paths, [])


def test_a_missing_system_is_an_error_or_missing_cells(tmp_path):
    class Missing(FakeSystem):
        def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
            raise SystemMissingError("it is not installed", fix="do this")

    system, said, suite = Missing("rllib", "good"), [], make_suite(make_task(["rllib"]))
    options = SystemOptions(tmp_path)
    with pytest.raises(SystemMissingError, match="do this"):
        find_systems([system], options, suite, skip_missing=False, say=said.append)
    found = find_systems([system], options, suite, skip_missing=True, say=said.append)
    assert found == {"rllib": None}
    assert "do this" in said[0]
    bench = new_bench(suite, [system], found, [0], tmp_path / "b")
    create_result_dir(bench.files.manifest, bench.manifest)
    (result,) = run(bench, system)
    assert result.outcome == "missing"


def test_a_benchmark_is_never_overwritten_and_never_mixes_machines(tmp_path):
    system = FakeSystem("rllib", "good")
    bench = make_bench(tmp_path / "b", system)
    with pytest.raises(ConfigError, match="not overwritten"):
        create_result_dir(bench.files.manifest, bench.manifest)
    run(bench, system)
    manifest = bench.files.read_manifest()
    elsewhere = msgspec.structs.replace(manifest.machine, id="other")
    write_json(bench.files.manifest, msgspec.structs.replace(manifest, machine=elsewhere))
    with pytest.raises(ConfigError, match="it was begun on other"):
        read_bench(tmp_path / "b")
