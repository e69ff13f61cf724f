"""Reports and displays of a team say how its agents and policies do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from rich.text import Text

from engine.progress import Progress
from tests.helpers.synthetic_run import write_synthetic_run
from tests.helpers.synthetic_team import NAMES, PREY, write_team_run
from tianji_cli.analysis.curves import RunCurves, curves_of
from tianji_cli.analysis.run import load_run
from tianji_cli.render.live import panel
from tianji_cli.render.run import titles
from tianji_cli.render.run.figures import FIGURES, make_figure
from tianji_cli.render.run.figures_team import MAX_PANELS, team_names, team_title
from tianji_cli.render.run.rows import summary_rows, verdict


def curves(root: Path, **settings: object) -> RunCurves:
    run = load_run(write_team_run(root, **settings))  # type: ignore[arg-type]
    assert run.summary is not None
    return curves_of(run, run.summary, root.name)


@pytest.fixture(scope="module")
def hunters(tmp_path_factory: pytest.TempPathFactory) -> RunCurves:
    root = tmp_path_factory.mktemp("runs") / "hunters"
    return curves(root, return_of="hunters", threshold=600.0)


def test_each_policy_and_agent_has_a_learning_curve(hunters: RunCurves) -> None:
    (spec,) = (one for one in FIGURES if one.name == "returns_within_team")
    assert spec.suits([hunters])
    figure = make_figure(spec, [hunters])
    shown = [axes.get_title("left") for axes in figure.axes if axes.lines]
    assert shown == ["policy hunters", *(f"agent {name}" for name in NAMES)]
    drawn = figure.axes[0].lines[-2].get_ydata()
    assert drawn[-1] == pytest.approx(hunters.summary.policy_returns["hunters"])
    assert "threshold 600" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert team_title([hunters]) == "hunter_1 ends highest, at 365.8; prey<1> lowest, at -141.9"


def test_runs_are_compared_agent_by_agent(hunters: RunCurves, tmp_path: Path) -> None:
    (spec,) = (one for one in FIGURES if one.name == "returns_within_team")
    other = curves(tmp_path / "slow", speed=0.5)
    figure = make_figure(spec, [hunters, other])
    assert [len(axes.lines) for axes in figure.axes] == [3, 2, 2, 2]  # and one threshold


def test_one_agent_and_a_large_team_have_no_and_a_bounded_figure(
    hunters: RunCurves, tmp_path: Path
) -> None:
    (spec,) = (one for one in FIGURES if one.name == "returns_within_team")
    run = load_run(write_synthetic_run(tmp_path / "alone"))
    assert run.summary is not None
    assert not spec.suits([curves_of(run, run.summary, "alone")])
    curve = hunters.within_team["hunter_0"]
    many = msgspec.structs.replace(hunters.summary, agent_returns=dict.fromkeys("ab", 1.0))
    large = RunCurves(
        **{
            **vars(hunters),
            "summary": many,
            "within_team": {str(number): curve for number in range(40)},
        }
    )
    assert len(team_names([large])) == MAX_PANELS
    assert team_title([large]) == "Each agent's mean return ends at 1.00"


def test_words_say_whose_return_it_is(hunters: RunCurves) -> None:
    summary = msgspec.structs.replace(
        hunters.summary, reached=True, time_to_threshold_s=9.0, steps_to_threshold=900
    )
    assert verdict(summary).startswith("Mean return of hunters 600 reached in 9.0 s")
    rows = {row.label: row for row in summary_rows(summary)}
    assert rows["Mean return"].note == "of hunters, last episodes"
    assert rows["Team"].text == "494.8"
    assert rows["Policies"].text == f"hunters 636.7, {PREY} -141.9"
    assert rows["Agents"].text == f"hunter_0 270.9, hunter_1 365.8, {PREY} -141.9"
    assert rows["Agent steps collected"].text == "287,573"
    assert "hunters" in titles.return_over_time([hunters])


def test_the_panel_of_a_running_team_names_its_agents() -> None:
    progress = Progress(
        phase="running",
        t_s=5.0,
        return_mean=3.0,
        return_of="hunters",
        agent_returns={"hunter_0": 1.0, "hunter_1": 2.0, "prey": -1.5},
        policy_returns={"hunters": 3.0, "prey": -1.5},
    )
    console = Console(width=100, force_terminal=True)
    with console.capture() as captured:
        console.print(panel("run", progress))
    text = Text.from_ansi(captured.get()).plain
    assert "return of hunters" in text
    assert "hunter_0 1.00, hunter_1 2.00, prey -1.50" in text
    assert "hunters 3.00, prey -1.50" in text
