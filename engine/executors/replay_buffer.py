"""What a replay buffer does: stores rollouts, draws samples, updates priorities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.algorithms.base import ReplayRequest
from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.errors import ConfigError
from engine.executors.replay_saver import ReplaySaver, ReplaySnapshot, SavedReplay, random_state
from engine.executors.rollout_queue import forget_actor
from engine.replay.limiter import RateLimiter, make_limiter
from engine.replay.prioritized import PrioritizedSampler
from engine.replay.sampler import Sampler, UniformSampler
from engine.replay.sequences import SequenceStore
from engine.replay.store import FloatArray, Inserted, IntArray, RolloutStore
from engine.roles.commands import (
    Command,
    DrawSamples,
    ForgetActor,
    InsertRollout,
    PollReplay,
    SaveReplay,
    SetPriorities,
)
from engine.roles.events import Event, ReplayUnsaved, SamplesDrawn
from engine.roles.replay_buffer import SavedCounts
from engine.rollout import Arrays, Layout, Priorities, Rollout, Samples, SamplesInfo
from engine.seeds import buffer_random
from engine.trace.replay_file import DrawnBatch, Segment, replay_directory
from engine.wire.arena import Arena
from engine.wire.frames import allocate_framed


def limiter_of(blueprint: Blueprint) -> RateLimiter:
    """The limiter of a replay buffer of this run."""
    request = blueprint.replay
    assert request is not None
    return make_limiter(
        ratio=request.replay_ratio,
        min_size=request.min_size,
        batch_samples=request.samples_per_batch,
        rollout_steps=blueprint.layout.num_steps * blueprint.layout.num_envs,
        num_actors=blueprint.num_actors,
        keeps_in_step=blueprint.keeps_in_step,
    )


class ReplayExecutor:
    """Performs a replay buffer's commands.

    Args:
        blueprint: The run; it must use samples from replay.
        index: Number of the buffer.
        clock: The run's timeline.
        arena: Memory that actors of this host write rollouts to, if there is any.
        resumes: How often the run was resumed.
        checkpoints: Directory of the run's checkpoints, if the store is saved.
        resumed: Version of the saved store that it goes on with; None: it starts empty.

    Raises:
        ConfigError: The saved store is damaged, or of another experiment.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        clock: Clock,
        arena: Arena | None = None,
        resumes: int = 0,
        *,
        checkpoints: Path | None = None,
        resumed: int | None = None,
    ) -> None:
        self._arena = arena
        request = blueprint.replay
        assert request is not None
        self._clock = clock
        self._layout = blueprint.samples
        self._priorities = blueprint.priorities
        self._num_samples = request.batch_size * request.updates_per_batch
        self._store = _make_store(request, blueprint.layout, self._stored_layout(blueprint))
        random = buffer_random(blueprint.experiment.seed, index, resumes)
        self._sampler = _make_sampler(request, self._store.num_positions, random)
        self._whole = blueprint.layout
        self._drawn: Samples | None = None
        """The last batch, if the store is saved."""
        self._undelivered: Samples | None = None
        """The batch that the run which is resumed had drawn and not trained on."""
        self._saver: ReplaySaver | None = None
        self.saved_counts: SavedCounts | None = None
        """Of the store that it goes on with."""
        self._prepare()
        if checkpoints is not None:
            self._keep(replay_directory(checkpoints, index), index, blueprint, resumed)

    def _prepare(self) -> None:
        """Allocates what a subclass needs before anything is stored."""

    def _keep(self, directory: Path, index: int, blueprint: Blueprint, resumed: int | None) -> None:
        """Loads the saved store, if there is one, and prepares to save it."""
        layouts = (self._whole, self._layout)
        segments: tuple[Segment, ...] = ()
        if resumed is not None:
            path = directory / f"v{resumed:010d}.json"
            saved = SavedReplay.open(path, layouts, self._store.num_slots)
            self._restore(saved)
            segments = tuple(saved.info.segments)
        keep = blueprint.experiment.checkpoint.keep
        num_slots = self._store.num_slots
        self._saver = ReplaySaver(directory, index, layouts, num_slots, keep, self._read, segments)

    def _restore(self, saved: SavedReplay) -> None:
        info = saved.info
        self._store.skip_to(info.num_rollouts - info.num_kept)
        for buffer, version, time_s in saved.rollouts():
            self._sampler.insert(*self._put_back(buffer, version, time_s))
        try:
            self._store.restore(saved.tensors)
            self._sampler.restore(saved.tensors)
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(
                f"not a saved replay store: {error}", where=str(saved.path)
            ) from error
        self._sampler.random = saved.generator()
        samples = saved.samples(self._layout.num_bytes)
        self.saved_counts = SavedCounts(info.limiter, samples is not None)
        if samples is not None:
            self._undelivered = self._delivered(info.batch, samples)

    def _put_back(self, buffer: npt.NDArray[np.uint8], version: int, time_s: float) -> Inserted:
        """Stores a rollout that was saved."""
        return self._store.insert(buffer, version, time_s)

    def _read(self, number: int) -> npt.NDArray[np.uint8]:
        """A copy of a stored rollout, in the layout of the run."""
        return self._store.rollout(number)

    def _flat(self, samples: Samples) -> npt.NDArray[np.uint8]:
        """The samples of a batch in one buffer, in the layout of the run."""
        return samples.buffer[: self._layout.num_bytes]

    def _delivered(self, batch: DrawnBatch | None, buffer: npt.NDArray[np.uint8]) -> Samples:
        """A saved batch, on its way again."""
        assert batch is not None
        framed = allocate_framed(self._layout.num_bytes)
        framed[:] = buffer
        return Samples(self._info_of(batch), framed)

    def _info_of(self, batch: DrawnBatch) -> SamplesInfo:
        return SamplesInfo(
            env_steps=batch.env_steps,
            drawn_s=self._clock.now_s(),
            age_mean_s=batch.age_mean_s,
            age_max_s=batch.age_max_s,
        )

    def _stored_layout(self, blueprint: Blueprint) -> Layout:
        """Layout of the part of a rollout that the store keeps."""
        return blueprint.layout

    def close(self) -> None:
        if self._saver is not None:
            self._saver.close()

    @property
    def is_busy(self) -> bool:
        return False

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("a replay buffer's commands are done when performed")

    def perform(self, command: Command) -> list[Event]:
        match command:
            case InsertRollout(rollout=rollout):
                self._insert(rollout)
                return []
            case DrawSamples(env_steps=env_steps):
                return [SamplesDrawn(self._draw(env_steps))]
            case SetPriorities(priorities=priorities):
                self._set_priorities(priorities)
                return []
            case SaveReplay():
                self._save(command)
                return []
            case PollReplay():
                assert self._saver is not None
                return [self._saver.poll() or ReplayUnsaved()]
            case ForgetActor():
                forget_actor(command, self._arena)
                return []
        raise RuntimeError(f"a replay buffer cannot perform {type(command).__name__}")

    def _save(self, command: SaveReplay) -> None:
        assert self._saver is not None
        tensors = {**self._store.state(), **self._sampler.state(self._store.num_filled)}
        batch = None
        if command.has_batch and self._drawn is not None:
            info = self._drawn.info
            tensors["samples"] = self._flat(self._drawn)
            batch = DrawnBatch(
                env_steps=info.env_steps, age_mean_s=info.age_mean_s, age_max_s=info.age_max_s
            )
        self._saver.begin(
            ReplaySnapshot(
                version=command.version,
                limiter=command.limiter,
                env_steps_consumed=command.env_steps_consumed,
                numbers=self._store.numbers,
                random=random_state(self._sampler.random),
                batch=batch,
                tensors=tensors,
            )
        )

    def _insert(self, rollout: Rollout) -> None:
        if self._saver is not None:
            self._saver.before_insert(self._store.numbers.stop)
        self._sampler.insert(*self._store.take_in(rollout))

    def _draw(self, env_steps: int) -> Samples:
        samples, self._undelivered = self._undelivered, None
        if samples is None:
            samples = self._draw_anew(env_steps)
        if self._saver is not None:
            self._drawn = samples
        return samples

    def _draw_anew(self, env_steps: int) -> Samples:
        positions, weights = self._sampler.draw(self._num_samples)
        now_s = self._clock.now_s()
        ages_s = now_s - self._store.times_s(positions)
        info = SamplesInfo(
            env_steps=env_steps,
            drawn_s=now_s,
            age_mean_s=float(ages_s.mean()),
            age_max_s=float(ages_s.max()),
        )
        return self._gather(info, positions, weights)

    def _gather(self, info: SamplesInfo, positions: IntArray, weights: FloatArray) -> Samples:
        """One batch, written directly into the outgoing buffer."""
        buffer = allocate_framed(self._layout.num_bytes)
        self._fill(self._layout.views(buffer), positions, weights)
        return Samples(info, buffer)

    def _fill(self, shaped: Arrays, positions: IntArray, weights: FloatArray) -> None:
        """Fills in arrays [updates, batch size, ...]."""
        flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in shaped.items()}
        flat.pop("weight")[...] = weights
        flat.pop("key")[...] = self._store.keys(positions)
        self._store.gather(positions, flat)

    def _set_priorities(self, priorities: Priorities) -> None:
        """Sets priorities; samples overwritten in the meantime are skipped."""
        views = self._priorities.views(priorities.buffer)
        keys = np.asarray(views["key"], np.int64).reshape(-1)
        errors = np.asarray(views["error"], np.float64).reshape(-1)
        positions, is_kept = self._store.positions(keys)
        self._sampler.update(positions[is_kept], errors[is_kept])


def _make_store(request: ReplayRequest, whole: Layout, kept: Layout) -> RolloutStore:
    """A store of transitions, or of sequences.

    Args:
        request: What will be drawn.
        whole: Layout of a rollout.
        kept: Of the part of it that the store keeps.
    """
    sizes = (request.capacity, request.n_step, request.discount, request.value_fields)
    if request.sequence is None:
        return RolloutStore(kept, *sizes)
    return SequenceStore(
        kept,
        *sizes,
        with_last=frozenset(item.name for item in whole.fields if item.extra_rows),
        burn_in_steps=request.sequence.burn_in_steps,
        priority_mix=request.sequence.priority_mix,
    )


def _make_sampler(
    request: ReplayRequest, num_positions: int, random: np.random.Generator
) -> Sampler:
    if request.priority_exponent == 0:
        return UniformSampler(num_positions, random)
    return PrioritizedSampler(
        num_positions,
        random,
        priority_exponent=request.priority_exponent,
        importance_exponent=request.importance_exponent,
    )
