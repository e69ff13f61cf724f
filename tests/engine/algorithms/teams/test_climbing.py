"""A game with a known answer, learnt by whole runs through all roles.

11 is next to -30 for whoever tries alone, so agents that learn by trying settle on 7, where neither
gains by changing alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.config.config_file import load_experiment
from engine.spec import CheckpointSpec, StopSpec
from engine.trace.reader import read_table
from engine.trace.records import Episode
from tests.helpers.engine.learning_runs import run_inline
from tests.helpers.paths import REPOSITORY


@pytest.mark.parametrize("name", ["ippo", pytest.param("mappo", marks=pytest.mark.slow)])
def test_both_settle_where_no_agent_gains_alone(name: str, tmp_path: Path) -> None:
    shipped, _ = load_experiment(REPOSITORY / "experiments/climbing_ippo.yaml")
    experiment = replace(
        shipped,
        policy="local",
        algorithm=shipped.algorithm | {"name": name},
        stop=StopSpec(env_steps=12_000, return_window=100),
        checkpoint=CheckpointSpec(every_s=None),
    )
    summary = run_inline(experiment, tmp_path)
    assert summary.status == "ok", summary.error
    episodes = read_table(tmp_path / "trace", Episode)
    assert sum(row.episode_return for row in episodes[:100]) / 100 < 0
    assert summary.return_mean is not None
    assert 6.5 < summary.return_mean <= 7
