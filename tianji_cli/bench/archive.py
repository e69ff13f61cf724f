"""A finished benchmark as something to keep: small, and without the paths of the machine it ran on.

What the report is made of is copied, the trace tables compressed; TianJi's own runs, drivers' raw
records and printed output stay behind. The report made from the archive has the same figures.
"""

from __future__ import annotations

import gzip
from pathlib import Path, PurePosixPath

import msgspec

from engine.errors import ConfigError
from engine.trace.records import table_of
from tianji_cli.bench.results import (
    REPORT_TABLES,
    BenchManifest,
    BenchPaths,
    CellResult,
    read_manifest,
    read_results,
)
from tianji_cli.documents import write_json


def archive(root: Path, target: Path) -> None:
    """Copies a benchmark.

    Args:
        root: Of the benchmark.
        target: May exist, but must not hold a benchmark.

    Raises:
        ConfigError: There is one at the target, or none at the root.
        OSError: It cannot be written.
    """
    source, kept = BenchPaths(root.resolve()), BenchPaths(target.resolve())
    if kept.manifest.exists():
        raise ConfigError(
            "a benchmark is kept there and is not overwritten",
            where=str(target),
            fix="give another --out, or remove it",
        )
    manifest = read_manifest(source)
    for cell, result in read_results(source, manifest.cells).items():
        there = kept.cell(cell)
        there.trace.mkdir(parents=True)
        for kind in REPORT_TABLES:
            _pack(source.cell(cell).trace / f"{table_of(kind)}.jsonl", there.trace)
        write_json(there.result, without_paths_of_cell(result))
    write_json(kept.manifest, without_paths(manifest))


def without_paths(manifest: BenchManifest) -> BenchManifest:
    """The manifest as anybody may read it: no path, no host name."""
    return msgspec.structs.replace(
        manifest,
        argv=[bare(word) for word in manifest.argv],
        peers={
            name: found and msgspec.structs.replace(found, python=bare(found.python))
            for name, found in manifest.peers.items()
        },
        machine=msgspec.structs.replace(manifest.machine, hostname=""),
    )


def without_paths_of_cell(result: CellResult) -> CellResult:
    """Likewise for one cell."""
    left = [
        msgspec.structs.replace(item, command=" ".join(map(bare, item.command.split())))
        for item in result.leftovers
    ]
    command = [bare(word) for word in result.command]
    return msgspec.structs.replace(result, command=command, leftovers=left)


def bare(word: str) -> str:
    """A path becomes its last part; other words stay.

    >>> bare("/home/me/env/bin/python"), bare("--python=/usr/bin/python3"), bare("-m")
    ('python', '--python=python3', '-m')
    """
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{PurePosixPath(value).name}" if value.startswith("/") else word


def _pack(table: Path, directory: Path) -> None:
    """Compresses one table; the same rows give the same bytes."""
    if table.is_file() and table.stat().st_size:
        packed = gzip.compress(table.read_bytes(), mtime=0)
        (directory / f"{table.name}.gz").write_bytes(packed)
