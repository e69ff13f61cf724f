"""Simulated runs against what can be worked out by hand, and against the rules of the roles."""

from __future__ import annotations

import time
from functools import cache

import msgspec
import pytest
from msgspec.structs import replace

from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.graph.cut import Cut
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.graph.workload import Workload
from engine.runtime.sizing import workload_of
from engine.spec import Experiment
from tianji_cli.config.cluster import ClusterNetworkSpec, ClusterSpec, SpeedSpec
from tianji_cli.config.lookup import find_file
from tianji_cli.simulation.costs import Basis, Cost, Costs, cost_of
from tianji_cli.simulation.forecast import Forecast, SizeForecast, forecast, pays_up_to

ROLLOUT_S, UPDATE_S = 0.4, 0.02
COST = {"tianji": "cartpole_ppo", "impala": "cartpole_impala", "apex": "cartpole_dqn"}


@cache
def experiment_of(policy: str, *settings: str) -> Experiment:
    name = COST.get(policy, "cartpole_ppo")
    words = [f"policy={policy}", "actors=1", *settings]
    return load_experiment(find_file("experiments", name), words)[0]


def costs_of(experiment: Experiment, **more: object) -> Costs:
    work = sizing(experiment, build_graph(read_policy(experiment.policy), experiment).cut)
    group = work.of_group(0)
    basis = Basis(
        run_id="measured",
        policy=experiment.policy,
        num_steps=group.num_steps,
        num_envs=group.num_envs,
        latency_s=0.0,
        batch_size=group.batch_size,
        rollout_fill=1.0,
        is_on_device=experiment.policy == "gpu-only",
        is_profiled=True,
        actors_per_host=1,
        cores=4,
        groups=experiment.groups,
    )
    step_s = ROLLOUT_S / group.num_steps
    costs = Costs(
        basis=basis,
        collect=cost_of([ROLLOUT_S], 0.1),
        env_step=cost_of([step_s * 0.9], 0.1),
        act=cost_of([step_s * 0.1], 0.1),
        update=cost_of([UPDATE_S]),
        updates_per_batch=4,
        publish_s=0.0,
        store=cost_of([0.0]),
        draw=cost_of([0.001]),
        merge=None,
        evaluate=None,
        report_s=1e-5,
    )
    return replace(costs, **more)


def simulated(
    policy: str,
    hosts: tuple[int, ...],
    *settings: str,
    cluster: ClusterSpec | None = None,
    **costs: object,
) -> Forecast:
    experiment = experiment_of(policy, *settings)
    known = costs_of(experiment, **costs)
    return forecast(hosts, experiment, known, cluster or ClusterSpec(), sizing)


def rates(found: Forecast) -> list[float]:
    return [size.collect_per_s or 0.0 for size in found.sizes]


def steps_of(policy: str) -> int:
    experiment = experiment_of(policy)
    return int(experiment.algorithm.get("rollout_steps", 50)) * experiment.env.num_envs  # type: ignore[arg-type]


_WORKLOADS: dict[bytes, Workload] = {}


def sizing(experiment: Experiment, cut: Cut) -> Workload:
    """As `workload_of`, which makes an environment and a network, but once for each experiment."""
    key = msgspec.json.encode((experiment, cut))
    if key not in _WORKLOADS:
        _WORKLOADS[key] = workload_of(experiment, cut)
    return _WORKLOADS[key]


FREE = ("staleness.max_lag=64",)


def test_actors_that_never_wait_collect_what_their_rollouts_take():
    found = simulated("tianji", (1, 2, 5), *FREE)
    alone = steps_of("tianji") / ROLLOUT_S
    assert rates(found) == pytest.approx([alone, alone, 4 * alone], rel=0.02)
    assert [size.limit for size in found.sizes] == ["actors"] * 3
    assert [size.actors for size in found.sizes] == [1, 1, 4]


def test_a_learner_that_is_always_busy_limits_the_run():
    found = simulated("tianji", (33,), *FREE, update=cost_of([0.1]))
    (size,) = found.sizes
    assert (size.limit, size.collect_per_s) == (
        "learner",
        pytest.approx(steps_of("tianji") / 0.1, rel=0.03),
    )
    assert size.updates_per_s == pytest.approx(10.0, rel=0.03)
    assert size.limit_words.startswith("learner-0: ")


