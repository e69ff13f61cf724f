"""Runs of every algorithm for several agents."""

from __future__ import annotations

from msgspec.structs import replace
from team_envs import ENV_ID, MEMBERS

from engine.algorithms.registry import ALGORITHMS
from engine.spec import Experiment
from tests.helpers.engine.trained_runs import experiment_of

TEAM_ALGORITHMS = [
    name
    for name, entry in ALGORITHMS.items()
    if entry.config.__module__.startswith("engine.algorithms.teams.")
]


def convoy_experiment(algorithm: str, core: str = "", network: str = "") -> Experiment:
    """Two agents share a policy, the third has one of its own; see `team_envs`."""
    found = experiment_of(f"id: '{ENV_ID}'", core, algorithm, network)
    return replace(found, modules=("team_envs",), agents=MEMBERS)
