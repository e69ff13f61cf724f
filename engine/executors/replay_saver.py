"""Saves a replay store beside training, and loads it. The files: `engine.trace.replay_file`.

A thread writes what the store is at one moment, while the buffer continues. Priorities, ages and
counts are copied at that moment; rollouts, which are large, when the thread comes to them or just
before they are overwritten. Only rollouts that no file has yet are written, so saving again costs
what is new. The JSON comes last: without it, nothing else counts.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from engine.errors import ConfigError
from engine.files import DurableFile, write_durably
from engine.progress import LimiterState
from engine.roles.events import ReplaySaved
from engine.rollout import Layout
from engine.trace.checkpoint_file import open_regular
from engine.trace.replay_file import (
    SEGMENT_BYTES,
    DrawnBatch,
    RandomState,
    ReplayInfo,
    Segment,
    packed,
    read_replay_info,
    read_segment,
    tidy_replays,
)

MIN_ASIDE_BYTES = 1 << 28
"""Copies of rollouts that were overwritten before the thread came to them may take this much, or a
quarter of the store if that is more; then the disk is too slow, and the store is not saved."""

CLOSE_S = 2.0
"""How long a process that ends waits for the thread."""

Buffer = npt.NDArray[np.uint8]
Tensors = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class ReplaySnapshot:
    """A store at one moment, but for its rollouts.

    Attributes:
        version, limiter, env_steps_consumed: As in `ReplayInfo`.
        numbers: Of its rollouts.
        random: The sampler's random numbers.
        batch: A batch under way, if there is one; its samples are in `tensors`.
        tensors: What `RolloutStore.state` and `Sampler.state` have copied.
    """

    version: int
    limiter: LimiterState
    env_steps_consumed: int | None
    numbers: range
    random: RandomState
    batch: DrawnBatch | None
    tensors: Tensors


class ReplaySaver:
    """Saves one store, again and again.

    Args:
        directory: For its files.
        buffer: Number of the buffer.
        layouts: Of a rollout, and of a batch.
        num_slots: Rollouts that the store holds.
        keep: How many saved stores are kept.
        read: Copies a rollout that is in the store, by its number; the layout's bytes.
        segments: Files of rollouts that are there already, of the store that was loaded.
        segment_bytes: Rollouts of one file, before compression.
    """

    def __init__(
        self,
        directory: Path,
        buffer: int,
        layouts: tuple[Layout, Layout],
        num_slots: int,
        keep: int,
        read: Callable[[int], Buffer],
        segments: tuple[Segment, ...] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._buffer = buffer
        self._rollout, self._samples = layouts
        self._num_slots = num_slots
        self._keep = keep
        self._read = read
        self._segments = list(segments)
        self._per_segment = max(1, segment_bytes // self._rollout.num_bytes)
        store_bytes = num_slots * self._rollout.num_bytes
        self._most_aside = max(MIN_ASIDE_BYTES, store_bytes // 4) // self._rollout.num_bytes
        self._lock = threading.Lock()
        self._pending = range(0)
        """Rollouts that the thread has still to read."""
        self._aside: dict[int, Buffer] = {}
        self._problem = ""
        self._thread: threading.Thread | None = None
        self._result: ReplaySaved | None = None
        self._is_closing = False

    def begin(self, snapshot: ReplaySnapshot) -> None:
        """Starts to save; the last one must have ended."""
        assert self._thread is None
        kept, begin = self._kept(snapshot.numbers)
        self._pending = range(begin, snapshot.numbers.stop)
        self._aside, self._problem, self._result = {}, "", None
        self._thread = threading.Thread(
            target=self._run, args=(snapshot, kept), name="replay saver", daemon=True
        )
        self._thread.start()

    def poll(self) -> ReplaySaved | None:
        """How saving went, once it has ended."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread.join()
        self._thread, result = None, self._result
        assert result is not None
        return result

    def before_insert(self, number: int) -> None:
        """Rollout `number` is about to replace the oldest one, which is kept if it is needed."""
        if self._thread is None:
            return
        with self._lock:
            old = number - self._num_slots
            if old not in self._pending or self._problem:
                return
            if len(self._aside) >= self._most_aside:
                self._problem = "rollouts come faster than they can be written"
                self._aside = {}
            else:
                self._aside[old] = self._read(old)

    def close(self) -> None:
        """Ends the thread, unless the disk holds it; what it has not finished does not count."""
        self._is_closing = True
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _kept(self, numbers: range) -> tuple[list[Segment], int]:
        """Files that can be used again, and the first rollout that is in none of them.

        A file covers a fixed range of numbers, so one that is not full is written anew.
        """
        kept, begin = [], numbers.start
        for segment in self._segments:
            is_full = segment.end % self._per_segment == 0
            if segment.end <= begin:
                continue
            if not is_full or segment.first > begin or segment.end > numbers.stop:
                break
            kept.append(segment)
            begin = segment.end
        return kept, begin

    def _run(self, snapshot: ReplaySnapshot, kept: list[Segment]) -> None:
        began_s = time.monotonic()
        try:
            num_bytes = self._write(snapshot, kept)
            result = ReplaySaved(
                snapshot.version, num_bytes=num_bytes, seconds=time.monotonic() - began_s
            )
        except (OSError, _Unfinished) as error:
            result = ReplaySaved(snapshot.version, error=str(error))
        with self._lock:
            self._pending, self._aside = range(0), {}
        self._result = result

    def _write(self, snapshot: ReplaySnapshot, kept: list[Segment]) -> int:
        """Writes all files; returns the bytes that are new."""
        self._directory.mkdir(parents=True, exist_ok=True)
        segments = list(kept)
        while self._pending:
            segments.append(self._write_segment())
            self._segments = list(segments)  # whole, whatever becomes of this store
        self._check()
        data = safetensors.numpy.save(snapshot.tensors)
        info = ReplayInfo(
            version=snapshot.version,
            buffer=self._buffer,
            env_steps_consumed=snapshot.env_steps_consumed,
            limiter=snapshot.limiter,
            num_envs=self._rollout.num_envs,
            layout=str(self._rollout.digest),
            samples_layout=str(self._samples.digest),
            rollout_bytes=self._rollout.num_bytes,
            num_rollouts=snapshot.numbers.stop,
            num_kept=len(snapshot.numbers),
            random=snapshot.random,
            batch=snapshot.batch,
            segments=segments,
            num_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        ).sealed()
        write_durably(self._directory / info.tensors_name, data)
        write_durably(self._directory / info.name, msgspec.json.encode(info) + b"\n")
        self._segments = segments
        tidy_replays(self._directory, self._keep)
        return len(data) + sum(segment.num_bytes for segment in segments[len(kept) :])

    def _write_segment(self) -> Segment:
        """Writes the next file of rollouts."""
        first = self._pending.start
        end = min((first // self._per_segment + 1) * self._per_segment, self._pending.stop)
        digest, num_bytes = hashlib.sha256(), 0
        with DurableFile(self._directory / f"s{first:012d}.rollouts") as writer:
            for piece in packed(map(self._take, range(first, end))):
                digest.update(piece)
                num_bytes += len(piece)
                writer.write(piece)
            segment = Segment(
                first=first, count=end - first, num_bytes=num_bytes, sha256=digest.hexdigest()
            )
            writer.finish(segment.name)
        return segment

    def _take(self, number: int) -> bytes:
        """A rollout as it was when saving began."""
        self._check()
        with self._lock:
            buffer = self._aside.pop(number, None)
            if buffer is None:
                buffer = self._read(number)
            self._pending = range(number + 1, self._pending.stop)
        return buffer.tobytes()

    def _check(self) -> None:
        if self._is_closing or self._problem:
            raise _Unfinished(self._problem or "the process ends")


class _Unfinished(Exception):
    pass


@dataclass(frozen=True)
class SavedReplay:
    """A saved store that is loaded.

    Args:
        path: Its JSON file.
        info: What that says.
        tensors: What `ReplaySnapshot.tensors` was.
    """

    path: Path
    info: ReplayInfo
    tensors: Mapping[str, npt.NDArray[np.generic]]

    @classmethod
    def open(cls, path: Path, layouts: tuple[Layout, Layout], num_slots: int) -> SavedReplay:
        """Reads all but the rollouts.

        Raises:
            ConfigError: It is damaged, or of another experiment.
        """
        info = read_replay_info(path)
        rollout, samples = layouts
        if (info.layout, info.samples_layout) != (str(rollout.digest), str(samples.digest)):
            raise ConfigError(
                "the saved replay store has other rollouts than this run: observations, actions or"
                " the number of environments differ",
                where=str(path),
                fix="resume with the same env.num_envs and algorithm.diagnostics (false for the"
                " store of an older version), or with -s checkpoint.replay=false, which fills the"
                " store again",
            )
        if info.rollout_bytes != rollout.num_bytes or info.num_kept > num_slots:
            raise ConfigError(
                "the saved replay store is larger than that of this run", where=f"{path}"
            )
        file = path.with_name(info.tensors_name)
        return cls(path, info, _read_tensors(file, info))

    def rollouts(self) -> Iterator[tuple[Buffer, int, float]]:
        """Buffer, behaviour version and time of each rollout, the oldest first.

        Raises:
            ConfigError: A file is damaged.
        """
        first = self.info.num_rollouts - self.info.num_kept
        versions, times_s = self._of_each("version"), self._of_each("time_s")
        for segment in self.info.segments:
            file = self.path.with_name(segment.name)
            rollouts = read_segment(file, segment, self.info.rollout_bytes)
            for place, data in enumerate(rollouts, start=segment.first - first):
                if place >= 0:
                    buffer = np.frombuffer(data, np.uint8)
                    yield buffer, int(versions[place]), float(times_s[place])

    def samples(self, num_bytes: int) -> Buffer | None:
        """Of the batch under way, if there is one."""
        if self.info.batch is None:
            return None
        found = self.tensors.get("samples")
        if found is None or found.dtype != np.uint8 or found.shape != (num_bytes,):
            raise ConfigError("its batch is missing", where=str(self.path))
        return np.asarray(found, np.uint8)

    def _of_each(self, name: str) -> npt.NDArray[np.generic]:
        found = self.tensors.get(name)
        if found is None or found.shape != (self.info.num_kept,):
            raise ConfigError(f"its tensor {name!r} does not fit", where=str(self.path))
        return found

    def generator(self) -> np.random.Generator:
        """The random numbers of the sampler go on."""
        random = self.info.random
        source = np.random.PCG64()
        try:
            source.state = {
                "bit_generator": "PCG64",
                "state": {"state": int(random.state), "inc": int(random.increment)},
                "has_uint32": random.has_uint32,
                "uinteger": random.uinteger,
            }
        except (ValueError, OverflowError) as error:
            raise ConfigError(
                f"no state of random numbers: {error}", where=f"{self.path}"
            ) from error
        return np.random.Generator(source)


def random_state(generator: np.random.Generator) -> RandomState:
    """The state of a generator that `np.random.default_rng` has made."""
    state = generator.bit_generator.state
    assert state["bit_generator"] == "PCG64"
    return RandomState(
        state=str(state["state"]["state"]),
        increment=str(state["state"]["inc"]),
        has_uint32=int(state["has_uint32"]),
        uinteger=int(state["uinteger"]),
    )


def _read_tensors(file: Path, info: ReplayInfo) -> Mapping[str, npt.NDArray[np.generic]]:
    with open_regular(file, info.num_bytes) as opened:
        data = opened.read(info.num_bytes)
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise ConfigError("its checksum does not match", where=str(file))
    try:
        return dict(safetensors.numpy.load(data))
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"not a file of tensors: {error}", where=str(file)) from error
