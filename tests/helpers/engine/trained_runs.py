"""Directories of runs that were never trained: a manifest and a checkpoint of first weights."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from engine.blueprint import make_blueprint
from engine.executors.checkpoint import save_checkpoint
from engine.graph.cut import Cut
from engine.progress import RunCounters
from engine.spec import Experiment
from engine.trace.records import SCHEMA_VERSION


def write_run(
    root: Path,
    experiment: Experiment,
    version: int = 7,
    cut: Cut | None = None,
    *,
    is_lively: bool = False,
) -> Path:
    """Writes what later commands need to know of a run.

    Args:
        root: Its directory.
        experiment: What it was asked to do.
        version: Of the weights.
        cut: How it was spread over processes.
        is_lively: Moves every parameter: first weights choose nearly the same everywhere.

    Returns:
        `root`.
    """
    blueprint = make_blueprint(experiment, cut, rehearses=True)
    state = blueprint.algorithm.init(experiment.seed)
    if is_lively:
        generator = torch.Generator().manual_seed(3)
        for name, parameter in state.network.named_parameters():
            noise = torch.rand(parameter.shape, generator=generator) - 0.5  # variances stay above 0
            parameter.data.mul_(50.0 if name == "policy_head.weight" else 1.5).add_(0.2 * noise)
    counters = RunCounters(elapsed_s=1.0, env_steps_collected=100, env_steps_consumed=100)
    save_checkpoint(root / "checkpoints", state, blueprint, version=version, counters=counters)
    manifest = {"schema_version": SCHEMA_VERSION, "run_id": root.name, "experiment": experiment}
    (root / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return root