def test_it_is_the_bound_on_lag_that_holds_for_simulated_actors_too():
    """Batches are single rollouts, so two may be under way: the learner's rules, not a model."""
    found = simulated("tianji", (17,))
    (size,) = found.sizes
    assert (size.limit, size.lag_max, size.actors) == ("waiting", 1, 16)
    assert "2 may collect at the same time" in size.limit_words
    assert size.collect_per_s == pytest.approx(2 * steps_of("tianji") / ROLLOUT_S, rel=0.15)
    assert size.collecting_share == pytest.approx(2 / 16, rel=0.15)


def test_synchronous_actors_wait_for_each_update_and_are_never_behind():
    found = simulated("synchronous", (1, 9), cluster=ClusterSpec(grow_batch=True))
    one, many = found.sizes
    steps = steps_of("synchronous")
    assert one.collect_per_s == pytest.approx(steps / (ROLLOUT_S + UPDATE_S), rel=0.02)
    assert many.collect_per_s == pytest.approx(8 * steps / (ROLLOUT_S + 8 * UPDATE_S), rel=0.05)
    assert (one.lag_max, many.lag_max) == (0, 0)


def test_groups_of_their_own_scale_and_their_models_meet():
    cluster = ClusterSpec(hosts_per_group=1)
    found = simulated("tianji", (1, 2, 8), *FREE, cluster=cluster, merge=cost_of([0.001]))
    first = rates(found)[0]
    assert rates(found) == pytest.approx([first, 2 * first, 8 * first], rel=0.05)
    assert [size.groups for size in found.sizes] == [1, 2, 8]
    merging = [load for load in found.sizes[-1].loads if load.kind == "reducer"]
    assert merging
    assert merging[0].share > 0.01


def test_learners_that_share_a_batch_each_do_their_part_and_sum_gradients():
    slow = ClusterSpec(network=ClusterNetworkSpec(latency_ms=20.0))
    quick = simulated("multi-learner", (4,), update=cost_of([0.4])).sizes[0]
    late = simulated("multi-learner", (4,), update=cost_of([0.4]), cluster=slow).sizes[0]
    assert (quick.groups, quick.actors) == (4, 4)
    # A quarter of the batch each; then 5 sums (4 steps, and the agreement) of 6 hops of 20 ms.
    assert late.limit == "gradients"
    assert 1 / late.updates_per_s - 1 / quick.updates_per_s == pytest.approx(5 * 6 * 0.02, rel=0.1)


def test_with_remote_environments_every_step_crosses_the_network():
    far = ClusterSpec(network=ClusterNetworkSpec(latency_ms=8.0))
    near = simulated("single-learner-fine", (2,), *FREE).sizes[0]
    there = simulated("single-learner-fine", (2,), *FREE, cluster=far).sizes[0]
    rollout_s = [steps_of("tianji") / (size.collect_per_s or 0.0) for size in (near, there)]
    num_steps = int(experiment_of("tianji").algorithm["rollout_steps"])  # type: ignore[arg-type]
    assert rollout_s[0] == pytest.approx(ROLLOUT_S + num_steps * 0.0003, rel=0.05)
    assert rollout_s[1] - rollout_s[0] == pytest.approx(2 * num_steps * 0.0079, rel=0.05)


def test_with_replay_the_ratio_is_kept_and_one_side_waits():
    found = simulated("apex", (9,), update=cost_of([0.2]))
    (size,) = found.sizes
    experiment = experiment_of("apex")
    work = sizing(experiment, build_graph(read_policy("apex"), experiment).cut).of_group(0)
    assert work.replay is not None
    expected = work.replay.batch_samples / work.replay.ratio / 0.2
    assert (size.limit, size.lag_mean) == ("learner", None)
    assert size.consume_per_s == pytest.approx(expected, rel=0.05)


def test_weights_that_a_slow_link_cannot_carry_to_all_limit_the_run():
    thin = ClusterSpec(network=ClusterNetworkSpec(bandwidth_mbit_s=4.0))
    (size,) = simulated("impala", (33,), cluster=thin).sizes
    assert size.limit == "network"
    assert size.collect_per_s == pytest.approx(size.consume_per_s, rel=0.05)
    assert size.lag_mean is not None
    assert size.lag_mean > 2


