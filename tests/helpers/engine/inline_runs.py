"""Runs in one process, and what they leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.blueprint import make_blueprint
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.progress import Progress
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.spec import Experiment
from engine.trace.records import (
    RECORD_TYPES,
    table_of,
)
from engine.trace.summary import Summary


@dataclass(frozen=True)
class Result:
    """What a run wrote."""

    root: Path

    @property
    def trace(self) -> Path:
        return self.root / "trace"

    @property
    def summary(self) -> Summary:
        return msgspec.json.decode((self.root / "summary.json").read_bytes(), type=Summary)

    def rows_without_times(self) -> dict[str, list[Any]]:
        """All tables, in order, without the values that a clock has written."""
        return {
            name: [
                without_times(msgspec.json.decode(line))
                for line in (self.trace / f"{name}.jsonl").read_bytes().splitlines()
            ]
            for name in map(table_of, RECORD_TYPES)
        }


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith("_s")}


def run(
    root: Path, experiment: Experiment, show: Callable[[InlineRun, Progress], None] | None = None
) -> Result:
    for name in ("trace", "checkpoints"):
        (root / name).mkdir(parents=True)
    graph = build_graph(read_policy("local"), experiment)
    addresses = graph.processes[0].roles
    info = RunInfo(run_id="run", num_hosts=1, num_actors=graph.count("actor"), num_groups=1)
    inline = InlineRun(
        make_blueprint(experiment),
        info,
        addresses,
        root,
        lambda progress: show(inline, progress) if show else None,
    )
    inline.run()
    return Result(root)
