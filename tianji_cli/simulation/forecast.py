"""Simulates a run at one size after the other, and says what limits it at each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from engine.errors import ConfigError
from engine.graph.cut import Cut
from engine.graph.workload import Workload
from engine.spec import Experiment
from engine.wording import plural
from tianji_cli.config.cluster import ClusterSpec
from tianji_cli.simulation.adapted import Adapted
from tianji_cli.simulation.costs import Costs
from tianji_cli.simulation.limits import Limit, ResourceLoad, limit_of, loads_between, usage_of
from tianji_cli.simulation.spread import Spread, spread_over
from tianji_cli.simulation.world import SimulatedWorld

WARM_UP = 0.2
"""Of the simulated time; what is waited for, and how busy everything is, counts after it."""
ROLLOUTS, BATCHES = 12, 40
"""Simulated until each actor has collected so many, and a learner has trained on so many."""
FEW_BATCHES = 20
LONGER = (1.0, 5.0, 25.0)
"""Factors of that time, until there were enough batches."""
MOST_CALLS = 400_000
"""A simulation of one size ends after so many events, some ten seconds."""
PAYS = 0.5
"""Adding hosts pays while twice the hosts give at least 2^0.5 = 1.4 times the env steps."""

Sizing = Callable[[Experiment, Cut], Workload]


class SizeForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do on so many hosts.

    Attributes:
        hosts, actors, groups: Its size; 0 actors if it cannot be run.
        collect_per_s, consume_per_s: Env steps per second; null if it cannot be run.
        updates_per_s: Batches trained per second, over all groups; one that learners share is one.
        lag_mean, lag_max: In versions; null with replay.
        collecting_share: Of the time of all actors, spent collecting; the rest is waiting.
        limit: What limits it.
        limit_words: The same for people, with the reason.
        loads: The busiest resource of each kind, the busiest first.
        simulated_s: Simulated seconds.
        problem: Why it cannot be run; empty if it can.
    """

    hosts: int
    actors: int = 0
    groups: int = 0
    collect_per_s: float | None = None
    consume_per_s: float | None = None
    updates_per_s: float | None = None
    lag_mean: float | None = None
    lag_max: int | None = None
    collecting_share: float | None = None
    limit: Limit | None = None
    limit_words: str = ""
    loads: tuple[ResourceLoad, ...] = ()
    simulated_s: float = 0.0
    problem: str = ""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do on a growing number of hosts.

    Attributes:
        policy, run_id: What is simulated, from the costs of which run.
        sizes: In the order that they were asked for.
        pays_up_to: Hosts beyond which twice as many give less than 1.4 times the env steps; null
            if there is no such number among the sizes.
        assumptions: What was assumed rather than measured.
        wall_s: How long the simulation took.
    """

    policy: str
    run_id: str
    sizes: tuple[SizeForecast, ...]
    pays_up_to: int | None
    assumptions: tuple[str, ...]
    cluster: ClusterSpec
    wall_s: float


def forecast(
    hosts: Sequence[int],
    experiment: Experiment,
    costs: Costs,
    cluster: ClusterSpec,
    sizing: Sizing,
    *,
    show: Callable[[int], None] = lambda hosts: None,
    seed: int = 0,
) -> Forecast:
    """Simulates a run at several sizes.

    Args:
        hosts: Numbers of hosts.
        experiment: What is run, with the numbers of actors and groups of the measured run.
        costs: What its work was measured to cost.
        cluster: The hosts.
        sizing: Looks at the sizes of a run's work.
        show: Called with each number of hosts before it is simulated.
        seed: Of the chance with which durations are drawn.

    Raises:
        ConfigError: The costs do not tell what this policy needs to know.
    """
    began_s, found, spreads = time.monotonic(), [], []
    for count in hosts:
        show(count)
        try:
            spread = spread_over(count, experiment, cluster, costs.basis)
            workload = sizing(spread.experiment, spread.graph.cut)
        except ConfigError as error:
            found.append(SizeForecast(hosts=count, problem=error.what))
            continue
        adapted = Adapted(costs, cluster, spread, workload.weights_bytes)
        found.append(simulate(spread, workload, adapted, cluster, seed))
        spreads.append((spread, workload))
    if not spreads:
        raise ConfigError(f"none of these sizes can be run: {found[0].problem}", where="--simulate")
    return Forecast(
        policy=experiment.policy,
        run_id=costs.basis.run_id,
        sizes=tuple(found),
        pays_up_to=pays_up_to(found),
        assumptions=tuple(assumptions_of(costs, cluster, spreads)),
        cluster=cluster,
        wall_s=time.monotonic() - began_s,
    )


def simulate(
    spread: Spread, workload: Workload, adapted: Adapted, cluster: ClusterSpec, seed: int = 0
) -> SizeForecast:
    """Simulates a run at one size, long enough for a steady rate.

    Where something that is not known beforehand slows it down, such as the network, it is simulated
    again for longer.
    """
    least_s = _enough_s(spread, workload, adapted)
    for factor in LONGER:
        world = SimulatedWorld(spread, workload, adapted, cluster, seed)
        found = _simulate_for(least_s * factor, world, spread, workload)
        enough = FEW_BATCHES * spread.graph.cut.groups
        if world.tally.num_batches >= enough or world.timeline.num_calls >= MOST_CALLS / 4:
            break
    return found


def _simulate_for(
    until_s: float, world: SimulatedWorld, spread: Spread, workload: Workload
) -> SizeForecast:
    world.start()
    timeline = world.timeline
    timeline.run(until_s * WARM_UP, round(MOST_CALLS * WARM_UP))
    elsewhere = world.env_steps_elsewhere
    before, batches = usage_of(world), world.tally.num_batches
    world.tally.reset()
    timeline.run(until_s, MOST_CALLS - timeline.num_calls)
    tally, wall_s = world.tally, timeline.now_s - before.at_s
    loads = loads_between(before, usage_of(world))
    active_s = wall_s * spread.experiment.actors
    collecting = min(tally.collect_s / active_s, 1.0) if active_s else 0.0
    rate = tally.collect_per_s(spread.experiment.actors, collecting)
    if world.has_remote_env and wall_s:  # rollouts of many actors can take longer than is simulated
        rate = (world.env_steps_elsewhere - elsewhere) / wall_s
    limit, words = limit_of(loads, collecting, spread, workload)
    learners = spread.graph.cut.groups if spread.graph.cut.is_joint else 1
    is_replay = workload.of_group(0).replay is not None
    return SizeForecast(
        hosts=spread.hosts,
        actors=spread.experiment.actors,
        groups=spread.graph.cut.groups,
        collect_per_s=rate,
        consume_per_s=tally.consume_per_s,
        updates_per_s=(tally.num_batches - batches) / learners / wall_s if wall_s else 0.0,
        lag_mean=None if is_replay else tally.lag_mean,
        lag_max=None if is_replay else max(tally.lags, default=None),
        collecting_share=collecting,
        limit=limit,
        limit_words=words,
        loads=tuple(loads),
        simulated_s=timeline.now_s,
    )


def _enough_s(spread: Spread, workload: Workload, adapted: Adapted) -> float:
    """Simulated time until everything has happened often enough, at the slowest that it can be."""
    work, cut = workload.of_group(0), spread.graph.cut
    if cut.has_remote_env:
        step_s = adapted.env_step(work).mean_s + adapted.act.mean_s
        rollout_s = work.num_steps * step_s
    else:
        rollout_s = adapted.collect(work).mean_s
    batch_s = adapted.update(work).mean_s
    per_batch = work.rollouts_per_batch or 1
    actors = max(len(cut.actors_of(0)), 1)
    return max(ROLLOUTS * rollout_s, BATCHES * batch_s, BATCHES * rollout_s * per_batch / actors)


def pays_up_to(sizes: Sequence[SizeForecast]) -> int | None:
    """The number of hosts after which more of them give too little; None if that is not seen.

    >>> sizes = [(1, 10.0), (2, 20.0), (4, 39.0), (8, 44.0), (16, 44.0)]
    >>> pays_up_to([SizeForecast(hosts=n, collect_per_s=rate) for n, rate in sizes])
    4
    """
    known = sorted((s.hosts, s.collect_per_s) for s in sizes if s.collect_per_s)
    last = None
    for (few, rate), (many, more) in pairwise(known):
        is_worth_it = many > few and math.log(more / rate) >= PAYS * math.log(many / few)
        last = many if is_worth_it else last
    if last is None:
        return known[0][0] if len(known) > 1 else None
    return None if last == known[-1][0] else last


def assumptions_of(
    costs: Costs, cluster: ClusterSpec, spreads: Sequence[tuple[Spread, Workload]]
) -> list[str]:
    """What was assumed rather than measured, for people."""
    network, basis = cluster.network, costs.basis
    found = [
        f"network: {network.bandwidth_mbit_s:g} Mbit/s and {network.latency_ms:g} ms between hosts,"
        f" {network.encryption_mb_s:g} MB/s encrypted by a process"
    ]
    if cluster.cores is None:
        cores = plural(basis.cores, "core")
        found.append(f"hosts of {cores}, as that of the measured run with most")
    speeds = {name: getattr(cluster.speed, name) for name in cluster.speed.__struct_fields__}
    words = [f"{name} {factor:g} times as fast" for name, factor in speeds.items() if factor != 1]
    if words:
        found.append(f"{', '.join(words)} as measured: your assumption, not a measurement")
    if not basis.is_profiled:
        found.append("no profile: processor time is that of whole processes")
    works = [work for _, workload in spreads for work in workload.groups]
    if any(work.batch_size != basis.batch_size for work in works):
        found.append("updates take time in proportion to their samples")
    if any(work.num_envs != basis.num_envs for work in works):
        found.append("steps take time in proportion to their environments, apart from latency")
    if costs.merge is None and any(spread.graph.count("reducer") for spread, _ in spreads):
        found.append("merging passes 1 GB/s: the measured run had no reducer")
    return found
