"""A study as its two files, without any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.trace.summary import LagSummary, Summary
from tianji_cli.bench.machine import Load, Machine
from tianji_cli.bench.study.records import (
    LearningCurve,
    StudyCell,
    StudyFiles,
    StudyManifest,
    StudyRun,
)
from tianji_cli.bench.study.run import outcome_of, plan_cells
from tianji_cli.bench.study.spec import Study, StudyTask
from tianji_cli.git_state import GitState
from tianji_cli.storage.json_files import write_json

MACHINE = Machine(
    id="m1", hostname="h", os="Linux", cpu_model="CPU <i>", num_cores=2, memory_bytes=2**33
)
SMALL = Study(
    name="small",
    summary="Two settings <script>",
    seeds=3,
    budget_s=10,
    tasks={
        "two": StudyTask(
            experiment="cartpole_ppo",
            variants={"a": {"staleness.max_lag": 0}, "b": {"staleness.max_lag": 4}},
            axis="lag bound",
            baseline="a",
        ),
        "one": StudyTask(experiment="acrobot_ppo", seeds=1),
    },
)


def summary(seed: int, *, steps: int | None, rate: float = 1000.0, status: str = "ok") -> Summary:
    """Of a run that reached 475 after so many env steps, or, with None, did not."""
    return Summary(
        run_id=f"run-{seed}",
        status=status,  # type: ignore[arg-type]
        error="actor-0 died" if status == "failed" else None,
        stop_reason="return_threshold",
        algorithm="ppo",
        env_id="CartPole-v1",
        policy="tianji",
        seed=seed,
        num_hosts=1,
        num_actors=2,
        num_groups=1,
        wall_s=12.5,
        env_steps_collected=1000,
        env_steps_consumed=900,
        env_steps_dropped=100,
        env_steps_in_flight=0,
        samples_trained=1800,
        collect_per_s=rate,
        consume_per_s=rate,
        trained_per_s=2 * rate,
        updates=10,
        weights_version=10,
        lag=LagSummary(min=0, mean=0.5, p95=1.0, max=seed + 1),
        balance=1.0,
        return_mean=480.0,
        episodes=100,
        threshold=475.0,
        reached=steps is not None,
        time_to_threshold_s=None if steps is None else steps / 1000,
        steps_to_threshold=steps,
        restarts=0,
    )


def run_of(cell: StudyCell, found: Summary, *, busy_cores: float = 0.0) -> StudyRun:
    outcome, detail = outcome_of(found)
    return StudyRun(
        cell=cell,
        outcome=outcome,
        detail=detail,
        disagreements=0,
        machine_id=MACHINE.id,
        load=Load(average_1min=0.1, busy_cores=busy_cores),
        summary=found,
        manifest={"run_id": cell.name},
        curve=LearningCurve(
            t_s=[1.0, 2.0], env_steps=[500, 1000], return_mean=[20.0 + cell.seed, 480.0]
        ),
    )


def manifest_of(study: Study = SMALL) -> StudyManifest:
    return StudyManifest(
        bench_id="study-1",
        argv=["tianji", "bench", "small"],
        suite=study,
        cells=plan_cells(study),
        machine=MACHINE,
        git=GitState(commit="0123abc", dirty=False),
        started_at="2026-01-31T23:59:59+00:00",
    )


def make_runs(
    steps: Mapping[str, Sequence[int | None]], study: Study = SMALL
) -> dict[StudyCell, StudyRun]:
    """Runs of task `two` by variant, a value for each seed, and those of the other task."""
    runs = {}
    for cell in plan_cells(study):
        values = steps.get(cell.variant, [50_000] * 10)
        rate = 1000.0 + 100 * cell.seed
        runs[cell] = run_of(cell, summary(cell.seed, steps=values[cell.seed], rate=rate))
    return runs


def write_study(root: Path, runs: Mapping[StudyCell, StudyRun], study: Study = SMALL) -> StudyFiles:
    paths = StudyFiles(root)
    root.mkdir(parents=True)
    write_json(paths.manifest, manifest_of(study))
    for run in runs.values():
        paths.write_result(run.cell, run)
    return paths
