"""Builds the processes of a run on simulated hosts: real roles, with performers of known cost."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

from engine.graph.workload import GroupWork, Workload
from engine.messages import AnyMessage, Report, Start, WeightsArrived, index_of, role_of
from engine.progress import LimiterState
from engine.replay.limiter import make_limiter
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import Role
from engine.roles.environment import EnvironmentRole
from engine.roles.evaluator import EvaluatorRole
from engine.roles.learner import LearnerRole
from engine.roles.reducer import ReducerRole
from engine.roles.replay_buffer import ReplayBufferRole, SavedCounts
from engine.wire.header import HEADER_BYTES
from engine.wire.learner_ring import SHORT_BYTES
from engine.wire.outgoing import MAX_IN_FLIGHT_BYTES, MIN_IN_FLIGHT
from tianji_cli.config.cluster import ClusterSpec
from tianji_cli.planning.placement import Placement
from tianji_cli.simulation.adapted import Adapted
from tianji_cli.simulation.collecting import Collecting, Stepping
from tianji_cli.simulation.network import LOCAL_S, Network
from tianji_cli.simulation.performers import (
    Common,
    Evaluating,
    Idle,
    Merging,
    Storing,
    bytes_of,
)
from tianji_cli.simulation.process import Performer, SimulatedProcess
from tianji_cli.simulation.spread import Spread
from tianji_cli.simulation.tally import Tally
from tianji_cli.simulation.timeline import Cores, Timeline
from tianji_cli.simulation.training import Meeting, Training

WEIGHT, NICE_WEIGHT = 1024.0, 335.0
"""Of the kernel's scheduler, at a niceness of 0 and of 5 (`engine.host.cores`)."""
NICE = frozenset({"actor", "environment", "evaluator"})


