"""A bound on lag that moved: what its traces must show, and what contradicts them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.trace.records import LAG_BOUND, UNREPORTED, Event, Staleness
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.curves import curves_of
from tianji_cli.analysis.old_samples.lag_bound import bounds_over_time, largest_bound
from tianji_cli.analysis.old_samples.lag_history import check_moving_bound
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.run import ManifestView, RunData, load_run
from tianji_cli.render.run import titles

RAISED = Event(
    t_s=0.0,
    kind=LAG_BOUND,
    host="",
    role="learner-0",
    detail="2 instead of 1",
    max_lag=2,
    max_lag_before=1,
)
OLD = 9
"""The batch that is made to have a rollout of lag 2."""


def changed(run: RunData, **changes: object) -> RunData:
    values = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return RunData(**{**values, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """Its batch 9 has two rollouts, of lag 0 and of lag 1; all were admitted with a bound of 1."""
    made = load_run(write_synthetic_run(tmp_path_factory.mktemp("lag") / "run"))
    staleness = {"mode": "block", "max_lag": "auto"}
    experiment = {**made.manifest.section("experiment"), "staleness": staleness}
    rollouts = [replace(row, max_lag=1) for row in made.production]
    return changed(
        made,
        manifest=ManifestView({**made.manifest.data, "experiment": experiment}),
        production=rollouts,
    )


def raised(run: RunData, at_s: float) -> RunData:
    """The bound becomes 2; what is collected a moment later has it."""
    rollouts = [replace(row, max_lag=2 if row.t_s > at_s else 1) for row in run.production]
    return changed(run, events=[*run.events, replace(RAISED, t_s=at_s)], production=rollouts)


def older(run: RunData) -> RunData:
    """A batch takes a rollout at a lag of 2 instead of 1: of the version before."""
    batch = run.staleness[OLD]
    rows: list[Staleness] = list(run.staleness)
    rows[OLD] = replace(batch, steps_by_lag={0: 400, 2: 400}, lag_max=2)
    moved = [
        replace(row, version_min=row.version_min - 1)
        if (row.actor, row.sequence) == (0, OLD)
        else row
        for row in run.production
    ]
    return changed(run, staleness=rows, production=moved)


def names(run: RunData) -> list[str]:
    return [found.name for found in check_moving_bound(run)]


def test_a_run_whose_bound_stayed_is_sound(run: RunData):
    assert names(run) == []
    assert largest_bound(run) == 1


def test_a_number_needs_no_such_check(run: RunData):
    manifest = ManifestView({**run.manifest.data, "experiment": {"staleness": {"max_lag": 1}}})
    untold = [replace(row, max_lag=9) for row in run.production]
    assert names(changed(run, manifest=manifest, production=untold)) == []


def test_older_samples_are_sound_once_the_bound_was_raised(run: RunData):
    assert names(older(raised(run, 0.0))) == []
    found = names(older(run))
    assert "lag is within the bounds so far" in found
    assert "admitted with a bound of 2 or more" in found


def test_a_bound_that_was_raised_later_does_not_excuse_an_older_sample(run: RunData):
    late_s = run.staleness[OLD].t_s + 0.1
    found = names(older(raised(run, late_s)))
    assert "lag is within the bounds so far" in found
    assert "admitted with a bound of 2 or more" in found


def test_a_rollout_keeps_the_bound_that_it_was_admitted_with(run: RunData):
    """The bound was 2 before that batch, but the rollout itself had been admitted with 1."""
    early = older(raised(run, 0.0))
    small = [replace(row, max_lag=1) for row in early.production]
    assert names(changed(early, production=small)) == ["admitted with a bound of 2 or more"]


@pytest.mark.parametrize("stated", [0, 3])
def test_no_rollout_states_a_bound_that_was_never_in_force(run: RunData, stated: int):
    rollouts = [*run.production[:-1], replace(run.production[-1], max_lag=stated)]
    found = list(check_moving_bound(changed(raised(run, 0.0), production=rollouts)))
    assert [one.name for one in found] == ["a rollout's bound had been in force"]
    assert found[0].where == f"trace/production.jsonl:{len(rollouts)}"
    assert found[0] in rebuild_counters(changed(raised(run, 0.0), production=rollouts))


def test_what_a_dead_actor_had_not_reported_states_no_bound(run: RunData):
    untold = replace(run.production[-1], sequence=UNREPORTED, version_min=0, version_max=0)
    rows = [*run.production[:-1], untold]
    assert names(changed(run, production=rows)) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"max_lag_before": 3}, "the bound on lag goes on"),
        ({"max_lag": 17}, "the bound on lag keeps its limits"),
        ({"max_lag": 0}, "the bound on lag keeps its limits"),
    ],
)
def test_decisions_follow_each_other_and_keep_their_limits(
    run: RunData, changes: dict[str, int], name: str
):
    wrong = changed(run, events=[*run.events, replace(RAISED, **changes)])
    assert name in names(wrong)


def test_the_bound_over_time_and_what_the_figure_says_of_it(run: RunData):
    up = raised(run, 1.0)
    back = replace(RAISED, t_s=2.0, max_lag=1, max_lag_before=2)
    moved = changed(up, events=[*up.events, back])
    assert bounds_over_time(moved) == {"learner-0": [(0.0, 1), (1.0, 2), (2.0, 1)]}
    assert largest_bound(moved) == 2
    curves = curves_of(moved, rebuild_summary(moved), "run")
    title = titles.lag([curves])
    assert title == "Trained env steps are at most 1 version old; the bound was 1 to 2"
    assert bounds_over_time(changed(moved, manifest=ManifestView({}))) == {}
