"""A reproduction of published results as its two files, without any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.helpers.bench.study_fakes import MACHINE, run_of, summary
from tianji_cli.bench.published.records import PublishedFiles, PublishedManifest, PublishedRun
from tianji_cli.bench.published.suite import (
    PublishedReturn,
    PublishedRow,
    PublishedSource,
    PublishedSuite,
)
from tianji_cli.bench.study.records import StudyCell
from tianji_cli.bench.study.run import plan_cells
from tianji_cli.git_state import GitState
from tianji_cli.storage.json_files import write_json

SOURCE = PublishedSource(
    name="CleanRL", figure="https://a.b/figure", settings="https://a.b/settings"
)
ROWS = {
    "many": PublishedRow(
        experiment="cartpole_ppo",
        published=PublishedReturn(mean=100.0, spread=5.0, runs=3),
        source=SOURCE,
        judge="training",
        differs=("Its <b> differs.",),
    ),
    "one": PublishedRow(
        experiment="acrobot_ppo",
        published=PublishedReturn(mean=-80.0, spread=10.0, runs=1, episodes=100),
        source=SOURCE,
        judge="evaluation",
        seeds=2,
    ),
}
SMALL = PublishedSuite(name="small", summary="Two rows <script>", seeds=3, rows=ROWS)


def manifest_of(
    suite: PublishedSuite = SMALL, bench_id: str = "published-1", machine_id: str = MACHINE.id
) -> PublishedManifest:
    return PublishedManifest(
        bench_id=bench_id,
        argv=["tianji", "bench", "small"],
        suite=suite,
        experiments={name: {"name": bench_id} for name in suite.rows},
        cells=plan_cells(suite.study),
        machine=msgspec.structs.replace(MACHINE, id=machine_id),
        git=GitState(commit="0123abc", dirty=False),
        started_at="2026-01-31T23:59:59+00:00",
    )


def judged_run(cell: StudyCell, mean: float, machine_id: str = MACHINE.id) -> PublishedRun:
    """A run whose episodes have this mean."""
    found = msgspec.structs.replace(summary(cell.seed, steps=None), stop_reason="env_steps")
    trained = run_of(cell, found)
    return PublishedRun(
        **{name: getattr(trained, name) for name in trained.__struct_fields__} | {
            "outcome": "ended",
            "judged": [mean - 1.0, mean + 1.0],
            "machine_id": machine_id,
            "manifest": {"git": {"commit": "0123abc4567890ff", "dirty": False}},
        }
    )  # fmt: skip


def make_runs(
    means: Mapping[str, Sequence[float]], suite: PublishedSuite = SMALL
) -> dict[StudyCell, PublishedRun]:
    """Runs by row, a mean return for each seed."""
    return {
        cell: judged_run(cell, means[cell.task][cell.seed])
        for cell in plan_cells(suite.study)
        if cell.seed < len(means.get(cell.task, ()))
    }


def write_published(
    root: Path, runs: Mapping[StudyCell, PublishedRun], manifest: PublishedManifest | None = None
) -> PublishedFiles:
    files = PublishedFiles(root)
    root.mkdir(parents=True)
    write_json(files.manifest, manifest or manifest_of(bench_id=root.name))
    for cell, run in runs.items():
        files.write_result(cell, run)
    return files
