"""Directories of runs that were never trained: a manifest and a checkpoint of first weights."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.blueprint import make_blueprint
from engine.executors.checkpoint import save_checkpoint
from engine.graph.cut import Cut
from engine.progress import RunCounters
from engine.spec import Experiment
from engine.trace.records import SCHEMA_VERSION


def write_run(root: Path, experiment: Experiment, version: int = 7, cut: Cut | None = None) -> Path:
    """Writes what later commands need to know of a run.

    Returns:
        `root`.
    """
    blueprint = make_blueprint(experiment, cut, rehearses=True)
    state = blueprint.algorithm.init(experiment.seed)
    counters = RunCounters(elapsed_s=1.0, env_steps_collected=100, env_steps_consumed=100)
    save_checkpoint(root / "checkpoints", state, blueprint, version=version, counters=counters)
    manifest = {"schema_version": SCHEMA_VERSION, "run_id": root.name, "experiment": experiment}
    (root / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return root
