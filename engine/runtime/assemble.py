"""Makes roles with their executors from addresses. Placement is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from engine.blueprint import Blueprint
from engine.devices.cpu import CpuDevice
from engine.devices.interface import Device
from engine.devices.opening import open_device
from engine.devices.visible import CPU
from engine.errors import ConfigError
from engine.executors.actor import ActorExecutor
from engine.executors.actor_base import BaseActorExecutor
from engine.executors.coordinator import CoordinatorExecutor
from engine.executors.evaluator import EvaluatorExecutor
from engine.executors.learner import HostMemory, LearnerExecutor, LearnerMemory
from engine.executors.on_device.learner import DeviceLearnerExecutor
from engine.executors.on_device.memory import FusedMemory, StagedMemory
from engine.executors.on_device.replay_buffer import DeviceReplayExecutor
from engine.executors.reducer import ReducerExecutor
from engine.executors.remote_env import EnvironmentExecutor
from engine.executors.replay_buffer import ReplayExecutor, limiter_of
from engine.executors.rollout_queue import QueueExecutor
from engine.executors.tensor_envs.actor import TensorActorExecutor
from engine.executors.tensor_envs.rollout_memory import (
    BufferedRollouts,
    DeviceRollouts,
    RolloutMemory,
)
from engine.messages import COORDINATOR, role_of
from engine.progress import Progress, RunCounters, steps_left
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.totals import EVALUATED_LEARNER, RunInfo
from engine.roles.environment import EnvironmentRole
from engine.roles.evaluator import EvaluatorRole
from engine.roles.learner import LearnerRole
from engine.roles.reducer import ReducerRole
from engine.roles.replay_buffer import ReplayBufferRole
from engine.runtime.joint_learners import JointPlace, join_learners
from engine.runtime.loop import LoopClock, RoleInstance
from engine.timing import OFF, Sections
from engine.trace.warm_start import WEIGHTS_NAME, WarmStart
from engine.wire.arena import Arena

CHECKPOINTS_NAME = "checkpoints"


@dataclass(frozen=True)
class Assembly:
    """Everything needed to make any role of a run in this process.

    Attributes:
        blueprint: The run.
        info: For the summary.
        addresses: All roles but the coordinator.
        supervisors: Of all hosts; none inline.
        run_dir: Directory of the results.
        clock: The run's timeline.
        show: Called by the coordinator with progress.
        process_of: The process that runs each role, where the names differ.
        host_of: Host of each process and supervisor, if this is the coordinator's host.
        joint: How the learners of this process meet those that update together with them.
        devices: The device of each role that does not compute on the processor.
        epoch: Incarnation of the actor.
        arena: Memory shared by the roles of this host; None inline, where calls pass arrays.
        sections: Where executors count their time.
    """

    blueprint: Blueprint
    info: RunInfo
    addresses: tuple[str, ...]
    supervisors: tuple[str, ...]
    run_dir: Path
    clock: LoopClock
    show: Callable[[Progress], None]
    process_of: Mapping[str, str] = field(default_factory=dict)
    host_of: Mapping[str, str] = field(default_factory=dict)
    joint: JointPlace | None = None
    devices: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    arena: Arena | None = None
    sections: Sections = OFF

    @property
    def resumes(self) -> int:
        """How often the run has resumed a checkpoint."""
        return self.info.resumed.resumes if self.info.resumed else 0

    @property
    def version(self) -> int:
        """Version of the initial weights."""
        return self.info.resumed.version if self.info.resumed else 0

    @property
    def totals_before(self) -> RunCounters:
        """Counters of the checkpoint that it resumes; zeros without one."""
        return self.info.resumed.counters if self.info.resumed else RunCounters()

    @property
    def checkpoint(self) -> Path | None:
        """JSON file of the checkpoint that it resumes, if any."""
        resumed = self.info.resumed
        return self.run_dir / CHECKPOINTS_NAME / resumed.checkpoint if resumed else None

    @property
    def warm_start(self) -> tuple[WarmStart, Path] | None:
        """The weights that it starts with, unless these are initial or those of a checkpoint."""
        warm_start, wanted = self.info.warm_start, self.blueprint.experiment.init_from
        if warm_start is None and wanted is not None and self.info.resumed is None:
            raise ConfigError(f"the weights of {wanted} were not looked up", where="init_from")
        return (warm_start, self.run_dir / WEIGHTS_NAME) if warm_start else None

    @property
    def compiles(self) -> bool:
        """Inline, compilation must be requested, unless it is waited for: its end depends on time,
        and traces must not."""
        experiment = self.blueprint.experiment
        is_timeless = experiment.staleness.is_fixed or not self.is_inline
        return experiment.learner.compile == "on" or (
            experiment.learner.compile == "auto" and is_timeless
        )

    def device_of(self, role: str) -> Device | None:
        """The device of a role; None for the processor."""
        return open_device(self.devices.get(role, CPU))

    @property
    def is_inline(self) -> bool:
        """Whether all roles take turns in one thread."""
        return not self.supervisors


def host_role(address: str, run: Assembly) -> RoleInstance:
    """Makes the role of this address, and its executor."""
    if address == COORDINATOR:
        return _host_coordinator(run)
    index, cut = int(address.rpartition("-")[2]), run.blueprint.cut
    group = cut.group_of_role(address)
    serves_all = group is None and cut.is_apart
    blueprint = run.blueprint if serves_all else run.blueprint.of_group(group or 0)
    match role_of(address):
        case "actor":
            actor = ActorRole(
                index,
                run.epoch,
                f"buffer-{group}",
                f"learner-{group}",
                f"environment-{cut.environment_of(index)}",
                has_fixed_lag=blueprint.experiment.staleness.is_fixed,
            )
            return RoleInstance(actor, _actor_executor(index, run, blueprint))
        case "environment":
            actors = [f"actor-{number}" for number in cut.actors_in(index)]
            return RoleInstance(
                EnvironmentRole(index, actors),
                EnvironmentExecutor(blueprint, index, 0, run.resumes),
            )
        case "learner":
            return _host_learner(index, run, blueprint)
        case "buffer":
            return _host_buffer(index, run, blueprint)
        case "reducer":
            reducer = ReducerRole(index, blueprint.experiment.reduce)
            executor = ReducerExecutor(blueprint, run.checkpoint, run.warm_start)
            return RoleInstance(reducer, executor)
        case "evaluator":
            spec = blueprint.experiment.evaluation
            assert spec is not None
            device = run.device_of(address)
            place = device.place if device else None
            evaluator = EvaluatorExecutor(blueprint, spec, run.sections, place)
            return RoleInstance(
                EvaluatorRole(index, spec, f"learner-{EVALUATED_LEARNER}"), evaluator
            )
    raise ValueError(f"there is no role {address!r}")


def _actor_executor(index: int, run: Assembly, blueprint: Blueprint) -> BaseActorExecutor:
    device = run.device_of(f"actor-{index}")
    if blueprint.steps_tensors:
        memory: RolloutMemory
        if blueprint.cut.is_on_device:
            memory = DeviceRollouts(blueprint.layout, (device or CpuDevice()).place)
        else:
            memory = BufferedRollouts(blueprint.layout, run.arena, index, run.epoch)
        return TensorActorExecutor(
            blueprint,
            index,
            run.epoch,
            run.clock,
            memory,
            run.resumes,
            run.sections,
            compiles=run.compiles,
        )
    return ActorExecutor(
        blueprint,
        index,
        run.epoch,
        run.clock,
        run.arena,
        run.resumes,
        compiles=run.compiles,
        device=device,
        sections=run.sections,
    )


def _host_coordinator(run: Assembly) -> RoleInstance:
    experiment = run.blueprint.experiment
    groups = Groups(run.blueprint.cut, run.process_of)
    coordinator = CoordinatorRole(
        experiment, run.info, run.addresses, run.supervisors, groups, run.host_of
    )
    return RoleInstance(coordinator, CoordinatorExecutor(run.run_dir, run.show))


def _host_buffer(index: int, run: Assembly, blueprint: Blueprint) -> RoleInstance:
    experiment = blueprint.experiment
    if blueprint.replay is None:
        per_batch = blueprint.rollouts_per_batch
        num_actors = len(blueprint.cut.actors_of(index))
        is_in_turn = blueprint.cut.is_apart or experiment.staleness.is_fixed
        order = blueprint.cut.actors_of(index) if is_in_turn else ()
        queue = BufferRole(
            index,
            experiment.staleness,
            per_batch,
            run.version,
            num_actors,
            [f"actor-{number}" for number in order],
        )
        return RoleInstance(queue, QueueExecutor(run.arena))
    is_alone, resumed = blueprint.cut.groups == 1, run.info.resumed
    executor = _replay_executor(index, run, blueprint)
    store = ReplayBufferRole(
        index,
        limiter_of(blueprint),
        blueprint.replay.capacity,
        steps_left(experiment.stop.env_steps if is_alone else None, resumed),
        run.version,
        keeps_in_step=blueprint.keeps_in_step,
        consumed_before=run.totals_before.env_steps_consumed if is_alone else None,
        share_before=run.totals_before.env_steps_consumed // blueprint.cut.groups,
        saved=executor.saved_counts,
    )
    return RoleInstance(store, executor)


def _replay_executor(index: int, run: Assembly, blueprint: Blueprint) -> ReplayExecutor:
    """Saves its store, and goes on with a saved one, if the experiment says so."""
    checkpoints = run.run_dir / CHECKPOINTS_NAME if blueprint.keeps_replay else None
    resumed = run.info.resumed.replays.get(index) if run.info.resumed else None
    if blueprint.cut.is_on_device:
        device = run.device_of(f"buffer-{index}")
        return DeviceReplayExecutor(
            blueprint,
            index,
            run.clock,
            run.resumes,
            checkpoints=checkpoints,
            resumed=resumed,
            device=device.place if device else None,
        )
    return ReplayExecutor(
        blueprint,
        index,
        run.clock,
        run.arena,
        run.resumes,
        checkpoints=checkpoints,
        resumed=resumed,
    )


def _host_learner(index: int, run: Assembly, blueprint: Blueprint) -> RoleInstance:
    """Learners of several groups have their own checkpoints; those of joint learners are equal."""
    cut, device = blueprint.cut, run.device_of(f"learner-{index}")
    has_thread = device is not None and not cut.is_on_device and not run.is_inline
    checkpoints: Path | None = run.run_dir / CHECKPOINTS_NAME
    group = None
    if cut.is_joint:
        assert run.joint is not None, "learners that update together need a meeting place"
        sections = OFF if has_thread else run.sections
        group = join_learners(index, blueprint, run.joint, device, sections)
        checkpoints = checkpoints if index == 0 else None
    elif cut.groups > 1:
        checkpoints = run.run_dir / CHECKPOINTS_NAME / f"group-{index}"
    origin = run.info.resumed
    learner = LearnerRole(
        index,
        blueprint.experiment,
        f"buffer-{index}",
        cut,
        origin,
        keeps_replay=blueprint.keeps_replay,
        stages_ahead=has_thread,
    )
    if device is not None and has_thread:
        make: Callable[..., LearnerExecutor] = partial(DeviceLearnerExecutor, device=device)
    else:
        make = partial(LearnerExecutor, memory=_memory(device, blueprint))
    executor = make(
        blueprint,
        checkpoints,
        run.clock,
        group,
        compiles=run.compiles and not cut.is_joint,  # these synchronize between kernels
        resumed=(origin, run.checkpoint) if origin and run.checkpoint else None,
        warm_start=run.warm_start,
        sections=run.sections,
        name=f"learner-{index}",
    )
    return RoleInstance(learner, executor)


def _memory(device: Device | None, blueprint: Blueprint) -> LearnerMemory:
    """Where a learner without a thread of its own trains."""
    if blueprint.cut.is_on_device:
        return FusedMemory(device or CpuDevice())
    return HostMemory(blueprint) if device is None else StagedMemory(blueprint, device)
