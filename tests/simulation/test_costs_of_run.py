"""What the work of a run costs, read from its traces; and what they do not tell is said."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.graph.workload import GroupWork, Workload
from engine.spec import EnvSpec, Experiment
from engine.trace.records import Profile, Record, Resources
from tests.helpers.synthetic_run import write_rows, write_synthetic_run
from tianji_cli.analysis.run import load_run
from tianji_cli.commands.planning.simulate import measure
from tianji_cli.simulation.costs import Cost, cost_of
from tianji_cli.simulation.costs_of_run import costs_of
from tianji_cli.simulation.measured import Measured
from tianji_cli.storage.run_dir import RunPaths

WORK = Workload(
    weights_bytes=4096,
    groups=(GroupWork(num_steps=50, num_envs=8, rollouts_per_batch=2, rollout_bytes=1000),),
)
EXPERIMENT = Experiment(
    name="x", env=EnvSpec(id="CartPole-v1"), algorithm={"name": "ppo"}, actors=2
)


def run_of(directory: Path, *rows: Record, num_batches: int = 120) -> RunPaths:
    paths = write_synthetic_run(directory / "run", num_batches=num_batches)
    write_rows(paths.trace, rows)
    return paths


def measured(paths: RunPaths, policy: str = "tianji") -> Measured:
    experiment = replace(EXPERIMENT, policy=policy)
    return measure(paths, experiment, lambda experiment, cut: WORK)


def profile(role: str, cpu_s: float, **sections_s: float) -> list[Profile]:
    """One row a second from the 3rd on, each with these sections; the rest is waiting."""
    busy_s = sum(sections_s.values())
    sections = {**sections_s, "waiting": 1 - busy_s}
    more = {"process": role, "wall_s": 1.0, "process_cpu_s": cpu_s, "sections_s": sections}
    return [Profile(t_s=3.0 + n, role=role, cpu_s=cpu_s, **more) for n in range(6)]  # type: ignore[arg-type]


def test_durations_are_distributions_and_the_rest_follows_from_processor_time(tmp_path: Path):
    usage = [
        Resources(t_s=t, host="a", process=name, pid=1, cpu_s=t * rate, rss_bytes=1, num_threads=1)
        for name, rate in (("actor-0", 0.3), ("actor-1", 0.3), ("buffer-0", 0.01))
        for t in (2.5, 9.0)
    ]
    found = measured(run_of(tmp_path, *usage))
    costs = costs_of(found)
    basis = costs.basis
    assert (basis.batch_size, basis.actors_per_host, basis.cores) == (800, 2, 8)
    assert basis.rollout_fill == 1.0
    assert not basis.is_profiled
    assert costs.collect is not None
    assert costs.collect.mean_s == pytest.approx(0.05)
    rollouts_per_s = len(found.production) / found.wall_s
    assert costs.collect.share == pytest.approx(0.6 / rollouts_per_s / 0.05, rel=0.01)
    assert costs.store.mean_s == pytest.approx(0.01 / rollouts_per_s, rel=0.01)
    assert costs.updates_per_batch == 16
    assert (costs.env_step, costs.act, costs.merge, costs.draw) == (None,) * 4
    gaps_s = [b.t_s - a.t_s - 0.045 for a, b in zip(found.consumption, found.consumption[1:])]  # noqa: B905
    assert costs.publish_s == pytest.approx(sum(gaps_s) / 3 / len(found.consumption), rel=0.05)


def test_a_profile_tells_steps_from_actions_and_waiting_for_a_core_from_work(tmp_path: Path):
    actor = {"environment": 0.5, "inference": 0.2, "recording": 0.05, "sending": 0.01}
    rows = [
        *profile("actor-0", 0.36, **actor),
        *profile("actor-1", 0.36, **actor),
        *profile("learner-0", 0.2, updating=0.4, weights=0.02),
        *profile("buffer-0", 0.02, control=0.02),
        *profile("coordinator", 0.03, tracing=0.03),
    ]
    found = measured(run_of(tmp_path, *rows))
    costs = costs_of(found)
    steps = len(found.production) * 50
    assert costs.basis.is_profiled
    assert costs.env_step is not None
    assert costs.env_step.mean_s == pytest.approx(2 * 6 * 0.5 / steps)
    assert costs.env_step.share == pytest.approx((0.36 - 0.26) / 0.5)
    assert costs.act is not None
    assert costs.act.mean_s == pytest.approx(2 * 6 * 0.25 / steps)
    assert costs.collect is not None
    assert costs.collect.share == pytest.approx(0.36 / 0.76)
    assert costs.update.mean_s == pytest.approx(0.04 * 0.2 / 0.42)
    reports = len(found.production) + 2 * len(found.consumption)
    assert costs.report_s == pytest.approx((6 * 0.03 - 0.003 * found.wall_s) / reports)


def test_the_update_of_a_learner_on_a_device_takes_as_long_as_it_took(tmp_path: Path):
    """Its own thread only waits meanwhile."""
    paths = run_of(tmp_path, *profile("learner-0", 0.02, updating=0.9))
    manifest = json.loads(paths.manifest.read_text())
    assert costs_of(measured(paths)).update.mean_s < 0.01
    manifest["processes"] = {"learner-0": {"host": "a", "devices": {"learner-0": "cuda:0"}}}
    paths.manifest.write_text(json.dumps(manifest))
    assert costs_of(measured(paths)).update.mean_s == pytest.approx(0.04)


def test_the_first_fifth_and_what_was_not_compiled_yet_do_not_count(tmp_path: Path):
    found = measured(run_of(tmp_path))
    last_s = load_run(found.run.paths).production[-1].t_s
    assert found.begin_s == pytest.approx(0.2 * last_s, rel=0.02)
    assert all(row.t_s > found.begin_s for row in found.production)


def test_a_run_that_is_too_short_tells_nothing(tmp_path: Path):
    with pytest.raises(ConfigError, match="5 rollouts, of which") as raised:
        costs_of(measured(run_of(tmp_path, num_batches=2)))
    assert "stop.seconds=60" in str(raised.value.fix)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("local", "an actor shares its process"),
        ("single-learner-fine", "an actor shares its process or its steps"),
    ],
)
def test_fused_roles_are_told_apart_by_a_profile_alone(policy: str, words: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=words) as raised:
        costs_of(measured(run_of(tmp_path), policy))
    assert "--profile" in str(raised.value.fix)


def test_a_distribution_keeps_its_mean_and_spread():
    values = [random.Random(1).expovariate(1.0) for _ in range(1)] + [
        float(i % 97) for i in range(5000)
    ]
    thinned = cost_of(values)
    assert len(thinned.walls_s) == 200
    assert thinned.mean_s == pytest.approx(sum(values) / len(values), rel=0.01)
    assert (thinned.walls_s[0], thinned.walls_s[-1]) == (pytest.approx(0, abs=1), 96.0)


def test_another_latency_changes_only_what_was_waited_for():
    cost = Cost(walls_s=(1.0, 2.0), share=0.2)
    slower = cost.changed(0.5, 1.5, 1.0)
    assert slower.walls_s == (2.0, 3.0)
    assert slower.share * slower.mean_s == pytest.approx(cost.share * cost.mean_s)
    halved = cost.changed(0.5, 0.5, 0.5)
    assert halved.walls_s == (0.75, 1.25)


def test_graph_of_a_run(tmp_path: Path):
    graph = build_graph(read_policy("single-learner-coarse"), EXPERIMENT)
    found = Measured(load_run(run_of(tmp_path)), EXPERIMENT, graph, WORK)
    assert (found.is_alone("actor"), found.is_alone("learner")) == (True, False)
