"""A run of a team tells of each agent and policy, and ends by the return that was asked for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.blueprint import make_blueprint
from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.trace.reader import read_table
from engine.trace.records import Episode, Evaluation, Production
from engine.trace.summary import Summary
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

ROUNDS = """
version: 1
name: rounds
env: {id: Climbing-v0, num_envs: 4, reward_scale: 0.5}
agents: {rows: [agent_0], columns: [agent_1]}
algorithm: {name: ippo, rollout_steps: 10, batch_steps: 80, minibatch_steps: 40, num_epochs: 1}
network: {hidden_sizes: [8]}
learner: {compile: "off"}
checkpoint: {every_s: null}
evaluation: {every_s: null, every_versions: 2, episodes: 2}
stop: {env_steps: 800, return_window: 10, return_threshold: -100, return_of: columns}
"""


def traced(tmp_path: Path, policy: str, num_apart: int = 1, *settings: str) -> Summary:
    file = tmp_path / "rounds.yaml"
    file.write_text(ROUNDS)
    experiment, _ = load_experiment(file, [f"policy={policy}", *settings])
    cut = build_graph(read_policy(policy), experiment, num_apart).cut
    experiment = msgspec.structs.replace(experiment, staleness=cut.staleness)
    for folder in ("trace", "checkpoints"):
        (tmp_path / folder).mkdir()
    info = RunInfo(run_id="run", num_hosts=1, num_actors=cut.actors, num_groups=cut.groups)
    blueprint = make_blueprint(experiment, cut)
    InlineRun(blueprint, info, cut.addresses, tmp_path, lambda progress: None).run()
    manifest = {"experiment": msgspec.to_builtins(experiment), "run_id": "run"}
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary)


@pytest.mark.parametrize(("policy", "num_apart"), [("local", 1), ("environments", 2)])
def test_what_is_told_of_agents_adds_up(tmp_path: Path, policy: str, num_apart: int) -> None:
    summary = traced(tmp_path, policy, num_apart, "stop.return_threshold=null")
    assert rebuild_counters(load_run(RunPaths(tmp_path))) == []
    episodes = read_table(tmp_path / "trace", Episode)
    own = {-30.0, 0.0, 5.0, 6.0, 7.0, 11.0}  # of both together; each has a half
    for row in episodes:
        assert row.episode_return in own, "neither scaled nor counted twice"
        half = row.episode_return / 2
        assert row.agent_returns == {"agent_0": half, "agent_1": half}
        assert row.policy_returns == {"rows": half, "columns": half}
    for evaluated in read_table(tmp_path / "trace", Evaluation):
        assert evaluated.policy_returns
        assert sum(evaluated.policy_returns.values()) == pytest.approx(evaluated.return_mean)
    rows = read_table(tmp_path / "trace", Production)
    assert all(row.agent_steps == 2 * row.env_steps for row in rows)
    assert summary.agent_steps_collected == 2 * summary.env_steps_collected
    assert summary.return_of == "columns"
    assert summary.return_mean == pytest.approx(summary.agent_returns["agent_1"])
    assert summary.team_return == pytest.approx(2 * summary.policy_returns["columns"])


def test_a_run_ends_by_the_return_of_a_policy(tmp_path: Path) -> None:
    summary = traced(tmp_path, "local", 1, "stop.return_threshold=-10", "seed=3")
    assert (summary.stop_reason, summary.reached) == ("return_threshold", True)
    assert summary.return_mean is not None
    assert summary.return_mean >= -10
    assert summary.team_return == pytest.approx(2 * summary.return_mean)
    assert summary.env_steps_collected < 800


def test_a_name_that_nobody_has_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no agent and no policy 'wolves'") as caught:
        traced(tmp_path, "local", 1, "stop.return_of=wolves")
    assert caught.value.fix == "use one of agent_0, agent_1, rows, columns"
