"""What the rows of a run add up to: the same figures as those of its summary."""

from __future__ import annotations

import math

import pytest

from engine.trace.records import (
    Consumption,
    Event,
    Merge,
    Production,
    Record,
    Replay,
    Resources,
    WeightsPublished,
)
from engine.trace.summary import Summary
from tests.helpers.synthetic_run import make_trace, manifest_of, summary_of
from tests.helpers.watching import manifest_of_run
from tianji_cli.analysis.run import ManifestView
from tianji_cli.watch.run_tally import MAX_DETAIL, MAX_EVENTS, MAX_SOURCES, RunTally
from tianji_cli.watch.usage import FRESH_S


def tally_of(rows: list[Record], manifest: ManifestView | None = None) -> RunTally:
    tally = RunTally(manifest or ManifestView(manifest_of("run", 450.0)))
    for row in rows:
        tally.add(row)
    return tally


@pytest.fixture
def summary() -> Summary:
    return summary_of("run", "ok", 450.0, make_trace(1.0, 450.0, 120))


def test_the_figures_are_those_of_the_summary(summary):
    tally = tally_of(make_trace(1.0, 450.0, 120).rows)
    figures = tally.figures(tally.last_s)
    assert figures.env_steps_collected == summary.env_steps_collected
    assert figures.env_steps_consumed == summary.env_steps_consumed
    assert figures.env_steps_in_flight == summary.env_steps_in_flight
    assert figures.samples_trained == summary.samples_trained
    assert figures.weights_version == summary.weights_version
    assert figures.episodes == summary.episodes
    assert figures.return_mean == pytest.approx(summary.return_mean)
    assert figures.collect_per_s == pytest.approx(summary.collect_per_s, rel=0.1)
    assert figures.balance == pytest.approx(1.0, rel=0.05)
    assert (figures.lag_max, figures.max_lag, figures.threshold) == (1, 1, 450.0)


def test_a_bound_on_lag_that_moves_is_the_newest(summary):
    """Of several learners, the largest."""
    told = manifest_of("run", 450.0)
    staleness = {"mode": "block", "max_lag": "auto"}
    manifest = ManifestView({**told, "experiment": {"staleness": staleness}})
    assert tally_of([], manifest).figures(0.0).max_lag == 1
    rows = [
        Event(t_s=1.0, kind="lag-bound", host="", role=role, detail="", max_lag=bound)
        for role, bound in (("learner-0", 4), ("learner-0", 2), ("learner-1", 1))
    ]
    assert tally_of(list(rows), manifest).figures(2.0).max_lag == 2


def test_the_curves_are_those_of_the_rows(summary):
    trace = make_trace(1.0, 450.0, 120)
    tally = tally_of(trace.rows)
    returns, lags, rates = tally.returns(), tally.lags(), tally.rates(math.inf)
    assert returns.mean[-1] == pytest.approx(summary.return_mean)
    assert max(returns.high) == max(trace.returns)
    assert dict(zip(lags.low, lags.env_steps, strict=True)) == trace.lag_steps
    width_s = rates.t_s[1] - rates.t_s[0]
    assert sum(rates.collect) * width_s == pytest.approx(summary.env_steps_collected)
    assert sum(rates.trained) * width_s == pytest.approx(summary.samples_trained)


def test_a_resumed_run_goes_on_counting():
    data = manifest_of("run", None)
    data["resumed_from"] = {
        "counters": {"elapsed_s": 50.0, "env_steps_collected": 7000, "episodes": 3}
    }
    tally = tally_of([], ManifestView(data))
    figures = tally.figures(tally.last_s)
    assert (figures.t_s, figures.env_steps_collected, figures.episodes) == (50.0, 7000, 3)


def test_a_replay_store_says_what_was_consumed():
    rows: list[Record] = []
    for i in range(20):
        rows += [
            Production(
                t_s=float(i), actor=0, epoch=0, sequence=i, env_steps=10, env_steps_total=0,
                version_min=0, version_max=0, collect_s=1.0, wait_s=0.0,
            ),
            Replay(
                t_s=float(i), buffer=0, env_steps=10, env_steps_total=0, samples=40,
                samples_total=0, size_env_steps=0, replay_ratio=4.0, sample_age_mean_s=0.0,
                sample_age_max_s=0.0,
            ),
            Consumption(
                t_s=float(i), learner=0, version=i, env_steps=0, env_steps_total=0,
                samples_trained=40, samples_trained_total=0, updates_total=i, wait_s=0.0,
                update_s=0.0, metrics={},
            ),
        ]  # fmt: skip
    manifest = manifest_of_run({"a": ["actor-0", "buffer-0", "learner-0"]})
    tally = tally_of(rows, manifest)
    figures = tally.figures(tally.last_s)
    assert figures.consume_per_s == pytest.approx(10.0)
    assert figures.trained_per_s == pytest.approx(40.0)
    assert figures.replay_ratio == pytest.approx(4.0)
    rates = {edge.carries: edge.per_s for edge in tally.flow(tally.last_s, is_over=False).edges}
    assert rates["rollout"] == pytest.approx(10.0)
    assert rates["batch"] == pytest.approx(40.0)


