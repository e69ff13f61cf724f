"""Profiles in reports: sums by role, means of many, table, figure, page, document."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from engine.timing import SECTIONS
from engine.trace.records import Profile
from tests.helpers.synthetic_run import write_rows, write_synthetic_run
from tianji_cli.analysis.profile import MAX_ROLES, profile_of, summarised
from tianji_cli.commands.report import write_report
from tianji_cli.render.run.figures_profile import LOOK, draw_profile, profile_title
from tianji_cli.render.run.profile import profile_cells, profile_table


def row(role: str, t_s: float, cpu_s: float, **sections_s: float) -> Profile:
    return Profile(
        t_s=t_s,
        role=role,
        process=role,
        wall_s=sum(sections_s.values()),
        cpu_s=cpu_s,
        process_cpu_s=2 * cpu_s,
        sections_s=sections_s,
    )


ROWS = (
    row("learner-0", 1.0, 0.5, waiting=0.25, updating=0.75),
    row("actor-10", 1.0, 0.1, waiting=0.5, environment=0.25, inference=0.25),
    row("actor-9", 1.0, 0.2, environment=1.0),
    row("learner-0", 3.0, 1.0, waiting=0.25, updating=1.25, meeting=0.25, others=0.25),
)


def test_rows_of_a_role_add_up_and_roles_are_in_order():
    nine, ten, learner = profile_of(ROWS)
    assert (nine.role, ten.role, learner.role) == ("actor-9", "actor-10", "learner-0")
    assert (learner.wall_s, learner.cpu_s, learner.busy_s) == (3.0, 1.5, 2.0)
    assert (learner.busy_share, learner.cpu_share) == (pytest.approx(2 / 3), 0.5)
    wanted = {"updating": 2.0, "meeting": 0.25, "waiting": 0.5, "others": 0.25}
    assert learner.sections_s == wanted
    assert list(learner.sections_s) == list(wanted), "in the order of the sections"


def test_many_roles_of_a_kind_become_their_mean():
    actors = [
        row(f"actor-{i}", 1.0, i / 100, environment=i / 20, waiting=1 - i / 20)
        for i in range(MAX_ROLES)
    ]
    roles = profile_of([*actors, ROWS[0]])
    mean, learner = summarised(roles)
    assert mean.role == f"actor ×{MAX_ROLES}"
    assert mean.share("environment") == pytest.approx((MAX_ROLES - 1) / 40)
    assert learner.role == "learner-0"
    assert summarised(roles[:3]) == roles[:3]


def test_the_terminal_shows_the_largest_sections_first():
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(profile_table(profile_of(ROWS)))
    text = console.export_text()
    assert "learner-0" in text
    assert "updating 67%, waiting 17%, others 8.3%, meeting 8.3%" in text


def test_the_page_has_a_column_for_each_section_that_was_used():
    headings, cells = profile_cells(profile_of(ROWS))
    used = ["environment", "inference", "waiting", "updating", "meeting", "others"]
    assert headings[:4] == ["role", "wall", "busy", "processor"]
    assert sorted(headings[4:]) == sorted(used)
    assert headings[4:] == [section for section in SECTIONS if section in used]
    assert all(len(line) == len(headings) for line in cells)


def test_every_section_looks_different_also_in_print():
    assert set(SECTIONS) <= set(LOOK)
    assert len(set(LOOK.values())) == len(LOOK)


@pytest.mark.usefixtures("without_drawing")
def test_a_profiled_run_has_figure_section_and_document(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run")
    assert "profile" not in {path.stem for path in write_report([paths], None).figures}
    write_rows(paths.trace, ROWS)
    result = write_report([paths], None)
    assert {path.name for path in result.figures} >= {"profile.png", "profile.svg"}
    text = result.report.read_text(encoding="utf-8")
    assert "The learner is busy 67% of the time" in text
    assert "Where the time went" in text
    told = result.document.runs[0].profile
    assert [role.role for role in told] == ["actor-9", "actor-10", "learner-0"]


@pytest.mark.usefixtures("without_drawing")
def test_several_runs_are_compared_in_tables_only(tmp_path: Path):
    both = [write_synthetic_run(tmp_path / name) for name in ("a", "b")]
    for paths in both:
        write_rows(paths.trace, ROWS)
    result = write_report(both, tmp_path / "out")
    assert "profile" not in {path.stem for path in result.figures}
    assert result.report.read_text(encoding="utf-8").count("Profile of") == 2


def test_bars_reach_from_end_to_end(tmp_path: Path):
    from matplotlib.figure import Figure

    from tianji_cli.analysis.curves import curves_of
    from tianji_cli.analysis.rebuild import rebuild_summary
    from tianji_cli.analysis.run import load_run

    paths = write_synthetic_run(tmp_path / "run")
    write_rows(paths.trace, ROWS)
    run = load_run(paths)
    curves = curves_of(run, rebuild_summary(run), "run")
    axes = Figure().subplots()
    assert draw_profile(axes, [curves])
    assert profile_title([curves]) == "The learner is busy 67% of the time"
    places = sorted({patch.get_y() for patch in axes.patches if patch.get_height() > 0.3})
    for place in places:
        bars = [p for p in axes.patches if p.get_y() == place and p.get_height() > 0.3]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(1.0)
    assert len(places) == 3