class SimulatedWorld:
    """A run on a cluster.

    Args:
        spread: Which process is where.
        workload: Its sizes.
        costs: Of its work on these hosts.
        cluster: What the hosts are like.
        seed: Of the chance with which durations are drawn.
    """

    def __init__(
        self,
        spread: Spread,
        workload: Workload,
        costs: Adapted,
        cluster: ClusterSpec,
        seed: int = 0,
    ) -> None:
        self.timeline = Timeline()
        self.tally = Tally(self.timeline)
        self.network = Network(cluster.network)
        self.cores: dict[str, Cores] = {}
        self.devices: dict[str, Cores] = {}
        self.processes: dict[str, SimulatedProcess] = {}
        self.has_remote_env = spread.graph.cut.has_remote_env
        self.learners_meet = spread.graph.cut.is_joint
        self.report_s = costs.costs.report_s
        """What the coordinator spends on a report."""
        self._common = Common(self.timeline, random.Random(seed))
        self._spread, self._workload, self._costs = spread, workload, costs
        self._cluster = cluster
        self._process_of = {role: p.name for role, p in spread.graph.process_of.items()}
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._sent: dict[tuple[str, str], int] = {}
        """Version of the newest weights sent from one process to another."""
        self._last_s: dict[tuple[str, str], float] = {}
        """When the last message on a connection arrives: none overtakes another."""
        self._most_in_flight = max(
            MIN_IN_FLIGHT, MAX_IN_FLIGHT_BYTES // max(workload.weights_bytes, 1)
        )
        self._meeting = Meeting(self.timeline, spread.graph.cut.groups, self._sum_s())
        for placement in spread.placements:
            if placement.process != "coordinator":
                self._add(placement)

    def start(self) -> None:
        """Starts all roles."""
        for role, process in self._process_of.items():
            self.processes[process].deliver(role, Start(origin_ns=0))

    def send(self, sender: SimulatedProcess, to: str, message: AnyMessage, at_s: float) -> None:
        """See `Surroundings`; weights go to each process once, for all of its roles."""
        target = self.processes[self._process_of[to]]
        if isinstance(message, WeightsArrived):
            self._send_weights(sender, target, message, at_s)
            return
        group = self._spread.graph.cut.group_of_role(to)
        work = self._workload.of_group(group or 0)
        num_bytes = bytes_of(message, work, self._workload.weights_bytes)
        pair = (sender.name, target.name)
        arrives_s = self._arrival_s(sender, target, num_bytes, at_s)
        arrives_s = self._last_s[pair] = max(arrives_s, self._last_s.get(pair, 0.0))
        self.timeline.at(arrives_s, partial(target.deliver, to, message))

    @property
    def env_steps_elsewhere(self) -> float:
        """Env steps taken by environments in other processes than their actors."""
        return self._common.env_steps_elsewhere

    def tell(self, report: Report) -> None:
        """See `Surroundings`."""
        self.tally.tell(report)

    def _send_weights(
        self, sender: SimulatedProcess, target: SimulatedProcess, sent: WeightsArrived, at_s: float
    ) -> None:
        pair = (sender.name, target.name)
        version = sent.weights.version
        if self._sent.get(pair, -1) >= version or self._in_flight[pair] >= self._most_in_flight:
            return
        self._sent[pair] = version
        self._in_flight[pair] += 1
        arrives_s = self._arrival_s(sender, target, self._workload.weights_bytes, at_s)

        def arrive() -> None:
            self._in_flight[pair] -= 1
            for taker in target.takers:
                target.deliver(taker, sent)

        self.timeline.at(arrives_s, arrive)

    def _arrival_s(
        self, sender: SimulatedProcess, target: SimulatedProcess, num_bytes: int, at_s: float
    ) -> float:
        ends = (sender.name, sender.host), (target.name, target.host)
        return self.network.arrival_s(*ends, num_bytes + HEADER_BYTES, at_s)

    def _sum_s(self) -> float:
        """A gradient summed over learners: inside a host first, then by the ring between hosts, in
        which short vectors travel whole and others in parts (`engine.wire.learner_ring`)."""
        learners = [p for p in self._spread.placements if _has(p, "learner")]
        hosts = Counter(item.host for item in learners)
        inside_s = 2 * (max(hosts.values(), default=1) - 1) * LOCAL_S
        count = len(hosts)
        if count < 2:
            return inside_s
        is_short = self._workload.weights_bytes <= SHORT_BYTES
        hops, parts = (count - 1, 1) if is_short else (2 * (count - 1), count)
        part_s = self._workload.weights_bytes / parts / self.network.ring_bytes_per_s
        return inside_s + hops * (self.network.latency_s + LOCAL_S + part_s)

    def _add(self, placement: Placement) -> None:
        host = "all hosts" if self._cluster.shared_cores else placement.host
        cores = self.cores.get(host)
        if cores is None:
            cores = self.cores[host] = Cores(self.timeline, self._costs.cores)
        devices = self.devices.get(placement.host)
        if devices is None and self._cluster.gpus:
            devices = Cores(self.timeline, self._cluster.gpus)
            self.devices[placement.host] = devices
        is_nice = all(role_of(role) in NICE for role in placement.roles)
        process = SimulatedProcess(
            placement.process,
            placement.host,
            self,
            cores,
            devices,
            weight=NICE_WEIGHT if is_nice else WEIGHT,
            send_s=self._costs.publish_s,
            store_s=self._costs.store_s if _has(placement, "buffer") else 0.0,
        )
        for role in placement.roles:
            if role != "coordinator":
                process.add(self._role(role), self._performer(role))
        self.processes[placement.process] = process

    def _role(self, address: str) -> Role:
        index, cut = index_of(address), self._spread.graph.cut
        experiment = self._spread.experiment
        match role_of(address):
            case "actor":
                group = cut.group_of(index)
                is_fixed = experiment.staleness.is_fixed
                return ActorRole(
                    index, 0, f"buffer-{group}", f"learner-{group}", has_fixed_lag=is_fixed
                )
            case "environment":
                return EnvironmentRole(
                    index, [f"actor-{number}" for number in cut.actors_in(index)]
                )
            case "learner":
                return LearnerRole(index, experiment, f"buffer-{index}", cut)
            case "reducer":
                return ReducerRole(index, experiment.reduce)
            case "evaluator":
                assert experiment.evaluation is not None
                return EvaluatorRole(index, experiment.evaluation, "learner-0")
        return self._buffer(index)

    def _buffer(self, index: int) -> Role:
        """A queue, or a replay store that has just enough to begin with."""
        work, cut = self._workload.of_group(index), self._spread.graph.cut
        num_actors = len(cut.actors_of(index))
        staleness, replay = self._spread.experiment.staleness, work.replay
        if replay is None:
            order = [f"actor-{number}" for number in cut.actors_of(index)]
            return BufferRole(
                index,
                staleness,
                work.rollouts_per_batch,
                0,
                num_actors,
                order if staleness.is_fixed else (),
            )
        limiter = make_limiter(
            ratio=replay.ratio,
            min_size=replay.min_size,
            batch_samples=replay.batch_samples,
            rollout_steps=work.rollout_steps,
            num_actors=num_actors,
            keeps_in_step=replay.keeps_in_step,
        )
        return ReplayBufferRole(
            index,
            limiter,
            replay.capacity,
            None,
            keeps_in_step=replay.keeps_in_step,
            saved=SavedCounts(LimiterState(inserted=max(replay.min_size, 1)), has_batch=False),
        )

    def _performer(self, address: str) -> Performer:
        common, costs, cut = self._common, self._costs, self._spread.graph.cut
        index, group = index_of(address), cut.group_of_role(address) or 0
        work = self._workload.of_group(group)
        match role_of(address):
            case "actor":
                act = costs.act if cut.has_remote_env else None
                collect = costs.collect(work)
                return Collecting(common, index, work, costs.fill, collect, act, cut.is_on_device)
            case "environment":
                return Stepping(common, costs.env_step(work))
            case "learner":
                return self._training(work, cut.is_joint)
            case "reducer":
                return Merging(common, costs.merge)
            case "evaluator":
                return Evaluating(common, costs.evaluate)
            case _:
                return Storing(common, costs.draw(work)) if work.replay else Idle()

    def _training(self, work: GroupWork, is_joint: bool) -> Training:
        common, costs = self._common, self._costs
        meeting, others = (self._meeting, 0) if is_joint else (None, 0)
        if is_joint and work.replay is None:
            total = sum(group.batch_size for group in self._workload.groups)
            others = round((total - work.batch_size) * costs.fill)
        return Training(common, work, costs.update(work), costs.num_updates, meeting, others)


def _has(placement: Placement, kind: str) -> bool:
    return any(role.startswith(f"{kind}-") for role in placement.roles)
