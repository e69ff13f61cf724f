"""Rates, ratios to the limit and latencies from the points of all cells (pure functions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from engine.wording import plural
from tianji_cli.bench.cells import SCHEMA_VERSION
from tianji_cli.bench.machine import MAX_BUSY_CORES
from tianji_cli.bench.statistics import FEW_BLOCKS, Interval, bootstrap_iqm, paired_ratio
from tianji_cli.bench.transport.methods import LIMIT, METHODS, OWN, Place
from tianji_cli.bench.transport.records import TransportCell, TransportManifest, TransportResult

WIRE = "iperf3"


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """One method at one size.

    Attributes:
        bytes_per_s: Interquartile mean over blocks.
        values: By block.
        of_limit: Ratio, within blocks, to the limit: on one host both copies by two spinning
            processes, between hosts iperf3 with as many streams at the largest size that it has.
        ours: How many times as fast TianJi is, within blocks.
    """

    size_bytes: int
    bytes_per_s: Interval
    values: list[float]
    messages_per_s: float
    of_limit: Interval | None
    ours: Interval | None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of single messages, over all blocks."""

    size_bytes: int
    p50_s: float
    p95_s: float
    p99_s: float
    count: int


class TransportRow(msgspec.Struct, frozen=True, kw_only=True):
    """One method with one number of senders."""

    place: Place
    method: str
    title: str
    senders: int
    num_failed: int
    rates: list[Rate]
    latencies: list[Latency]


class TransportComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`comparison.json`."""

    schema_version: int = SCHEMA_VERSION
    bench_id: str
    suite: str
    sizes_bytes: list[int]
    num_blocks: int
    rows: list[TransportRow]
    missing: dict[str, str]
    notes: list[str]


Rates = dict[tuple[str, int, int], dict[int, float]]
"""By method, senders and size: by block, bytes per second."""


def compare(
    manifest: TransportManifest, results: Mapping[TransportCell, TransportResult]
) -> TransportComparison:
    """Computes all figures of the report."""
    places = sorted({cell.place for cell in manifest.cells}, reverse=True)
    rows = [row for place in places for row in _rows(place, manifest, results)]
    return TransportComparison(
        bench_id=manifest.bench_id,
        suite=manifest.suite.name,
        sizes_bytes=list(manifest.suite.sizes_bytes),
        num_blocks=manifest.num_blocks,
        rows=rows,
        missing=manifest.missing,
        notes=_notes(manifest, results, rows),
    )


def _rows(
    place: Place, manifest: TransportManifest, results: Mapping[TransportCell, TransportResult]
) -> list[TransportRow]:
    here = {cell: result for cell, result in results.items() if cell.place == place}
    rates: Rates = {}
    for cell, result in here.items():
        for point in result.points:
            by_block = rates.setdefault((cell.method, cell.senders, point.size_bytes), {})
            by_block[cell.block] = point.bytes_per_s
    kinds = {(cell.method, cell.senders) for cell in here}
    order = list(manifest.suite.methods)
    return [
        _row(place, method, senders, here, rates)
        for method, senders in sorted(kinds, key=lambda kind: (kind[1], order.index(kind[0])))
    ]


def _row(
    place: Place,
    method: str,
    senders: int,
    here: Mapping[TransportCell, TransportResult],
    rates: Rates,
) -> TransportRow:
    mine = [r for c, r in here.items() if (c.method, c.senders) == (method, senders)]
    sizes = sorted({point.size_bytes for result in mine for point in result.points})
    return TransportRow(
        place=place,
        method=method,
        title=METHODS[method].title,
        senders=senders,
        num_failed=sum(result.outcome == "failed" for result in mine),
        rates=[_rate(place, method, senders, size, rates) for size in sizes],
        latencies=[late for size in sizes if (late := _latency(size, mine)) is not None],
    )


def _rate(place: Place, method: str, senders: int, size: int, rates: Rates) -> Rate:
    values = rates[method, senders, size]
    ratio = _ratio(values, _limit(place, senders, size, rates))
    ours = _ratio(rates.get((OWN, senders, size), {}), values)
    interval = bootstrap_iqm(list(values.values()))
    return Rate(
        size_bytes=size,
        bytes_per_s=interval,
        values=list(values.values()),
        messages_per_s=interval.estimate / size,
        of_limit=ratio,
        ours=ours if method != OWN else None,
    )


def _limit(place: Place, senders: int, size: int, rates: Rates) -> dict[int, float]:
    """By block. Of two processes the limit is the same, however many senders there are."""
    if place == "one host":
        return rates.get((LIMIT, 1, size), {})
    wire = {key: by_block for key, by_block in rates.items() if key[:2] == (WIRE, senders)}
    return wire[max(wire)] if wire else {}


def _ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Interval | None:
    blocks = sorted(set(above) & set(below))
    if not blocks:
        return None
    return paired_ratio([above[b] for b in blocks], [below[b] for b in blocks])


def _latency(size: int, results: Sequence[TransportResult]) -> Latency | None:
    values = [
        latency
        for result in results
        for point in result.points
        if point.size_bytes == size
        for latency in point.latencies_s
    ]
    if not values:
        return None
    p50_s, p95_s, p99_s = (float(value) for value in np.percentile(values, [50, 95, 99]))
    return Latency(size_bytes=size, p50_s=p50_s, p95_s=p95_s, p99_s=p99_s, count=len(values))


def _notes(
    manifest: TransportManifest,
    results: Mapping[TransportCell, TransportResult],
    rows: Sequence[TransportRow],
) -> list[str]:
    notes = [f"not measured: {METHODS[n].title}: {why}" for n, why in manifest.missing.items()]
    notes += [
        f"{row.title}, {plural(row.senders, 'sender')}: {row.num_failed} failed, see cell.json"
        for row in rows
        if row.num_failed
    ]
    cores = manifest.machine.num_cores
    crowded = [senders for senders in manifest.suite.senders if senders + 1 > cores]
    if crowded:
        notes.append(
            f"this machine has {plural(cores, 'core')}: from {plural(min(crowded), 'sender')} on"
            " processes share them"
        )
    busy = [
        r for r in results.values() if r.load is not None and r.load.busy_cores > MAX_BUSY_CORES
    ]
    if busy:
        cells = f"{len(busy)} of {plural(len(results), 'cell')}"
        notes.append(f"{cells} began while other work used the machine")
    if manifest.num_blocks < FEW_BLOCKS:
        notes.append(f"{plural(manifest.num_blocks, 'block')}: the 95% intervals are too narrow")
    return notes