def test_cores_that_are_too_few_limit_the_run_and_faster_ones_help():
    few = ClusterSpec(cores=1, actors_per_host=4)
    collect = {"collect": cost_of([ROLLOUT_S], 1.0)}
    (slow,) = simulated("tianji", (2,), *FREE, cluster=few, **collect).sizes
    fast = replace(few, speed=SpeedSpec(stepping=2.0, acting=2.0))
    (twice,) = simulated("tianji", (2,), *FREE, cluster=fast, **collect).sizes
    assert (slow.actors, slow.limit) == (4, "cores")
    assert slow.collect_per_s == pytest.approx(steps_of("tianji") / ROLLOUT_S, rel=0.05)
    assert twice.collect_per_s == pytest.approx(2 * (slow.collect_per_s or 0.0), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["tianji", "single-learner-fine", "multi-learner"])
def test_512_hosts_take_less_than_30_seconds_of_a_core(policy: str):
    cluster = ClusterSpec(hosts_per_group=1, actors_per_host=2, grow_batch=True)
    began_s = time.process_time()
    (size,) = simulated(policy, (512,), "staleness.max_lag=64", cluster=cluster).sizes
    assert time.process_time() - began_s < 30
    assert size.actors in (1022, 1024)
    assert size.collect_per_s


@pytest.mark.parametrize("policy", ["local", "environments", "central", "gpu-only"])
def test_every_policy_can_be_simulated(policy: str):
    found = simulated(policy, (1, 2))
    assert all(size.collect_per_s and not size.problem for size in found.sizes)


def test_the_same_seed_gives_the_same_forecast():
    spread = Cost(walls_s=(0.1, 0.2, 0.9), share=0.2)
    one, two = (simulated("tianji", (3,), *FREE, collect=spread).sizes for _ in range(2))
    assert one == two


def test_a_size_that_cannot_be_run_says_why_and_the_others_are_simulated():
    found = simulated("multi-learner", (1, 64))
    assert found.sizes[0].collect_per_s
    assert "cannot be shared by 64 learners" in found.sizes[1].problem
    with pytest.raises(ConfigError, match="none of these sizes can be run"):
        simulated("multi-learner", (64,))


@pytest.mark.parametrize(
    ("policy", "more", "words"),
    [
        ("single-learner-fine", {"act": None}, "every step crosses between processes"),
        ("gpu-only", {"basis": None}, "has environments of tensors"),
    ],
)
def test_costs_that_a_run_does_not_tell_are_not_invented(
    policy: str, more: dict[str, object], words: str
):
    if "basis" in more:
        more = {"basis": costs_of(experiment_of("tianji")).basis}
    with pytest.raises(ConfigError, match=words):
        simulated(policy, (1,), **more)


def test_what_was_assumed_is_said():
    cluster = ClusterSpec(speed=SpeedSpec(updating=3.0), grow_batch=True, hosts_per_group=4)
    found = simulated("tianji", (1, 8), cluster=cluster)
    said = " / ".join(found.assumptions)
    for words in (
        "10000 Mbit/s",
        "hosts of 4 cores",
        "updating 3 times as fast",
        "in proportion to their samples",
        "the measured run had no reducer",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("rates", "last"),
    [
        pytest.param({1: 10, 2: 20, 4: 39, 8: 44, 16: 44}, 4, id="a knee"),
        pytest.param({1: 10, 2: 10, 4: 30, 8: 70}, None, id="still growing"),
        pytest.param({1: 10, 2: 11, 4: 12}, 1, id="never"),
        pytest.param({1: 10}, None, id="one size says nothing"),
        pytest.param({1: 10, 2: None, 4: 40, 8: 41}, 4, id="one that cannot be run"),
    ],
)
def test_where_adding_hosts_stops_paying(rates: dict[int, float | None], last: int | None):
    sizes = [SizeForecast(hosts=hosts, collect_per_s=rate) for hosts, rate in rates.items()]
    assert pays_up_to(sizes) == last
