"""A finished benchmark on disk, made without running anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from engine.trace.records import Staleness
from tests.helpers.bench.bench_fakes import FakeSystem, make_suite, make_task
from tianji_cli.bench.comparison.harness import new_bench
from tianji_cli.bench.comparison.measure import measure
from tianji_cli.bench.comparison.results import BenchFiles, Cell, CellResult
from tianji_cli.bench.comparison.run_cell import write_trace
from tianji_cli.bench.comparison.stop_rule import Outcome
from tianji_cli.bench.machine import Load
from tianji_cli.bench.process_tree import LeftFile, Leftover
from tianji_cli.bench.systems.base import Installed
from tianji_cli.bench.systems.convert import to_trace
from tianji_cli.bench.systems.raw import EpisodeEnd, Steps, TrainedTotals
from tianji_cli.storage.json_files import create_result_dir, write_json

HOSTILE = "<script>alert('x')</script>\nlast & words"
SYSTEMS = ("tianji", "rllib", "xingtian")
SPEEDS = {"tianji": 400, "rllib": 200, "xingtian": 100}


def write_bench(root: Path, seeds=(0, 1, 2), machine: str | None = None) -> Path:
    """Three systems, three blocks; XingTian misses the threshold, and fails in the last block."""
    systems = [FakeSystem(name, "") for name in SYSTEMS]
    installed = {name: Installed(python="python", versions={"fake": "1"}) for name in SYSTEMS}
    suite = make_suite(make_task(SYSTEMS, budget_s=40.0), len(seeds))
    bench = new_bench(suite, systems, installed, seeds, root)
    if machine is not None:
        elsewhere = msgspec.structs.replace(bench.manifest.machine, id=machine)
        manifest = msgspec.structs.replace(bench.manifest, machine=elsewhere)
        bench = replace(bench, manifest=manifest)
    create_result_dir(bench.files.manifest, bench.manifest)
    for cell in bench.manifest.cells:
        outcome: Outcome = "censored" if cell.system == "xingtian" else "reached"
        if cell.system == "xingtian" and cell.seed == max(seeds):
            outcome = "crashed"
        write_cell(bench.files, cell, outcome, bench.manifest.machine.id)
    return root


def write_cell(paths: BenchFiles, cell: Cell, outcome: Outcome, machine: str) -> None:
    place, task = paths.files(cell), make_task(SYSTEMS, budget_s=40.0)
    place.trace.mkdir(parents=True)
    place.output.write_text("said\n")
    speed = SPEEDS[cell.system] * (1 + 0.01 * cell.seed)
    records = []
    for second in range(40):
        t = 105.0 + second
        records.append(Steps(t=t, source="a", total=1 + int(speed * second)))
        value = min(300.0, speed * second / 20) if outcome == "reached" else 20.0
        records.append(EpisodeEnd(t=t, source="a", episode_return=value, length=100))
    records.append(TrainedTotals(t=107.0, env_steps=400, samples=3200, updates=16))
    rows = to_trace(records, 100.0)
    if cell.system == "tianji":
        rows.append(staleness())
    write_trace(place, rows)
    left = Leftover(pid=1, name="<b>", command="x", rss_bytes=10, listening=["0.0.0.0:1"])
    result = CellResult(
        cell=cell,
        outcome=outcome,
        detail=HOSTILE if outcome == "crashed" else "",
        figures=measure(rows, task, 44.0),
        started_at="2026-01-31T00:00:00+00:00",
        stop_asked_s=44.0,
        ended_s=46.0,
        leftovers=[left] if cell.system == "xingtian" else [],
        left_files=[LeftFile(name="torch_1_2_3", size_bytes=2**20)] * 3,
        load=Load(average_1min=0.1, busy_cores=0.1),
        machine_id=machine,
    )
    write_json(place.result, result)


def staleness() -> Staleness:
    return Staleness(
        t_s=10.0,
        learner=0,
        version=1,
        env_steps=400,
        lag_min=0,
        lag_mean=0.75,
        lag_p95=1.0,
        lag_max=1,
        steps_by_lag={0: 100, 1: 300},
        age_mean_s=0.1,
        age_max_s=0.2,
    )
