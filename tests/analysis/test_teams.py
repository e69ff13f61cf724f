"""Traces of a team: returns by agent and policy, thresholds on any of them; all adds up."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.errors import ConfigError
from engine.trace.reader import read_columns, read_table
from engine.trace.records import Episode, Production
from tests.helpers.synthetic_run import write_rows, write_synthetic_run
from tests.helpers.synthetic_team import HUNTERS, NAMES, PREY, write_team_run
from tianji_cli.analysis.check import num_checks, rebuild_counters
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.remains import summary_of_remains
from tianji_cli.analysis.run import load_run
from tianji_cli.analysis.teams import curves_by_name
from tianji_cli.results import open_run
from tianji_cli.storage.run_dir import RunPaths


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return write_team_run(tmp_path_factory.mktemp("team") / "run")


def changed(paths: RunPaths, row: Episode | Production, to: Path) -> RunPaths:
    """A copy of the run whose second row of that table is this one."""
    copied = write_team_run(to)
    rows = read_table(paths.trace, type(row))
    table = "episodes" if isinstance(row, Episode) else "production"
    (copied.trace / f"{table}.jsonl").unlink()
    write_rows(copied.trace, [rows[0], row, *rows[2:]])
    return copied


@pytest.mark.parametrize("return_of", [None, PREY, "hunters"])
def test_every_figure_can_be_rebuilt(return_of: str | None, tmp_path: Path) -> None:
    run = load_run(write_team_run(tmp_path / "run", return_of, threshold=None))
    assert rebuild_counters(run) == []
    assert num_checks(run)[0] == 23 + 2 + 3 + 2
    rebuilt, remains = rebuild_summary(run), summary_of_remains(run)
    assert remains.agent_returns == pytest.approx(rebuilt.agent_returns)
    assert remains.policy_returns == pytest.approx(rebuilt.policy_returns)
    assert remains.return_mean == pytest.approx(rebuilt.return_mean)
    assert remains.agent_steps_collected == rebuilt.agent_steps_collected


def test_the_threshold_is_on_the_return_that_was_asked_for(tmp_path: Path) -> None:
    run = load_run(write_team_run(tmp_path / "run", "hunter_1", threshold=250.0))
    rebuilt = rebuild_summary(run)
    curve = open_run(run.paths.root).curve(of="hunter_1")
    first = curve[curve["is_full"] & (curve["return_mean"] >= 250.0)].iloc[0]
    assert rebuilt.reached is True
    assert rebuilt.steps_to_threshold == first["env_steps"]
    whole = open_run(run.paths.root).curve(of="hunters")
    assert whole["return_mean"].iloc[-1] > curve["return_mean"].iloc[-1]


def test_tables_have_a_column_for_each_agent_and_policy(team: RunPaths) -> None:
    run = open_run(team.root)
    episodes, production = run.episodes, run.production
    agents = episodes[[f"agent_returns.{name}" for name in NAMES]]
    assert np.allclose(agents.sum(axis=1), episodes["episode_return"])
    hunters = agents[[f"agent_returns.{name}" for name in HUNTERS]].sum(axis=1)
    assert np.allclose(hunters, episodes["policy_returns.hunters"])
    assert production["agent_steps"].sum() == run.summary.agent_steps_collected  # type: ignore[union-attr]
    assert run.columns("episodes").loc["agent_returns.hunter_0", "unit"] == "reward"
    assert run.evaluations["policy_returns.hunters"].notna().all()
    with pytest.raises(ConfigError, match="no episode has the return of 'hunter_7'") as caught:
        run.curve(of="hunter_7")
    assert caught.value.fix == f"hunter_0, hunter_1, {PREY}, hunters"


def test_a_run_of_one_agent_has_no_column_more(tmp_path: Path) -> None:
    run = open_run(write_synthetic_run(tmp_path / "run").root)
    assert list(run.episodes) == [
        name for name in Episode.__struct_fields__ if not name.endswith("_returns")
    ]
    assert "agent_steps" not in run.production
    assert b"agent" not in (run.path / "trace" / "episodes.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="no episode has the return of") as caught:
        run.curve(of="prey")
    assert "one agent" in str(caught.value.fix)


def test_policies_that_say_the_same_as_others_have_no_curve(team: RunPaths) -> None:
    episodes = read_columns(team.trace, Episode)
    assert list(curves_by_name([episodes[:3], episodes[3:9]], 4)) == ["hunters", *NAMES]
    alone = [
        msgspec.structs.replace(row, policy_returns={"shared": row.episode_return})
        for row in episodes[:5]
    ]
    assert list(curves_by_name([alone], 4)) == list(NAMES)
    assert len(curves_by_name([alone, episodes], 4)["hunter_0"]) == 5 + len(episodes)


def test_returns_that_do_not_add_up_are_found(team: RunPaths, tmp_path: Path) -> None:
    second = read_table(team.trace, Episode)[1]
    assert second.agent_returns
    wrong = {**second.agent_returns, PREY: second.agent_returns[PREY] + 1.0}
    row = msgspec.structs.replace(second, agent_returns=wrong)
    found = rebuild_counters(load_run(changed(team, row, tmp_path / "run")))
    places = {(item.where, item.name) for item in found}
    assert ("trace/episodes.jsonl:2", "agent_returns add up to episode_return") in places


def test_more_agent_steps_than_agents_took_are_found(team: RunPaths, tmp_path: Path) -> None:
    second = read_table(team.trace, Production)[1]
    row = msgspec.structs.replace(second, agent_steps=3 * second.env_steps + 1)
    found = rebuild_counters(load_run(changed(team, row, tmp_path / "run")))
    places = {(item.where, item.name) for item in found}
    assert ("trace/production.jsonl:2", "agent_steps of those that are there") in places
    assert ("summary.json", "agent_steps_collected") in places
