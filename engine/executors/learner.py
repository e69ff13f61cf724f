"""What a learner does: stages a batch, updates, exports weights, saves checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch

from engine.algorithms.base import Batch, LearnerState, UpdateResult
from engine.algorithms.gradient import StepTaker
from engine.algorithms.off_policy.corrections import VERSION
from engine.algorithms.off_policy.ratios import summarise
from engine.algorithms.off_policy.watch import OffPolicyWatch
from engine.algorithms.statistics import places_of, read_sums, write_sums
from engine.algorithms.teams.parts import OwnPart
from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.compilation.compile_job import NAMES, CompileJob
from engine.compilation.compiled import CompiledSteps
from engine.compilation.fit import Fits
from engine.compilation.library import Library
from engine.compilation.prepared import CompiledPreparing
from engine.compilation.staging import SampleStaging, Staging
from engine.compilation.traces import kinds_of_learner
from engine.devices.visible import CPU
from engine.errors import RunFailedError
from engine.executors.checkpoint import load_checkpoint, save_checkpoint
from engine.executors.soundness import Soundness
from engine.executors.warm_start import start_with
from engine.host.descriptors import spare
from engine.progress import Resumed
from engine.roles.commands import (
    BlendModel,
    Command,
    ExportModel,
    ExportWeights,
    Log,
    SaveCheckpoint,
    Update,
    UpdateFromSamples,
    Withdraw,
)
from engine.roles.events import (
    CheckpointWritten,
    Event,
    ModelExported,
    Noted,
    ReadyToTrain,
    Updated,
    UpdateDeclined,
    WeightsExported,
    WeightsPending,
    Withdrawn,
)
from engine.rollout import Priorities, Rollout, Samples, Weights
from engine.timing import BATCHING, OFF, WEIGHTS, Sections
from engine.trace.checkpoint_file import check_identity
from engine.trace.records import IRREPRODUCIBLE
from engine.trace.warm_start import WarmStart
from engine.wire.frames import allocate_framed

if TYPE_CHECKING:
    from engine.executors.collective import LearnerGroup

WAIT_FOR_COMPILER_S = 0.05
"""Before messages are looked at again."""
PARTS = 2**40
"""Of 1, in which learners count their progress to agree on it."""


class LearnerMemory(Protocol):
    """Where a learner's state is, how batches come there, and how weights leave."""

    def place(self, state: LearnerState) -> LearnerState:
        """The same state where it is trained."""
        ...

    def make_steps(self) -> StepTaker | None:
        """What takes its optimiser steps, if not `EagerSteps`."""
        ...

    def fill(self, rollouts: Sequence[Rollout]) -> Batch:
        """A batch; see `Batch`."""
        ...

    def fill_samples(self, samples: Samples) -> Batch:
        """A batch of samples from replay; see `Batch`."""
        ...

    def export(self, version: int, vector: torch.Tensor) -> Weights:
        """A copy of the parameters, float32 [P]."""
        ...

    def publish(self, version: int, vector: torch.Tensor) -> Weights | WeightsPending:
        """The same after an update; it can be still on its way."""
        ...


def _columns_of(of_rollouts: Sequence[int], batch: Batch) -> npt.NDArray[np.int64]:
    """A number of each rollout for each of its columns in a batch, int64 [B]."""
    num_columns = batch["valid"].shape[1] // len(of_rollouts)
    return np.repeat(np.array(of_rollouts, dtype=np.int64), num_columns)


