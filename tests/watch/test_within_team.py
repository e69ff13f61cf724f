"""The page shows how well each policy and each agent of a team does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from engine.trace.reader import read_table
from engine.trace.records import Episode
from tests.helpers.synthetic_team import NAMES, write_team_run
from tianji_cli.watch.live_run import LiveRun
from tianji_cli.watch.run_list import RunList
from tianji_cli.watch.within_team import MAX_CURVES, WithinTeam


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LiveRun:
    found = LiveRun(write_team_run(tmp_path_factory.mktemp("runs") / "team", "hunters"))
    while found.advance():
        pass
    return found


def test_the_curves_end_where_the_summary_does(run: LiveRun) -> None:
    view = run.view()
    assert [(one.kind, one.name) for one in view.within_team] == [
        ("policy", "hunters"),
        *(("agent", name) for name in NAMES),
    ]
    hunters, agent = view.within_team[:2]
    assert view.figures.return_of == "hunters"
    assert hunters.mean[-1] == pytest.approx(view.figures.return_mean)
    assert view.returns.mean[-1] == pytest.approx(view.figures.return_mean)
    assert hunters.t_s == agent.t_s
    assert view.returns.evaluation_mean[-1] == pytest.approx(view.figures.evaluation_return)


def of_agents(rows: Sequence[Episode], policies: dict[str, float]) -> WithinTeam:
    found = WithinTeam(4)
    for row in rows:
        found.add(msgspec.structs.replace(row, policy_returns=policies))
    return found


def test_what_says_the_same_is_shown_once(run: LiveRun) -> None:
    rows = read_table(run.paths.trace, Episode)[:9]
    for policies in ({"all": 1.0}, dict.fromkeys(NAMES, 1.0)):
        kinds = [one.kind for one in of_agents(rows, policies).views()]
        assert kinds == ["agent"] * 3


def test_of_a_large_team_the_first_are_shown(run: LiveRun) -> None:
    row, found = read_table(run.paths.trace, Episode)[0], WithinTeam(4)
    many = {f"agent_{number}": 1.0 for number in range(100)}
    found.add(msgspec.structs.replace(row, agent_returns=many))
    assert len(found.views()) == MAX_CURVES


def test_the_list_shows_the_return_that_is_judged(tmp_path: Path) -> None:
    paths = write_team_run(tmp_path / "team", "hunter_0")
    paths.summary.unlink()
    (listed,) = RunList(tmp_path).view().runs
    own = [row.agent_returns["hunter_0"] for row in read_table(paths.trace, Episode)[-100:]]  # type: ignore[index]
    assert listed.return_mean == pytest.approx(sum(own) / 100)
