"""Runs that go on from a checkpoint: versions, counters, time and books go on; nothing is repeated.

What is exact: the learner's state (`test_checkpoint.py` compares every bit after further updates).
What is not: environments begin new episodes with new random numbers, so a resumed run is another
run from there on; resuming twice from one checkpoint gives the same run twice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from engine.blueprint import make_blueprint
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.progress import Resumed
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.spec import Experiment, StopSpec
from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.reader import read_table
from engine.trace.records import Consumption, Episode, Ledger, Production, Staleness
from engine.trace.records import Event as TraceEvent
from tests.helpers.engine.inline_runs import Result
from tests.helpers.engine.small_learners import REPLAYED
from tests.helpers.engine.small_learners import experiment as small

ALGORITHMS = ("ppo", "impala", "dqn", "sac")
FIRST, SECOND = 1000, 2000
"""Env steps after which the first and the second run end."""


def experiment(name: str, env_steps: int, **changes: object) -> Experiment:
    base = msgspec.structs.replace(small(name), stop=StopSpec(env_steps=env_steps))
    return msgspec.structs.replace(base, **changes)


def run(root: Path, wanted: Experiment, origin: Path | None = None) -> Result:
    """A run in this thread, from the newest checkpoint of another one if there is one."""
    for name in ("trace", "checkpoints"):
        (root / name).mkdir(parents=True)
    graph = build_graph(read_policy("local"), wanted)
    info = RunInfo(
        run_id=root.name,
        num_hosts=1,
        num_actors=wanted.actors,
        num_groups=1,
        resumed=origin and taken_over(origin, root),
    )
    addresses = graph.processes[0].roles
    InlineRun(make_blueprint(wanted), info, addresses, root, lambda _: None).run()
    return Result(root)


def taken_over(origin: Path, root: Path) -> Resumed:
    info = choose_checkpoint(origin / "checkpoints", "last").info
    for name in (info.name, info.tensors_name):
        shutil.copy(origin / "checkpoints" / name, root / "checkpoints" / name)
    lost = info.counters.env_steps_collected - info.counters.env_steps_consumed
    return Resumed(
        run_id=origin.name,
        checkpoint=info.name,
        version=info.version,
        updates=info.updates,
        counters=msgspec.structs.replace(info.counters, env_steps_dropped=lost),
        resumes=info.resumes + 1,
    )


def name_of(result: Result) -> str:
    """The algorithm of a run of `pair`."""
    return next(name for name in ALGORITHMS if name in str(result.root))


@pytest.fixture(scope="module", params=ALGORITHMS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Result]:
    """A run with two actors, and one with three that goes on from it."""
    root = tmp_path_factory.mktemp(request.param)
    first = run(root / "first", experiment(request.param, FIRST))
    second = experiment(request.param, SECOND, actors=3)
    return first, run(root / "second", second, first.root)


def test_counters_versions_and_time_go_on(pair: tuple[Result, Result]):
    before, after = (result.summary for result in pair)
    assert (after.status, after.resumed_from) == ("ok", "first")
    assert after.weights_version > before.weights_version > 0
    assert after.updates > before.updates
    assert after.samples_trained > before.samples_trained
    assert after.episodes > before.episodes
    assert after.wall_s > before.wall_s
    assert SECOND <= after.env_steps_consumed < SECOND + 200, "the limit is for both together"


def test_the_books_of_both_balance_as_one(pair: tuple[Result, Result]):
    before, after = pair
    saved = choose_checkpoint(before.root / "checkpoints", "last").info.counters
    for row in read_table(after.trace, Ledger):
        assert row.collected == row.consumed + row.dropped + row.in_flight
        assert row.consumed >= saved.env_steps_consumed > 0
    collected = [sum(r.env_steps for r in read_table(x.trace, Production)) for x in pair]
    assert after.summary.env_steps_collected == sum(collected)


def test_no_version_is_trained_twice_and_no_lag_exceeds_the_bound(pair: tuple[Result, Result]):
    before, after = pair
    versions = [[r.version for r in read_table(x.trace, Consumption)] for x in pair]
    assert versions[1][0] == before.summary.weights_version
    both = versions[0] + versions[1]
    assert both == sorted(set(both))
    lags = [row.lag_max for row in read_table(after.trace, Staleness)]
    assert min(lags) >= 0
    if name_of(after) not in REPLAYED:
        assert max(lags) <= 1


def test_the_curve_goes_on_where_it_was(pair: tuple[Result, Result]):
    before, after = pair
    episodes = read_table(after.trace, Episode)
    assert min(row.env_steps_collected for row in episodes) > FIRST
    assert min(row.t_s for row in episodes) >= before.summary.wall_s
    (row,) = [row for row in read_table(after.trace, TraceEvent) if row.kind == "resumed"]
    assert "run first" in row.detail


def test_resuming_again_gives_the_same_run_and_not_the_one_that_was_before(
    pair: tuple[Result, Result], tmp_path: Path
):
    before, after = pair
    again = run(tmp_path / "second", experiment(name_of(after), SECOND, actors=3), before.root)
    assert again.rows_without_times() == after.rows_without_times()
    returns = [
        [row.episode_return for row in read_table(x.trace, Episode) if row.actor == 0]
        for x in (before, after)
    ]
    assert returns[0][:10] != returns[1][:10], "environments do not begin again"


def test_a_resumed_run_can_be_resumed(pair: tuple[Result, Result], tmp_path: Path):
    _, after = pair
    third = run(tmp_path / "third", experiment(name_of(after), SECOND + 500), after.root)
    assert third.summary.env_steps_consumed >= SECOND + 500
    info = choose_checkpoint(third.root / "checkpoints", "last").info
    assert info.resumes == 2
