"""From the results of all runs to speed-up and efficiency. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from engine.wording import plural
from tianji_cli.bench.cells import SCHEMA_VERSION
from tianji_cli.bench.scaling.records import ScalingCell, ScalingManifest, ScalingResult
from tianji_cli.bench.statistics import (
    FEW_BLOCKS,
    Interval,
    bootstrap_iqm,
    median,
    paired_ratio,
    restricted_ratio,
)

MAX_BUSY_SHARE = 0.6
"""Busier machines say something of their cores, too, and not of the system alone."""


class ScalingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One number of nodes against the first one, paired by seed."""

    nodes: int
    num_reached: int
    num_observed: int
    num_failed: int
    throughput: Interval | None
    """Env steps/s over all nodes: interquartile mean over seeds."""
    throughput_values: list[float]
    speedup: Interval | None
    """Throughput over that of the first number of nodes; null for it."""
    efficiency: float | None
    """The same, over the ratio of nodes."""
    time_values_s: list[float | None]
    """By seed; null where the threshold was not reached."""
    median_time_s: float | None
    """Null: not reached by half of the runs."""
    time_ratio: Interval | None
    """How many times sooner the threshold is reached than on the first number of nodes."""
    used_cores: float | None
    used_cores_apart: float | None
    busy_share: float | None
    """The busiest run's."""


class ScalingComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`comparison.json`."""

    schema_version: int = SCHEMA_VERSION
    bench_id: str
    suite: str
    threshold: float
    budget_s: float
    num_seeds: int
    num_cores: int
    step_latency_ms: float
    rows: list[ScalingRow]
    notes: list[str]


def compare(
    manifest: ScalingManifest, results: Mapping[ScalingCell, ScalingResult]
) -> ScalingComparison:
    """Computes all figures of the report."""
    suite = manifest.suite
    by_nodes = {
        nodes: {c.seed: r for c, r in results.items() if c.nodes == nodes} for nodes in suite.nodes
    }
    first = by_nodes[suite.nodes[0]]
    rows = [
        _row(nodes, found, {} if nodes == suite.nodes[0] else first, manifest)
        for nodes, found in by_nodes.items()
    ]
    return ScalingComparison(
        bench_id=manifest.bench_id,
        suite=suite.name,
        threshold=suite.threshold,
        budget_s=suite.budget_s,
        num_seeds=len(manifest.seeds),
        num_cores=manifest.machine.num_cores,
        step_latency_ms=suite.experiment.env.step_latency_ms,
        rows=rows,
        notes=_notes(manifest, rows),
    )


def _row(
    nodes: int,
    found: Mapping[int, ScalingResult],
    first: Mapping[int, ScalingResult],
    manifest: ScalingManifest,
) -> ScalingRow:
    observed = {seed: r for seed, r in sorted(found.items()) if r.outcome != "failed"}
    rates = {s: r.figures.collect_per_s for s, r in observed.items() if r.figures.collect_per_s}
    times = [r.figures.time_to_threshold_s for r in observed.values()]
    reached = [t for t in times if t is not None]
    speedup = _speedup(rates, first)
    ratio = nodes / manifest.suite.nodes[0]
    return ScalingRow(
        nodes=nodes,
        num_reached=len(reached),
        num_observed=len(observed),
        num_failed=len(found) - len(observed),
        throughput=bootstrap_iqm(list(rates.values())) if rates else None,
        throughput_values=list(rates.values()),
        speedup=speedup,
        efficiency=speedup.estimate / ratio if speedup else None,
        time_values_s=times,
        median_time_s=median(math.inf if t is None else t for t in times),
        time_ratio=_time_ratio(observed, first, manifest.suite.budget_s),
        used_cores=_mean([r.figures.used_cores for r in observed.values()]),
        used_cores_apart=_mean([r.figures.used_cores_apart for r in observed.values()]),
        busy_share=max((r.busy_share for r in observed.values() if r.busy_share), default=None),
    )


def _speedup(rates: Mapping[int, float], first: Mapping[int, ScalingResult]) -> Interval | None:
    pairs = [
        (rate, base)
        for seed, rate in rates.items()
        if seed in first and (base := first[seed].figures.collect_per_s)
    ]
    return paired_ratio([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def _time_ratio(
    found: Mapping[int, ScalingResult], first: Mapping[int, ScalingResult], budget_s: float
) -> Interval | None:
    """First over this: paired if all have reached the threshold, else of restricted means.

    A run that has not counts as its budget. None if more than half of a side has not.
    """
    seeds = [s for s in found if s in first and first[s].outcome != "failed"]
    ours = [found[seed].figures.time_to_threshold_s for seed in seeds]
    theirs = [first[seed].figures.time_to_threshold_s for seed in seeds]
    if not seeds or any(2 * side.count(None) > len(side) for side in (ours, theirs)):
        return None
    if None not in ours and None not in theirs:
        return paired_ratio([t for t in theirs if t], [t for t in ours if t])
    clipped = [[budget_s if t is None else t for t in side] for side in (theirs, ours)]
    return restricted_ratio(clipped[0], clipped[1], budget_s)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _notes(manifest: ScalingManifest, rows: Sequence[ScalingRow]) -> list[str]:
    env, num_cores = manifest.suite.experiment.env, manifest.machine.num_cores
    notes = []
    if env.step_latency_ms:
        notes.append(
            "environment latency is emulated: each vector step of"
            f" {plural(env.num_envs, 'environment')} takes {env.step_latency_ms:g} ms more, in"
            " which no core is used; so the hosts are limited by how the system overlaps their"
            " waiting, not by their cores"
        )
    notes.append(f"controller: a machine of {plural(num_cores, 'core')}, which lab hosts share")
    for row in rows:
        if row.busy_share is not None and row.busy_share > MAX_BUSY_SHARE:
            notes.append(
                f"at {plural(row.nodes, 'node')} this machine was {row.busy_share:.0%} busy (the"
                f" run itself used {_cores(row.used_cores)} cores): part of that figure is the"
                " machine's"
            )
        if row.num_failed:
            notes.append(f"at {plural(row.nodes, 'node')} {row.num_failed} failed; see cell.json")
    if len(manifest.seeds) < FEW_BLOCKS:
        notes.append(f"{plural(len(manifest.seeds), 'seed')}: the 95% intervals are too narrow")
    return notes


def _cores(value: float | None) -> str:
    return "an unknown number of" if value is None else f"{value:.2f}"
