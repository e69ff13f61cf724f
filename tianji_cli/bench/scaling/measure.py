"""The figures of one run of a scaling benchmark, from its own files alone."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import ConfigError
from engine.trace.reader import read_summary, read_table
from engine.trace.records import Resources
from tianji_cli.analysis.run import read_manifest
from tianji_cli.bench.scaling.records import ScalingFigures
from tianji_cli.storage.run_dir import RunPaths

COMPUTING = ("actor-", "learner-")


def measure(run: RunPaths) -> ScalingFigures:
    """Reads summary and trace of a run that ended well.

    Raises:
        ConfigError: One is missing or damaged.
    """
    summary = read_summary(run.summary)
    if summary is None:
        raise ConfigError("it wrote no summary", where=str(run.root))
    resources = read_table(run.trace, Resources)
    apart = [row for row in resources if not row.process.startswith(COMPUTING)]
    return ScalingFigures(
        collect_per_s=summary.collect_per_s,
        time_to_threshold_s=summary.time_to_threshold_s,
        steps_to_threshold=summary.steps_to_threshold,
        return_mean=summary.return_mean,
        wall_s=summary.wall_s,
        lag_mean=summary.lag.mean,
        lag_max=summary.lag.max,
        used_cores=used_cores(resources),
        used_cores_apart=used_cores(apart),
    )


def versions_of(run: RunPaths) -> dict[str, dict[str, str]]:
    """By host, of the packages that it ran with; none if the run did not come so far."""
    try:
        manifest = read_manifest(run.manifest)
    except ConfigError:
        return {}
    return {
        host: {name: str(version) for name, version in found.items()}
        for host in manifest.section("hosts")
        if (found := manifest.section("hosts", host, "versions"))
    }


def used_cores(rows: Iterable[Resources]) -> float | None:
    """Processor seconds per second of all these processes, each between its own samples."""
    spans: dict[tuple[str, str, int], list[Resources]] = {}
    for row in rows:
        spans.setdefault((row.host, row.process, row.pid), []).append(row)
    total, is_known = 0.0, False
    for samples in spans.values():
        samples.sort(key=lambda row: row.t_s)
        duration_s = samples[-1].t_s - samples[0].t_s
        if duration_s > 0:
            is_known = True
            total += (samples[-1].cpu_s - samples[0].cpu_s) / duration_s
    return round(total, 3) if is_known else None
