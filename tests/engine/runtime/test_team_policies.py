"""A team learns under every distribution policy: by test the table of docs/multi-agent.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from engine.blueprint import make_blueprint
from engine.config.config_file import load_experiment
from engine.graph.cut import Cut
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.spec import Experiment
from engine.trace.reader import read_table
from engine.trace.records import Consumption, Episode, Ledger, Production
from engine.trace.summary import Summary
from tests.helpers.engine.team_runs import (
    BEST,
    BEST_OF_TWO_STEPS,
    CLIMBING,
    LAYOUTS,
    TWO_STEP,
)


def cut_of(experiment: Experiment, num_apart: int) -> Cut:
    return build_graph(read_policy(experiment.policy), experiment, num_apart).cut


def trained(
    tmp_path: Path, policy: str, num_apart: int, settings: tuple[str, ...], text: str = CLIMBING
) -> Cut:
    """Runs all roles in one thread; its files are in `tmp_path`."""
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    experiment, _ = load_experiment(file, [f"policy={policy}", *settings])
    cut = cut_of(experiment, num_apart)
    experiment = msgspec.structs.replace(experiment, staleness=cut.staleness)
    for folder in ("trace", "checkpoints"):
        (tmp_path / folder).mkdir()
    info = RunInfo(run_id="run", num_hosts=1, num_actors=cut.actors, num_groups=cut.groups)
    blueprint = make_blueprint(experiment, cut)
    InlineRun(blueprint, info, cut.addresses, tmp_path, lambda progress: None).run()
    return cut


def check_halved(returns: Sequence[float], best: float) -> None:
    """The distance of episodes to the best return, at the beginning and at the end."""
    untrained, learnt = sum(returns[:80]) / 80, sum(returns[-160:]) / 160
    assert best - learnt <= (best - untrained) / 2


@pytest.mark.parametrize(("policy", "num_apart", "settings"), LAYOUTS)
def test_a_team_halves_its_distance_to_the_best(
    tmp_path: Path, policy: str, num_apart: int, settings: tuple[str, ...]
) -> None:
    cut = trained(tmp_path, policy, num_apart, settings)
    assert cut.is_apart == (num_apart > 1)
    summary = msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary)
    assert (summary.status, summary.error) == ("ok", None)
    returns = [row.episode_return for row in read_table(tmp_path / "trace", Episode)]
    check_halved(returns, BEST)
    assert summary.env_steps_consumed == len(returns) == 2400, "each step counts once"
    assert summary.samples_trained == 3 * 2400
    produced = read_table(tmp_path / "trace", Production)
    assert sum(row.agent_steps for row in produced) == 2 * 2400, "both agents are always there"
    rows = read_table(tmp_path / "trace", Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in rows)
    trained_by = {row.learner for row in read_table(tmp_path / "trace", Consumption)}
    assert trained_by == set(range(cut.groups))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vdn", "qmix"])
@pytest.mark.parametrize(
    ("policy", "settings"), [(policy, rest) for policy, apart, rest in LAYOUTS if apart == 1]
)
def test_a_team_with_one_value_halves_it_too(
    tmp_path: Path, name: str, policy: str, settings: tuple[str, ...]
) -> None:
    """Their policies train together, so there is one learner in every group."""
    cut = trained(tmp_path, policy, 1, (f"algorithm.name={name}", *settings), TWO_STEP)
    summary = msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary)
    assert (summary.status, summary.error) == ("ok", None)
    returns = [row.episode_return for row in read_table(tmp_path / "trace", Episode)]
    check_halved(returns, BEST_OF_TWO_STEPS)
    rows = read_table(tmp_path / "trace", Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in rows)
    trained_by = {row.learner for row in read_table(tmp_path / "trace", Consumption)}
    assert trained_by == set(range(cut.groups))
