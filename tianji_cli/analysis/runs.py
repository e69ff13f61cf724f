"""The list of `tianji runs`: one row per run, from its manifest and summary alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from engine.errors import ConfigError
from engine.trace.reader import read_summary
from engine.trace.summary import Summary
from tianji_cli.analysis.run import ManifestView, read_manifest
from tianji_cli.storage.deployment import is_over, whereabouts
from tianji_cli.storage.run_dir import RunPaths, find_runs


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run, study or benchmark, finished or still running; `kind` says which.

    `status` is the summary's. Without one it is `detached` if the run was left alone and its
    results are not here, `failed` if it is over, else `unfinished`; `unreadable` with the reason in
    `problem` if a file is damaged. Everything else is None where nothing is known yet. Studies and
    benchmarks (`listing`) are `ok` when all their cells are finished, whatever came out.
    """

    run_id: str
    path: str
    status: str
    problem: str | None = None
    started_at: str | None = None
    algorithm: str | None = None
    env_id: str | None = None
    policy: str | None = None
    seed: int | None = None
    num_hosts: int | None = None
    num_actors: int | None = None
    wall_s: float | None = None
    env_steps_collected: int | None = None
    collect_per_s: float | None = None
    return_mean: float | None = None
    threshold: float | None = None
    reached: bool | None = None
    time_to_threshold_s: float | None = None
    kind: Literal["run", "study", "bench", "scaling", "transport", "published"] = "run"
    num_cells: int | None = None
    """Of a study or benchmark only."""
    num_cells_finished: int | None = None


def list_runs(results: Path) -> list[RunRow]:
    """All runs in a results directory, oldest first; empty if there is none.

    A run whose files are damaged is listed as `unreadable` and hides no other run.
    """
    return [row_of(paths) for paths in find_runs(results)]


def row_of(paths: RunPaths) -> RunRow:
    """The row of one run."""
    try:
        manifest = read_manifest(paths.manifest)
        summary = read_summary(paths.summary)
    except ConfigError as error:
        return RunRow(
            run_id=paths.run_id, path=str(paths.root), status="unreadable", problem=str(error)
        )
    if summary is None:
        return _unfinished(paths, manifest)
    return _finished(paths, manifest, summary)


def _unfinished(paths: RunPaths, manifest: ManifestView) -> RunRow:
    seed = manifest.number("experiment", "seed")
    away, over = whereabouts(paths.root), is_over(paths.root)
    return RunRow(
        run_id=paths.run_id,
        path=str(paths.root),
        status="detached" if away else "failed" if over else "unfinished",
        problem=away or ("it ended without a summary" if over else None),
        started_at=manifest.text("started_at") or None,
        algorithm=manifest.text("experiment", "algorithm", "name") or None,
        env_id=manifest.text("experiment", "env", "id") or None,
        policy=manifest.text("experiment", "policy") or None,
        seed=None if seed is None else int(seed),
        num_hosts=len(manifest.section("hosts")) or None,
        threshold=manifest.threshold,
    )


def _finished(paths: RunPaths, manifest: ManifestView, summary: Summary) -> RunRow:
    return RunRow(
        run_id=paths.run_id,
        path=str(paths.root),
        status=summary.status,
        problem=summary.error,
        started_at=manifest.text("started_at") or None,
        algorithm=summary.algorithm,
        env_id=summary.env_id,
        policy=summary.policy,
        seed=summary.seed,
        num_hosts=summary.num_hosts,
        num_actors=summary.num_actors,
        wall_s=summary.wall_s,
        env_steps_collected=summary.env_steps_collected,
        collect_per_s=summary.collect_per_s,
        return_mean=summary.return_mean,
        threshold=summary.threshold,
        reached=summary.reached,
        time_to_threshold_s=summary.time_to_threshold_s,
    )
