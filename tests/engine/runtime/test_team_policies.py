"""A team learns under every distribution policy: by test the table of docs/multi-agent.md."""

from __future__ import annotations

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
from tests.helpers.engine.team_runs import BEST, CLIMBING, LAYOUTS


def cut_of(experiment: Experiment, num_apart: int) -> Cut:
    return build_graph(read_policy(experiment.policy), experiment, num_apart).cut


def trained(tmp_path: Path, policy: str, num_apart: int, settings: tuple[str, ...]) -> Cut:
    """Runs all roles in one thread; its files are in `tmp_path`."""
    file = tmp_path / "climbing.yaml"
    file.write_text(CLIMBING)
    experiment, _ = load_experiment(file, [f"policy={policy}", *settings])
    cut = cut_of(experiment, num_apart)
    experiment = msgspec.structs.replace(experiment, staleness=cut.staleness)
    for folder in ("trace", "checkpoints"):
        (tmp_path / folder).mkdir()
    info = RunInfo(run_id="run", num_hosts=1, num_actors=cut.actors, num_groups=cut.groups)
    blueprint = make_blueprint(experiment, cut)
    InlineRun(blueprint, info, cut.addresses, tmp_path, lambda progress: None).run()
    return cut


@pytest.mark.parametrize(("policy", "num_apart", "settings"), LAYOUTS)
def test_a_team_halves_its_distance_to_the_best(
    tmp_path: Path, policy: str, num_apart: int, settings: tuple[str, ...]
) -> None:
    cut = trained(tmp_path, policy, num_apart, settings)
    assert cut.is_apart == (num_apart > 1)
    summary = msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary)
    assert (summary.status, summary.error) == ("ok", None)
    returns = [row.episode_return for row in read_table(tmp_path / "trace", Episode)]
    untrained, learnt = sum(returns[:80]) / 80, sum(returns[-160:]) / 160
    assert BEST - learnt <= (BEST - untrained) / 2
    assert summary.env_steps_consumed == len(returns) == 2400, "each step counts once"
    assert summary.samples_trained == 3 * 2400
    produced = read_table(tmp_path / "trace", Production)
    assert sum(row.agent_steps for row in produced) == 2 * 2400, "both agents are always there"
    rows = read_table(tmp_path / "trace", Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in rows)
    trained_by = {row.learner for row in read_table(tmp_path / "trace", Consumption)}
    assert trained_by == set(range(cut.groups))