class HostMemory:
    """Main memory: rollouts are copied side by side, weights are copied out.

    Args:
        blueprint: The run.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.fill = Staging(blueprint.layout, blueprint.rollouts_per_batch).fill
        self.fill_samples = SampleStaging(blueprint.samples).fill
        self.publish = self.export

    def place(self, state: LearnerState) -> LearnerState:
        """See `LearnerMemory`."""
        return state

    def make_steps(self) -> None:
        """Compiled ones come later, when there are any."""

    def export(self, version: int, vector: torch.Tensor) -> Weights:
        """See `LearnerMemory`."""
        return _framed(version, vector)


def _framed(version: int, values: torch.Tensor) -> Weights:
    """A copy of float32 values in main memory, with room for a header."""
    buffer = allocate_framed(values.nbytes)
    buffer.view(np.float32)[:] = values.numpy()
    return Weights(version, buffer)


class LearnerExecutor:
    """Performs a learner's commands.

    Args:
        blueprint: The run.
        checkpoints: Directory of its checkpoints; None if another learner writes the same ones.
        clock: The run's timeline.
        group: The learners that make every update together with this one, if there are any.
        compiles: Whether to switch to compiled optimiser steps once they are available.
        memory: Where it trains; main memory by default.
        resumed: The checkpoint that it resumes, if any, and its JSON file.
        warm_start: The weights of a former run that it starts with, if any, and their file.
        sections: Where its time is counted.
        name: Of the learner, for errors.

    Raises:
        ConfigError: That checkpoint is not one of this experiment, or its file is damaged.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        checkpoints: Path | None,
        clock: Clock,
        group: LearnerGroup | None = None,
        *,
        compiles: bool = False,
        memory: LearnerMemory | None = None,
        resumed: tuple[Resumed, Path] | None = None,
        warm_start: tuple[WarmStart, Path] | None = None,
        sections: Sections = OFF,
        name: str = "learner-0",
    ) -> None:
        self._blueprint = blueprint
        self._checkpoints = checkpoints
        self._clock = clock
        memory = memory or HostMemory(blueprint)
        self._state = memory.place(blueprint.algorithm.init(blueprint.experiment.seed))
        self._fill = sections.timed(BATCHING, memory.fill)
        self._fill_samples = sections.timed(BATCHING, memory.fill_samples)
        self._export = sections.timed(WEIGHTS, memory.export)
        self._publish = sections.timed(WEIGHTS, memory.publish)
        self._version = self._resumes = self._num_updates_before = 0
        self._needs_versions = blueprint.algorithm.samples().needs_versions
        if resumed is not None:
            self._resume(*resumed)
        elif warm_start is not None:
            start_with(warm_start[1], warm_start[0], self._state)
        self._offered: torch.Tensor | None = None
        self._soundness = Soundness(name)
        self._watch = None
        if not blueprint.replay:
            samples = blueprint.algorithm.samples()
            can_correct = bool(samples.corrections) and not samples.corrects_staleness
            self._watch = OffPolicyWatch(blueprint.experiment.staleness, can_correct=can_correct)
        self._is_blended = False
        """Whether the weights have been blended since actors were sent any."""
        self._places = places_of(self._state.network)
        team = blueprint.spaces.team
        self._part = None if team is None or team.own is None else OwnPart(self._state, team)
        self._group = group
        if group is not None:
            self._state.replicas = group
            self._state.weights.complete = group.all_reduce_sum
        steps = memory.make_steps() if compiles else None
        if steps is not None:
            self._state.steps = steps
        is_on_cpu = self._state.weights.vector.device.type == CPU
        self._compiles = compiles and is_on_cpu and steps is None
        self._compile_job: CompileJob | None = None
        self._fits = Fits()
        self._uncompiled = list(kinds_of_learner(blueprint)) if self._compiles else []
        """What has not been begun yet: one at a time, since all want the same core."""
        self._prepares = blueprint.experiment.staleness.is_fixed

    @property
    def _vector(self) -> torch.Tensor:
        """All parameters, float32 [P]."""
        return self._state.weights.vector.detach()

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
        if self._compile_job is not None:
            self._compile_job.close()

    @property
    def is_busy(self) -> bool:
        """Whether training waits for the compiler; other commands are done when performed."""
        return self._awaits_compiler

    @property
    def _awaits_compiler(self) -> bool:
        return self._prepares and self._compile_job is not None and not self._compile_job.outcome

    def advance(self, budget_s: float) -> list[Event]:
        """Waits for the compiler for at most this long, and no longer than a moment."""
        assert self._compile_job is not None
        self._compile_job.wait_within(min(budget_s, WAIT_FOR_COMPILER_S))
        told = self._poll_compiler()
        return [*told, *self._be_prepared()] if told else []

    def perform(self, command: Command) -> list[Event]:
        match command:
            case ExportWeights(version=version):
                self._version, self._is_blended = version, False
                exported = self._export(version, self._vector)
                return [WeightsExported(exported), *self._start_compiling(), *self._be_prepared()]
            case Update(rollouts=rollouts, progress=progress):
                own = sum(rollout.info.num_env_steps for rollout in rollouts)
                env_steps_of_others = self._meet(own)
                if env_steps_of_others is None:
                    return [UpdateDeclined()]
                self._state.progress = progress
                return [*self._poll_compiler(), *self._update(rollouts, env_steps_of_others)]
            case Withdraw():
                assert self._group is not None
                self._group.withdraw()
                return [Withdrawn()]
            case UpdateFromSamples(samples=samples, progress=progress):
                own = round(progress * PARTS)
                of_others = self._meet(own)
                if of_others is None:
                    return [UpdateDeclined()]
                if self._group is not None:  # each has a store of its own
                    progress = (own + of_others) / (PARTS * self._group.count)
                self._state.progress = progress
                return [*self._poll_compiler(), *self._update_from_samples(samples)]
            case ExportModel() if self._part is not None:
                return [ModelExported(_framed(self._version, self._part.model()))]
            case ExportModel():
                self._offered = self._vector.clone()
                return [ModelExported(self._export(self._version, self._vector))]
            case BlendModel(merged=merged):
                self._blend(merged)
                return []
            case SaveCheckpoint():
                return [self._save(command)]
            case Log(text=text):
                print(text, flush=True)
                return []
        raise RuntimeError(f"a learner cannot perform {type(command).__name__}")

    def _blend(self, merged: Weights) -> None:
        """x += merged - offered: what was learnt while the model was merged is kept.

        For running statistics, the sums behind them are updated in this way.
        """
        self._is_blended = True
        told = merged.buffer.view(np.float32).copy()
        if self._part is not None:
            self._part.take(torch.from_numpy(told))
            return
        assert self._offered is not None
        vector = self._vector
        sums = [read_sums(held.cpu().numpy(), self._places) for held in (vector, self._offered)]
        vector.add_(torch.from_numpy(told).to(vector.device) - self._offered)
        if self._places:
            blended = vector.cpu().numpy().copy()
            write_sums(sums[0] + read_sums(told, self._places) - sums[1], blended, self._places)
            vector.copy_(torch.from_numpy(blended))

    def _resume(self, resumed: Resumed, file: Path) -> None:
        """Restores everything from a checkpoint."""
        check_identity(self._blueprint.experiment, load_checkpoint(file, self._state))
        self._version, self._resumes = resumed.version, resumed.resumes

    def _save(self, command: SaveCheckpoint) -> CheckpointWritten:
        """A disk error does not end the run: earlier checkpoints exist, a later one can succeed."""
        name, error = "", self._soundness.doubt
        if self._checkpoints is not None and not error:
            try:
                with spare(), self._part.whole() if self._part else nullcontext():
                    name = save_checkpoint(
                        self._checkpoints,
                        self._state,
                        self._blueprint,
                        version=command.version,
                        counters=command.counters,
                        resumes=self._resumes,
                        known_return=command.known_return,
                    ).name
            except OSError as failure:
                error = str(failure)
            except RunFailedError as failure:
                if not command.is_final:  # these values never become finite again
                    raise
                error = str(failure)
        return CheckpointWritten(name, error, command.is_final)

    def _meet(self, own: int) -> int | None:
        """Waits for the learners that make this update together with this one.

        Args:
            own: Something that is counted.

        Returns:
            The sum of what the others count; None if the update does not take place.
        """
        if self._group is None:
            return 0
        total = self._group.all_agree(own)
        return None if total is None else total - own

    def _update(self, rollouts: Sequence[Rollout], env_steps_of_others: int) -> list[Event]:
        start_s = self._clock.now_s()
        batch: Batch = self._fill(rollouts)
        version, acted = self._version, [rollout.info.version_min for rollout in rollouts]
        if self._needs_versions:
            versions = torch.from_numpy(_columns_of(acted, batch))
            batch = {**batch, VERSION: versions.to(batch["valid"].device)}
        result = self._update_state(batch)
        shares = (sum(rollout.info.num_env_steps for rollout in rollouts), env_steps_of_others)
        if self._part is not None:  # each of these learners counts its share of the same steps
            num_trained = result.samples_trained * shares[0] // max(int(batch["valid"].sum()), 1)
            result = replace(result, samples_trained=num_trained)
        return self._updated(
            result, batch, start_s, shares, lambda: version - _columns_of(acted, batch)
        )

    def _update_state(self, batch: Batch) -> UpdateResult:
        self._state.version = self._version
        self._num_updates_before = self._state.num_updates
        return self._blueprint.algorithm.update(self._state, batch)

    def _update_from_samples(self, samples: Samples) -> list[Event]:
        start_s = self._clock.now_s()
        batch, version = self._fill_samples(samples), self._version
        result = self._update_state(batch)
        priorities = None
        if result.errors is not None:
            priorities = self._priorities(batch["key"], result.errors)
        request = self._blueprint.replay
        assert request is not None
        versions, counts = np.unique(batch["version"].numpy(), return_counts=True)
        counts *= request.samples_per_draw
        by_version = dict(zip(versions.tolist(), counts.tolist(), strict=True))
        shares = (1, 0) if self._group is None else self._group.own_and_others
        return self._updated(
            result,
            batch,
            start_s,
            shares,
            lambda: version - batch["version"][:1].numpy(),
            by_version,
            priorities,
        )

    def _updated(
        self,
        result: UpdateResult,
        batch: Batch,
        start_s: float,
        shares: tuple[int, int],
        lag_of: Callable[[], npt.NDArray[np.int64]],
        samples_by_version: Mapping[int, int] | None = None,
        priorities: Priorities | None = None,
    ) -> list[Event]:
        """Converts an algorithm's metrics from tensors to numbers for the trace; non-finite ones
        become an event instead.

        Args:
            shares: Of this learner and of the others; every learner uses its samples equally often.
                Env steps, unless samples are from replay.
            lag_of: Gives the lag of the samples, as `ratios.summarise` takes it; most updates do
                not ask.
        """
        of_own, of_others = shares
        self._version += 1
        metrics = {name: float(value) for name, value in result.metrics.items()}
        told = self._soundness.check(self._version, self._state, batch, metrics)
        weights, off = self._publish(self._version, self._vector), ""
        ratios = None if result.ratios is None else summarise(result.ratios, lag_of())
        if ratios is not None:
            self._state.num_diagnosed += 1
            metrics |= ratios.metrics
            if self._watch is not None:
                off = self._watch.check(self._version, ratios, is_blended=self._is_blended)
        self._is_blended = False
        metrics = self._state.weights.steps.metrics | metrics
        updated = Updated(
            weights=weights,
            samples_trained=int(result.samples_trained),
            num_updates=self._state.num_updates,
            num_updates_before=self._num_updates_before,
            update_s=self._clock.now_s() - start_s,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            samples_by_version=samples_by_version or {},
            ratios_by_lag={} if ratios is None else ratios.by_lag,
            priorities=priorities,
            env_steps_of_others=0 if samples_by_version else of_others,
            samples_of_others=int(result.samples_trained) * of_others // max(of_own, 1),
        )
        misfits = ("eager", "; ".join(self._fits.tell()))
        noted = (("not-finite", told), ("off-policy", off), misfits)
        return [updated, *(Noted(kind, detail) for kind, detail in noted if detail)]

    def _start_compiling(self) -> list[Event]:
        return self._compile_next() if self._compile_job is None else []

    def _compile_next(self) -> list[Event]:
        told: list[Event] = []
        while self._uncompiled:
            self._compile_job = job = CompileJob(self._blueprint, self._uncompiled.pop(0))
            if not job.outcome:
                break
            told += self._tell_outcome(job)
            self._forget_the_rest_unless(job.library)
        return told

    def _be_prepared(self) -> list[Event]:
        return [ReadyToTrain()] if self._prepares and not self._awaits_compiler else []

    def _poll_compiler(self) -> list[Event]:
        job = self._compile_job
        if job is None or not job.poll():
            return []
        told = self._tell_outcome(job)
        self._forget_the_rest_unless(job.library)
        return [*told, *self._compile_next()]

    def _forget_the_rest_unless(self, library: Library | None) -> None:
        """What keeps one function from being compiled keeps the others from it as well."""
        if library is None:
            self._uncompiled.clear()

    def _tell_outcome(self, job: CompileJob) -> list[Event]:
        use = self._use_steps if job.kind == "steps" else self._use_preparing
        told = Noted("compiled" if job.library else "eager", job.tell(use))
        if self._prepares and job.irreproducible:
            return [told, Noted(IRREPRODUCIBLE, job.irreproducible)]
        return [told]

    def _use_steps(self, library: Library) -> None:
        self._state.steps = steps = CompiledSteps(library)
        self._fits.watch(NAMES["steps"], steps.fit)

    def _use_preparing(self, library: Library) -> None:
        self._state.preparing = preparing = CompiledPreparing(library)
        self._fits.watch(NAMES["prepare"], preparing.fit)

    def _priorities(self, key: torch.Tensor, error: torch.Tensor) -> Priorities:
        layout = self._blueprint.priorities
        buffer = allocate_framed(layout.num_bytes)
        views = layout.views(buffer)
        views["key"][...] = key.numpy()
        views["error"][...] = error.cpu().numpy()
        return Priorities(buffer)
