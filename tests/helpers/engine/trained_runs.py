"""Directories of runs that were never trained: a manifest and a checkpoint of first weights."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from space_envs import ENV_ID

from engine.blueprint import make_blueprint
from engine.config.config_file import convert, parse_yaml
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


def spaces_experiment(
    observation: str = "box",
    action: str = "discrete",
    mask: str = "none",
    core: str = "",
    algorithm: str = "ppo",
    network: str = "",
    env: str = "",
    options: str = "",
) -> Experiment:
    """An experiment on any spaces; the last three are more keys of a section, as YAML."""
    kwargs = f"{{observation: {observation}, action: {action}, mask: {mask}}}"
    return experiment_of(f"id: {ENV_ID}, kwargs: {kwargs}", core, algorithm, network, env, options)


def experiment_of(
    env_id: str,
    core: str = "",
    algorithm: str = "ppo",
    network: str = "",
    env: str = "",
    options: str = "",
) -> Experiment:
    """An experiment with a small network."""
    more = f"{', ' if network else ''}core: {{name: {core}, size: 8}}" if core else ""
    text = f"""
name: trained
modules: [space_envs]
env: {{{env_id}, num_envs: 2{_more(env)}}}
algorithm: {{name: {algorithm}, rollout_steps: 8{_more(options)}}}
network: {{{"" if "hidden_sizes" in network else "hidden_sizes: [8], "}{network}{more}}}
staleness: {{mode: {"block" if algorithm == "ppo" else "unbounded"}}}
stop: {{env_steps: 10}}
"""
    return convert(parse_yaml(text, source="test"), Experiment)


def _more(keys: str) -> str:
    return f", {keys}" if keys else ""
