"""Archive of a finished benchmark: small, and without the paths of the machine it ran on.

What the report is made of is copied, the trace tables compressed; TianJi's own runs, drivers' raw
records and printed output stay behind. The report made from the archive has the same figures.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from engine.errors import ConfigError
from engine.files import read_regular
from engine.trace.reader import MAX_UNPACKED_BYTES
from engine.trace.records import table_of
from tianji_cli.bench.comparison.results import REPORT_TABLES, BenchFiles
from tianji_cli.storage.comparison_dir import refuse_others
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.redact import redacted
from tianji_cli.storage.safe_files import make_inside, write_file


def archive(root: Path, target: Path) -> None:
    """Copies a benchmark.

    Args:
        root: Of the benchmark.
        target: May exist, but must not hold a benchmark.

    Raises:
        ConfigError: There is one at the target, or none at the root.
        OSError: It cannot be written.
    """
    source, kept = BenchFiles(root.resolve()), BenchFiles(target.resolve())
    if kept.manifest.exists():
        raise ConfigError(
            "a benchmark is kept there and is not overwritten",
            where=str(target),
            fix="give another --out, or remove it",
        )
    refuse_others(kept.root)
    manifest = source.read_manifest()
    for cell, result in source.read_results(manifest).items():
        there = kept.files(cell)
        make_inside(kept.root, there.trace)
        for kind in REPORT_TABLES:
            _pack(source.files(cell).trace, f"{table_of(kind)}.jsonl", there.trace)
        kept.write_result(cell, redacted(result))
    write_json(kept.manifest, redacted(manifest))


def _pack(trace: Path, name: str, directory: Path) -> None:
    """Compresses one table, unless it is compressed; the same rows give the same bytes."""
    table, packed = trace / name, trace / f"{name}.gz"
    if table.is_file() and table.stat().st_size:
        data = gzip.compress(read_regular(table, MAX_UNPACKED_BYTES), mtime=0)
    elif packed.is_file():  # of an archive
        data = read_regular(packed, MAX_UNPACKED_BYTES)
    else:
        return
    write_file(directory / packed.name, data)