def test_edges_have_the_rates_of_their_roles():
    rows: list[Record] = []
    for i in range(100):
        t_s = i / 10
        rows.append(
            WeightsPublished(t_s=t_s, learner=0, version=i, num_bytes=1000, num_subscribers=2)
        )
        rows += [
            Production(
                t_s=t_s, actor=actor, epoch=0, sequence=i, env_steps=5 * (actor + 1),
                env_steps_total=0, version_min=0, version_max=0, collect_s=0.1, wait_s=0.0,
            )
            for actor in (0, 1)
        ]  # fmt: skip
        rows.append(
            Merge(
                t_s=t_s, group=0, version=i, lag=0, lag_max=0, versions={}, shares={},
                merges_total=i,
            )
        )  # fmt: skip
    hosts = {"a": ["learner-0", "buffer-0", "reducer-0"], "b": ["actor-0"], "c": ["actor-1"]}
    tally = tally_of(rows, manifest_of_run(hosts))
    flow = tally.flow(tally.last_s, is_over=False)
    found = {
        (edge.carries, flow.nodes[edge.source].host, flow.nodes[edge.target].host): edge
        for edge in flow.edges
    }
    assert found["rollout", "b", "a"].per_s == pytest.approx(50.0)
    assert found["rollout", "c", "a"].per_s == pytest.approx(100.0)
    assert found["weights", "a", "b"].per_s == pytest.approx(10.0)
    assert found["weights", "a", "b"].bytes_per_s == pytest.approx(10_000.0)
    assert found["model", "a", "a"].per_s == pytest.approx(10.0)


def test_the_newest_events_are_kept_and_bounded():
    rows: list[Record] = [
        Event(t_s=float(i), kind="drop", host="h", role="actor-0", detail="\x1b" + "x" * 10_000)
        for i in range(MAX_EVENTS + 50)
    ]
    tally = tally_of(rows)
    events = tally.events()
    assert (len(events), tally.num_events) == (MAX_EVENTS, MAX_EVENTS + 50)
    assert events[-1].t_s == MAX_EVENTS + 49
    assert len(events[0].detail) < MAX_DETAIL + 10
    assert "\x1b" not in events[0].detail


def test_any_number_of_sources_takes_bounded_memory():
    tally = tally_of([])
    for i in range(MAX_SOURCES + 100):
        tally.add(WeightsPublished(t_s=0.0, learner=i, version=0, num_bytes=0, num_subscribers=0))
        tally.add(
            Resources(
                t_s=0.0, host="h", process=f"p{i}", pid=1, cpu_s=0.0, rss_bytes=1, num_threads=1
            )
        )
    assert len(tally._by_role) == MAX_SOURCES


def test_resources_are_those_of_the_last_measurement():
    hosts = {"a": ["coordinator", "learner-0", "buffer-0"], "b": ["actor-0"]}
    tally = tally_of(
        [
            Resources(
                t_s=t_s, host=host, process=process, pid=pid, cpu_s=cpu_s, rss_bytes=2**20,
                num_threads=3,
            )
            for t_s, host, process, pid, cpu_s in (
                (100.0, "a", "learner-0", 7, 1.0),
                (102.0, "a", "learner-0", 7, 4.0),
                (102.0, "a", "supervisor", 9, 0.1),
                (100.0, "b", "actor-0", 8, 50.0),
                (102.0, "b", "actor-0", 18, 0.5),
            )
        ],
        manifest_of_run(hosts),
    )  # fmt: skip
    processes = tally.usage.processes(tally.processes, tally.states(is_over=False), 103.0)
    by_name = {row.process: row for row in processes}
    assert by_name["learner-0"].cores == pytest.approx(1.5)
    assert by_name["learner-0"].age_s == pytest.approx(1.0)
    assert by_name["actor-0"].cores is None, "another process has its name now"
    assert by_name["supervisor"].host == "a"
    first, second = tally.usage.hosts(processes)
    assert (first.host, first.cores, first.rss_bytes) == ("a", pytest.approx(1.5), 2**21)
    assert (second.host, second.cores, second.num_cores) == ("b", None, 4)
    old = tally.usage.processes(tally.processes, {}, 102.0 + 2 * FRESH_S)
    assert tally.usage.hosts(old)[0].rss_bytes is None
