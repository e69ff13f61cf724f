"""Addresses to roles with bodies. What runs where is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.messages import COORDINATOR, role_of
from engine.progress import Progress
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import Command, Event
from engine.roles.coordinator import CoordinatorRole
from engine.roles.evaluator import EvaluatorRole
from engine.roles.learner import LearnerRole
from engine.roles.replay_buffer import ReplayBufferRole
from engine.roles.totals import RunInfo
from engine.runtime.blueprint import Blueprint
from engine.runtime.collect import ActorBody
from engine.runtime.coordinate import CoordinatorBody
from engine.runtime.evaluate import EvaluatorBody
from engine.runtime.learn import LearnerBody
from engine.runtime.loop import Hosted, LoopClock
from engine.runtime.replay import ReplayBody, make_limiter

CHECKPOINTS_NAME = "checkpoints"


class NoBody:
    """For a role that only decides and sends."""

    is_busy = False

    def perform(self, command: Command) -> list[Event]:
        raise RuntimeError(f"nothing here can perform {type(command).__name__}")

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("nothing here is ever busy")

    def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True)
class Assembly:
    """All that is needed to make any role of a run in this process.

    Attributes:
        blueprint: The run.
        info: For the summary.
        addresses: All roles but the coordinator.
        supervisors: Of all hosts; none inline.
        run_dir: Where results go.
        clock: The run's timeline.
        show: What the coordinator does with progress.
        epoch: Incarnation of the actor.
    """

    blueprint: Blueprint
    info: RunInfo
    addresses: tuple[str, ...]
    supervisors: tuple[str, ...]
    run_dir: Path
    clock: LoopClock
    show: Callable[[Progress], None]
    epoch: int = 0


def host_role(address: str, run: Assembly) -> Hosted:
    """Makes the role of this address, and what performs its commands."""
    blueprint, experiment = run.blueprint, run.blueprint.experiment
    if address == COORDINATOR:
        coordinator = CoordinatorRole(experiment, run.info, run.addresses, run.supervisors)
        return Hosted(coordinator, CoordinatorBody(run.run_dir, run.show))
    index, buffer, learner = int(address.rpartition("-")[2]), "buffer-0", "learner-0"
    match role_of(address):
        case "actor":
            actor = ActorRole(index, run.epoch, buffer, learner)
            return Hosted(actor, ActorBody(blueprint, index, run.epoch, run.clock))
        case "learner":
            body = LearnerBody(blueprint, run.run_dir / CHECKPOINTS_NAME, run.clock)
            return Hosted(LearnerRole(index, experiment, buffer), body)
        case "buffer":
            if blueprint.replay is not None:
                capacity, step_limit = blueprint.replay.capacity, experiment.stop.env_steps
                store = ReplayBufferRole(index, make_limiter(blueprint), capacity, step_limit)
                return Hosted(store, ReplayBody(blueprint, index, run.clock))
            queue = BufferRole(index, experiment.staleness, blueprint.rollouts_per_batch)
            return Hosted(queue, NoBody())
        case "evaluator":
            spec = experiment.evaluation
            assert spec is not None
            evaluator = EvaluatorRole(index, spec, learner)
            return Hosted(evaluator, EvaluatorBody(blueprint, spec))
    raise ValueError(f"there is no role {address!r}")
