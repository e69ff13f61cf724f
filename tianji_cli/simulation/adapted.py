"""Measured costs, for the hosts and sizes of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConfigError
from engine.graph.workload import GroupWork
from tianji_cli.config.cluster import ClusterSpec
from tianji_cli.simulation.costs import Cost, Costs, cost_of
from tianji_cli.simulation.spread import Spread

MERGED_BYTES_PER_S = 1e9
"""Assumed where the measured run had no reducer: weights are read and written a few times."""


@dataclass(frozen=True)
class Adapted:
    """What the work of a run costs on the hosts of a cluster.

    Args:
        costs: As measured.
        cluster: The hosts.
        spread: The run.
        weights_bytes: Of its weights.

    Raises:
        ConfigError: The measured run does not tell what this policy needs to know.
    """

    costs: Costs
    cluster: ClusterSpec
    spread: Spread
    weights_bytes: int

    def __post_init__(self) -> None:
        basis, cut = self.costs.basis, self.spread.graph.cut
        if basis.is_on_device != cut.is_on_device:
            raise ConfigError(
                f"policy {cut.policy} has {_words_of_envs(cut.is_on_device)}, and run"
                f" {basis.run_id} has {_words_of_envs(basis.is_on_device)}: it does not tell what"
                " they cost",
                where="policy",
                fix=f"measure a run of policy {cut.policy}",
            )
        if cut.has_remote_env and (self.costs.act is None or self.costs.env_step is None):
            raise ConfigError(
                f"with policy {cut.policy} every step crosses between processes; run"
                f" {basis.run_id} does not tell what choosing an action costs, and what a step",
                where="policy",
                fix="measure it with --profile",
            )

    @property
    def cores(self) -> int:
        """Of each host."""
        return self.cluster.cores or self.costs.basis.cores

    @property
    def fill(self) -> float:
        """Env steps of a rollout over T x B."""
        return self.costs.basis.rollout_fill

    @property
    def publish_s(self) -> float:
        """Of a learner for each process that it sends weights to."""
        return self.costs.publish_s

    @property
    def store_s(self) -> float:
        """Of a buffer for each rollout."""
        return self.costs.store.mean_s

    @property
    def num_updates(self) -> int:
        """Optimiser steps of a batch."""
        return self.costs.updates_per_batch

    @property
    def _latency_s(self) -> float:
        return self.spread.experiment.env.step_latency_ms / 1e3

    def collect(self, work: GroupWork) -> Cost:
        """Of a rollout. Steps count in proportion; so do environments, apart from latency."""
        assert self.costs.collect is not None
        basis, speed = self.costs.basis, self.cluster.speed
        steps = work.num_steps / basis.num_steps
        size = work.num_envs / basis.num_envs
        per_rollout = self.costs.collect
        latency_s = basis.latency_s * basis.num_steps
        faster = size / self._collecting_speed(speed.stepping, speed.acting)
        changed = per_rollout.changed(latency_s, self._latency_s * basis.num_steps, faster)
        return changed.times(steps)

    def _collecting_speed(self, stepping: float, acting: float) -> float:
        """Of both together: without a profile they are not told apart, and the slower counts."""
        step, act, basis = self.costs.env_step, self.costs.act, self.costs.basis
        if step is None or act is None:
            return min(stepping, acting)
        busy_s = max(step.mean_s - basis.latency_s, 0.0)
        return (busy_s + act.mean_s) / (busy_s / stepping + act.mean_s / acting)

    def env_step(self, work: GroupWork) -> Cost:
        """Of one vector step of the environments."""
        assert self.costs.env_step is not None
        size = work.num_envs / self.costs.basis.num_envs / self.cluster.speed.stepping
        return self.costs.env_step.changed(self.costs.basis.latency_s, self._latency_s, size)

    @property
    def act(self) -> Cost:
        """Of choosing the actions of one vector step."""
        assert self.costs.act is not None
        return self.costs.act.times(1 / self.cluster.speed.acting)

    def update(self, work: GroupWork) -> Cost:
        """Of a batch, in proportion to its samples; weights are sent once besides."""
        size = work.batch_size / max(self.costs.basis.batch_size, 1)
        cost = self.costs.update.times(size / self.cluster.speed.updating)
        return cost_of([wall_s + self.costs.publish_s for wall_s in cost.walls_s], cost.share)

    def draw(self, work: GroupWork) -> Cost:
        """Of a batch from a replay store, in proportion to its samples."""
        assert self.costs.draw is not None
        return self.costs.draw.times(work.batch_size / max(self.costs.basis.batch_size, 1))

    @property
    def merge(self) -> Cost:
        """Of a model."""
        known = self.costs.merge or cost_of([self.weights_bytes / MERGED_BYTES_PER_S])
        return known.times(1 / self.cluster.speed.merging)

    @property
    def evaluate(self) -> Cost:
        """Of an evaluation; a rollout's if none was measured."""
        assert self.costs.collect is not None
        return self.costs.evaluate or self.costs.collect


def _words_of_envs(is_on_device: bool) -> str:
    return "environments of tensors" if is_on_device else "environments of processors"
