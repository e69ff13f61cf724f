"""A history that cannot have happened is seen, and what is wrong with it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.trace.records import UNREPORTED, Episode, Ledger, Production, Record, Replay
from tests.helpers.histories import check_histories
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.history import check_history
from tianji_cli.analysis.run import ManifestView, RunData, load_run

RESUMED = {
    "run_id": "before",
    "version": 1000,
    "updates": 16_000,
    "counters": {"env_steps_collected": 500_000, "env_steps_consumed": 400_000, "episodes": 9},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return load_run(write_synthetic_run(tmp_path_factory.mktemp("history") / "run"))


def changed(run: RunData, **changes: object) -> RunData:
    """The same run with other tables."""
    values = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return RunData(**{**values, **changes})


def with_row(run: RunData, table: str, index: int, **changes: object) -> RunData:
    """The same run with one row told differently."""
    rows: list[Record] = list(getattr(run, table))
    rows[index] = replace(rows[index], **changes)
    return changed(run, **{table: rows})


def names(run: RunData) -> list[str]:
    return [found.name for found in check_history(run)]


def test_a_sound_history_holds(run: RunData):
    assert check_history(run) == []


@pytest.mark.parametrize(
    ("table", "index", "changes", "where", "name"),
    [
        ("weights", 5, {"version": 4}, "weights.jsonl:6", "a learner's versions rise"),
        ("consumption", 5, {"version": 4}, "consumption.jsonl:6", "a learner's versions rise"),
        ("production", 8, {"sequence": 3}, "production.jsonl:9", "no rollout comes twice"),
        ("production", 8, {"version_max": 1, "version_min": 1}, "production.jsonl:9",
         "an actor takes no older weights"),
        ("production", 8, {"version_min": 9}, "production.jsonl:9",
         "0 <= version_min <= version_max"),
        ("production", 0, {"env_steps_total": 0}, "production.jsonl:1", "env_steps_total adds up"),
        ("consumption", 7, {"updates_total": 1}, "consumption.jsonl:8", "updates_total rises"),
        ("consumption", 0, {"env_steps_total": 1}, "consumption.jsonl:1",
         "env_steps_total begins with the first row"),
        ("consumption", 0, {"samples_trained_total": 1}, "consumption.jsonl:1",
         "samples_trained_total begins with the first row"),
        ("staleness", 9, {"steps_by_lag": {2: 800}, "lag_min": 2, "lag_max": 2},
         "staleness.jsonl:10", "lag is within the bound"),
        ("staleness", 9, {"steps_by_lag": {-1: 800}, "lag_min": -1, "lag_max": -1},
         "staleness.jsonl:10", "lag is not negative"),
        ("staleness", 0, {"steps_by_lag": {1: 800}, "lag_min": 1, "lag_max": 1},
         "staleness.jsonl:1", "lag is not above the version"),
        ("staleness", 9, {"lag_max": 0}, "staleness.jsonl:10", "lag_max is that of steps_by_lag"),
        ("staleness", 9, {"lag_min": 1}, "staleness.jsonl:10", "lag_min is that of steps_by_lag"),
        ("ledger", 4, {"collected": 0}, "ledger.jsonl:5", "collected never falls"),
        ("ledger", 4, {"consumed": 0}, "ledger.jsonl:5", "consumed never falls"),
        ("ledger", 4, {"dropped": -1}, "ledger.jsonl:5", "dropped never falls"),
        ("ledger", 4, {"in_flight": -1}, "ledger.jsonl:5", "in_flight is not negative"),
        ("episodes", 4, {"env_steps_collected": 0}, "episodes.jsonl:5",
         "env_steps_collected never falls"),
    ],
)  # fmt: skip
def test_each_impossible_row_is_named(
    run: RunData, table: str, index: int, changes: dict[str, object], where: str, name: str
):
    broken = with_row(run, table, index, **changes)
    assert (f"trace/{where}", name) in [(d.where, d.name) for d in check_history(broken)]
    assert check_history(broken)[0] in rebuild_counters(broken), "and a report says so"


def test_a_rollout_that_was_trained_twice_is_found(run: RunData):
    """Batch 9 took two rollouts, of lag 0 and 1; now it takes one twice and the other never."""
    twice = with_row(run, "staleness", 9, steps_by_lag={1: 800}, lag_min=1, lag_mean=1.0)
    (found,) = check_history(twice)
    version = run.staleness[9].version
    assert found.where == "trace/staleness.jsonl:10"
    assert found.name == f"trained once, of version {version - 1}"
    assert found.rebuilt is not None
    assert found.written is not None
    assert found.rebuilt < found.written


def test_what_a_dead_actor_had_not_reported_may_be_trained(run: RunData):
    """It sent a rollout and died; the coordinator then counts it, of an unknown version."""
    (last,) = (row for row in run.production if (row.actor, row.sequence) == (1, 119))
    told = [row for row in run.production if row.sent and row != last]
    silent = changed(run, production=told)
    assert [name.partition(",")[0] for name in names(silent)] == ["trained once"]
    row = replace(last, sequence=UNREPORTED, version_min=0, version_max=0)
    assert names(changed(run, production=[*told, row])) == []


def test_samples_from_replay_may_be_trained_often(run: RunData):
    twice = with_row(run, "staleness", 9, steps_by_lag={1: 800}, lag_min=1, lag_mean=1.0)
    store = Replay(
        t_s=1.0, buffer=0, env_steps=8, env_steps_total=8, samples=16, samples_total=16,
        size_env_steps=8, replay_ratio=2.0, sample_age_mean_s=0.1, sample_age_max_s=0.2,
    )  # fmt: skip
    assert names(changed(twice, replay=[store])) == []
    wrong = [store, replace(store, env_steps_total=20, samples_total=16)]
    assert names(changed(twice, replay=wrong)) == [
        "env_steps_total adds up",
        "samples_total adds up",
    ]


@pytest.mark.parametrize("mode", ["correct", "unbounded"])
def test_a_mode_without_bound_allows_any_lag(run: RunData, mode: str):
    experiment = {**run.manifest.section("experiment"), "staleness": {"mode": mode, "max_lag": 1}}
    manifest = ManifestView({**run.manifest.data, "experiment": experiment})
    old = with_row(run, "staleness", 9, steps_by_lag={9: 800}, lag_min=9, lag_max=9)
    assert "lag is within the bound" in names(old)
    assert "lag is within the bound" not in names(changed(old, manifest=manifest))


def test_a_fixed_lag_is_that_of_every_batch_but_the_first(run: RunData):
    staleness = {"mode": "fixed", "lag": 1}
    experiment = {**run.manifest.section("experiment"), "staleness": staleness}
    manifest = ManifestView({**run.manifest.data, "experiment": experiment})
    exact = [
        replace(row, steps_by_lag={lag: row.env_steps}, lag_min=lag, lag_max=lag)
        for row in run.staleness
        for lag in (min(1, row.version),)
    ]
    fixed = changed(run, staleness=exact, manifest=manifest)
    assert not any("fixed" in name for name in names(fixed))
    for lag, word in ((0, "below"), (2, "above")):
        wrong = with_row(fixed, "staleness", 9, steps_by_lag={lag: 800}, lag_min=lag, lag_max=lag)
        assert f"no lag is {word} the fixed one" in names(wrong)


def test_a_new_life_of_an_actor_counts_from_zero(run: RunData):
    """Its rollouts and env steps begin again, and may have older weights than its last life had."""
    end = len(run.production) - 1
    again = [
        replace(run.production[-2], actor=1, epoch=1, sequence=0, env_steps_total=400),
        replace(run.production[-2], actor=1, epoch=1, sequence=1, env_steps_total=800),
    ]
    assert names(changed(run, production=[*run.production[:end], *again])) == []
    went_on = [replace(row, epoch=0) for row in again]
    found = names(changed(run, production=[*run.production[:end], *went_on]))
    assert "no rollout comes twice" in found
    assert "env_steps_total adds up" in found


def test_a_resumed_run_may_not_begin_below_where_it_goes_on(run: RunData):
    manifest = ManifestView({**run.manifest.data, "resumed_from": RESUMED})
    found = names(changed(run, manifest=manifest))
    for name in (
        "a learner's versions rise",
        "updates_total rises",
        "collected never falls",
        "consumed never falls",
        "env_steps_collected never falls",
    ):
        assert name in found


def test_a_resumed_run_that_counts_on_holds(run: RunData):
    manifest = ManifestView({**run.manifest.data, "resumed_from": RESUMED})
    resumed = changed(
        run,
        manifest=manifest,
        weights=[replace(row, version=row.version + 1000) for row in run.weights],
        consumption=[
            replace(row, version=row.version + 1000, updates_total=row.updates_total + 16_000)
            for row in run.consumption
        ],
        staleness=[replace(row, version=row.version + 1000) for row in run.staleness],
        production=[_later(row) for row in run.production],
        ledger=[_more(row) for row in run.ledger],
        episodes=[_counted(row) for row in run.episodes],
    )
    assert names(resumed) == []


def _later(row: Production) -> Production:
    return replace(row, version_min=row.version_min + 1000, version_max=row.version_max + 1000)


def _more(row: Ledger) -> Ledger:
    return replace(row, collected=row.collected + 500_000, consumed=row.consumed + 400_000)


def _counted(row: Episode) -> Episode:
    return replace(row, env_steps_collected=row.env_steps_collected + 500_000)


def test_thinned_tables_are_not_taken_for_a_broken_history(run: RunData):
    """Above 64 MiB rows of a second become one: numbers are skipped, and versions are extremes."""
    whole = run.production[:4]
    merged = replace(run.production[8], env_steps=3 * 400, version_min=0)
    assert (merged.actor, merged.env_steps_total) == (0, 5 * 400)
    assert names(changed(run, production=[*whole, merged])) == []


def spoil(line: str) -> str:
    return json.dumps({**json.loads(line), "collected": 1, "consumed": 1})


@pytest.mark.parametrize(("change", "is_sound"), [(str, True), (spoil, False)])
def test_the_helper_of_the_fault_tests_sees_it_in_files(
    tmp_path: Path, change: Callable[[str], str], is_sound: bool
):
    paths = write_synthetic_run(tmp_path / "one")
    (tmp_path / "empty" / "trace").mkdir(parents=True)
    table = paths.trace / "ledger.jsonl"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:-1], change(lines[-1])]) + "\n")
    if is_sound:
        assert check_histories(tmp_path) == 1
    else:
        with pytest.raises(AssertionError, match="collected never falls"):
            check_histories(tmp_path)
