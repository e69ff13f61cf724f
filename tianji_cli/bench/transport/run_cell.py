"""Runs one cell of a benchmark of transport on this machine: one method, all sizes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from tianji_cli.bench.cells import now_text
from tianji_cli.bench.child import TimeLimit, run_child, with_tail
from tianji_cli.bench.machine import load_now
from tianji_cli.bench.process_tree import clean_environment
from tianji_cli.bench.transport.methods import METHODS, PROGRAMS, Method
from tianji_cli.bench.transport.records import (
    Point,
    TransportCell,
    TransportFiles,
    TransportManifest,
    TransportResult,
)
from tianji_cli.bench.transport.suite import TransportSuite
from tianji_cli.provisioning.bundle import source_root
from tianji_cli.storage.safe_files import clear

LAUNCH_S = 60.0
"""Seconds for starting libraries, in addition to measuring."""
SIZE_S = 30.0
"""Seconds for one size: a program that takes longer has hung."""
MIN_APART_S = 1.0
"""Between hosts all methods send at least this long, the shortest time that iperf3 supports."""
POINTS_NAME = "points.json"


class CellFailedError(Exception):
    """A program measured nothing; the message says why."""


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """Output of a program."""

    points: list[Point]


def run_cell(
    manifest: TransportManifest, paths: TransportFiles, cell: TransportCell
) -> TransportResult:
    """Runs one cell to its end; no process of it is left running.

    Raises:
        KeyboardInterrupt: The user stopped it; the cell was ended, and nothing was concluded.
    """
    method = METHODS[cell.method]
    root = paths.cell(cell)
    clear(paths.root, root)
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="tianji-bench-") as scratch:
        file = Path(scratch) / "job.json"
        job = make_job(manifest.suite, cell, method.options, scratch)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(job)))
        words = [w.format(processes=1 + cell.senders) for w in manifest.found[method.name].command]
        command = [*words, "-m", f"{PROGRAMS}.{method.module}", str(file), *method.words]
        limit_s = LAUNCH_S + SIZE_S * len(manifest.suite.sizes_bytes)
        run = partial(_run, command, root, Path(scratch), limit_s)
        return conclude(manifest, cell, command, run)


def make_job(
    suite: TransportSuite, cell: TransportCell, options: Mapping[str, object], scratch: str
) -> dict[str, object]:
    """What a program is told; see `tianji_cli.bench.transport.programs.harness`."""
    method = METHODS[cell.method]
    is_apart = cell.place == "between hosts"
    return {
        "senders": cell.senders,
        "sizes_bytes": sizes_of(suite, method),
        "measure_s": max(suite.measure_s, MIN_APART_S if is_apart else 0.0),
        "latency_sizes_bytes": suite.latency_sizes_bytes if method.has_latency else (),
        "latency_repeats": suite.latency_repeats,
        "shares_clock": not is_apart,
        "scratch": scratch,
        "control": f"{scratch}/control",
        "output": f"{scratch}/{POINTS_NAME}",
        "options": dict(options),
    }


def sizes_of(suite: TransportSuite, method: Method) -> list[int]:
    """The sizes that a method can have."""
    return [size for size in suite.sizes_bytes if size <= (method.max_bytes or size)]


def conclude(
    manifest: TransportManifest,
    cell: TransportCell,
    command: list[str],
    run: Callable[[], bytes],
) -> TransportResult:
    """Runs it and reads what it measured.

    Args:
        manifest, cell, command: For the record.
        run: Returns what the program wrote; raises `CellFailedError`.
    """
    load, started_at = load_now(), now_text()
    began_s = time.monotonic()
    points, problem = [], ""
    try:
        points = msgspec.json.decode(run(), type=Points).points
    except CellFailedError as error:
        problem = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"what it wrote cannot be read: {error}"
    return TransportResult(
        cell=cell,
        outcome="failed" if problem else "ok",
        detail=problem,
        points=points,
        started_at=started_at,
        wall_s=round(time.monotonic() - began_s, 3),
        load=load,
        machine_id=manifest.machine.id,
        command=command,
    )


def _run(command: list[str], root: Path, scratch: Path, limit_s: float) -> bytes:
    """Its output. Raises CellFailedError."""
    output = root / "output.log"
    environment = {**clean_environment(), "PYTHONPATH": str(source_root())}
    beside = str(Path(command[0]).parent)  # XingTian starts `plasma_store` by name
    environment["PATH"] = f"{beside}:{environment.get('PATH', '')}"
    ended = run_child(command, environment, scratch, output, TimeLimit(limit_s))
    if problem := ended.problem(output):
        raise CellFailedError(problem)
    points = scratch / POINTS_NAME
    if not points.is_file():
        raise CellFailedError(with_tail("it measured nothing", output))
    return points.read_bytes()
