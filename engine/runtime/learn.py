"""What a learner does: stages a batch, updates, exports weights, saves checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.algorithms.base import UpdateResult
from engine.clock import Clock
from engine.roles.commands import (
    BlendModel,
    Command,
    Event,
    ExportModel,
    ExportWeights,
    ModelExported,
    SaveCheckpoint,
    Update,
    Updated,
    UpdateDeclined,
    UpdateFromSamples,
    WeightsExported,
    Withdraw,
    Withdrawn,
)
from engine.rollout import Layout, Priorities, Rollout, Samples, Weights
from engine.runtime.blueprint import Blueprint
from engine.runtime.checkpoint import save_checkpoint
from engine.wire.codec import allocate_framed

if TYPE_CHECKING:
    from engine.runtime.meeting import Meeting


class LearnerBody:
    """Performs a learner's commands.

    Args:
        blueprint: The run.
        checkpoints: Directory of its checkpoints; None if another learner writes the same ones.
        clock: The run's timeline.
        meeting: With the learners that take every update together with this one, if there are any.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        checkpoints: Path | None,
        clock: Clock,
        meeting: Meeting | None = None,
    ) -> None:
        self._blueprint = blueprint
        self._checkpoints = checkpoints
        self._clock = clock
        self._state = blueprint.algorithm.init(blueprint.experiment.seed)
        self._staging = Staging(blueprint.layout, blueprint.rollouts_per_batch)
        self._sample_staging = SampleStaging(blueprint.samples)
        self._version = 0
        self._offered: torch.Tensor | None = None
        self._meeting = meeting
        if meeting is not None:
            self._state.peers = meeting
            self._state.weights.complete = meeting.add_up

    def close(self) -> None:
        if self._meeting is not None:
            self._meeting.close()

    @property
    def is_busy(self) -> bool:
        return False

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("a learner's commands are done when performed")

    def perform(self, command: Command) -> list[Event]:
        match command:
            case ExportWeights(version=version):
                self._version = version
                return [WeightsExported(self._export())]
            case Update(rollouts=rollouts):
                has_all = self._meeting is None or self._meeting.agree(True)
                return [self._update(rollouts) if has_all else UpdateDeclined()]
            case Withdraw():
                assert self._meeting is not None
                self._meeting.agree(False)
                return [Withdrawn()]
            case UpdateFromSamples(samples=samples):
                return [self._update_from_samples(samples)]
            case ExportModel():
                self._offered = self._state.weights.vector.detach().clone()
                return [ModelExported(self._export())]
            case BlendModel(merged=merged):
                self._blend(merged)
                return []
            case SaveCheckpoint():
                self._save(command)
                return []
        raise RuntimeError(f"a learner cannot perform {type(command).__name__}")

    def _blend(self, merged: Weights) -> None:
        """x += merged - offered: what was learnt while the model was away is kept."""
        assert self._offered is not None
        vector = self._state.weights.vector.detach()
        target = torch.from_numpy(merged.buffer.view(np.float32).copy())
        vector.add_(target.to(vector.device) - self._offered)

    def _save(self, command: SaveCheckpoint) -> None:
        if self._checkpoints is None:
            return
        save_checkpoint(
            self._checkpoints,
            self._state,
            version=command.version,
            counters=command.counters,
            keep=self._blueprint.experiment.checkpoint.keep,
        )

    def _update(self, rollouts: Sequence[Rollout]) -> Updated:
        start_s = self._clock.now_s()
        result = self._blueprint.algorithm.update(self._state, self._staging.fill(rollouts))
        return self._updated(result, start_s)

    def _update_from_samples(self, samples: Samples) -> Updated:
        start_s = self._clock.now_s()
        batch = self._sample_staging.fill(samples)
        result = self._blueprint.algorithm.update(self._state, batch)
        priorities = None
        if result.errors is not None:
            priorities = self._priorities(batch["key"], result.errors)
        versions, counts = np.unique(batch["version"].numpy(), return_counts=True)
        by_version = dict(zip(versions.tolist(), counts.tolist(), strict=True))
        return self._updated(result, start_s, by_version, priorities)

    def _updated(
        self,
        result: UpdateResult,
        start_s: float,
        samples_by_version: Mapping[int, int] | None = None,
        priorities: Priorities | None = None,
    ) -> Updated:
        self._version += 1
        return Updated(
            weights=self._export(),
            samples_trained=result.samples_trained,
            num_updates=self._state.num_updates,
            update_s=self._clock.now_s() - start_s,
            metrics=result.metrics,
            samples_by_version=samples_by_version or {},
            priorities=priorities,
        )

    def _priorities(self, key: torch.Tensor, error: torch.Tensor) -> Priorities:
        layout = self._blueprint.priorities
        buffer = allocate_framed(layout.num_bytes)
        views = layout.views(buffer)
        views["key"][...] = key.numpy()
        views["error"][...] = error.numpy()
        return Priorities(buffer)

    def _export(self) -> Weights:
        buffer = allocate_framed(self._blueprint.weights.num_bytes)
        buffer.view(np.float32)[:] = self._state.weights.vector.detach().numpy()
        return Weights(self._version, buffer)


class Staging:
    """A batch of several rollouts side by side along the environment axis, allocated once.

    Args:
        layout: Of one rollout.
        num_rollouts: How many make a batch.
    """

    def __init__(self, layout: Layout, num_rollouts: int) -> None:
        self._rollout_layout = layout
        self._batch_layout = Layout(layout.fields, layout.num_steps, layout.num_envs * num_rollouts)
        self._buffer = self._batch_layout.allocate()
        self._arrays = self._batch_layout.views(self._buffer)
        self._tensors = {name: torch.from_numpy(array) for name, array in self._arrays.items()}

    def fill(self, rollouts: Sequence[Rollout]) -> dict[str, torch.Tensor]:
        """Copies the rollouts in; the result is overwritten by the next call."""
        num_envs = self._rollout_layout.num_envs
        for i, rollout in enumerate(rollouts):
            for name, values in self._rollout_layout.views(rollout.buffer).items():
                self._arrays[name][:, i * num_envs : (i + 1) * num_envs] = values
        return self._tensors


class SampleStaging:
    """Samples from replay as tensors, allocated once.

    Args:
        layout: Of drawn samples.
    """

    def __init__(self, layout: Layout) -> None:
        self._buffer = layout.allocate()
        views = layout.views(self._buffer)
        self._tensors = {name: torch.from_numpy(array) for name, array in views.items()}

    def fill(self, samples: Samples) -> dict[str, torch.Tensor]:
        """Copies the samples in; the result is overwritten by the next call."""
        np.copyto(self._buffer, samples.buffer)
        return self._tensors
