"""What `tianji bench` is asked for, in tests that call its commands themselves."""

from __future__ import annotations

from pathlib import Path

from tianji_cli.bench.systems.base import SystemOptions
from tianji_cli.commands.benchmarks.bench_request import DEFAULT_BASELINES, BenchRequest


def request_for(root: Path, *, resume: bool = True) -> BenchRequest:
    """To go on with what lies at `root`, or else to begin something there; it asks nobody."""
    return BenchRequest(
        suite="", inventory=None, compare=DEFAULT_BASELINES, tasks=(), seeds=None,
        budget_s=None, settings=(), results=root.parent, name=None,
        resume=root.name if resume else None, system_options=SystemOptions(root),
        yes=True, dry_run=False, skip_missing=False, strict=False,
    )  # fmt: skip
