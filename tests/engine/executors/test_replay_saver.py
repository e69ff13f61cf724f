"""Saved replay stores: exact, incremental, bounded, and complete or not there."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError
from engine.executors import replay_saver
from engine.executors.on_device.replay_buffer import DeviceReplayExecutor
from engine.executors.replay_buffer import ReplayExecutor
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.progress import LimiterState
from engine.roles.commands import DrawSamples, InsertRollout, PollReplay, SaveReplay, SetPriorities
from engine.roles.events import ReplaySaved
from engine.rollout import Priorities, Rollout, RolloutInfo
from engine.spec import CheckpointSpec, CoreSpec, EnvSpec, StalenessSpec
from engine.testing import make_experiment
from engine.trace import replay_file
from engine.trace.replay_file import Segment, read_replay_info, replay_directory, verify_replay

KINDS = {
    "uniform": ("dqn", None),
    "prioritized": ("apex", None),
    "sequences": ("apex", CoreSpec(name="gru", size=3)),
}
NUM_SLOTS = 6


def make(kind: str = "prioritized", policy: str = "local", keep: int = 2) -> Blueprint:
    name, core = KINDS[kind]
    sizes = {"rollout_steps": 7, "replay_capacity": 28 * NUM_SLOTS, "min_replay_size": 10}
    base = make_experiment(
        actors=1,
        env=EnvSpec(id="CartPole-v1", num_envs=4),
        staleness=StalenessSpec(mode="unbounded"),
        checkpoint=CheckpointSpec(keep=keep, replay=True),
    )
    experiment = replace(
        base,
        algorithm={"name": name, "n_step": 3, "batch_size": 8, "updates_per_batch": 2, **sizes},
        network=replace(base.network, core=core),
    )
    return make_blueprint(experiment, build_graph(read_policy(policy), experiment).cut)


def rollout_of(blueprint: Blueprint, number: int) -> Rollout:
    """Equal numbers give equal rollouts."""
    random, buffer = np.random.default_rng(number), blueprint.layout.allocate()
    for name, view in blueprint.layout.views(buffer).items():
        view[...] = random.integers(0, 2, view.shape) if view.dtype != bool else False
        if name == "valid":
            view[...] = random.random(view.shape) < 0.9
    info = RolloutInfo(
        actor=number % 2, epoch=0, sequence=number // 2, ticket=number, version_min=number,
        version_max=number, num_env_steps=28, total_env_steps=0, start_s=0.0, end_s=number / 8,
    )  # fmt: skip
    return Rollout(info, buffer)


class Store:
    """A replay buffer's executor, driven by hand."""

    def __init__(self, root: Path | None, blueprint: Blueprint, resumed: int | None = None) -> None:
        self.blueprint, self.root = blueprint, root
        self.executor = ReplayExecutor(
            blueprint, 0, ManualClock(), checkpoints=root, resumed=resumed
        )

    def insert(self, *numbers: int) -> None:
        for number in numbers:
            self.executor.perform(InsertRollout(rollout_of(self.blueprint, number)))

    def draw(self) -> dict[str, np.ndarray]:
        (event,) = self.executor.perform(DrawSamples(5))
        views = self.blueprint.samples.views(event.samples.buffer)
        return {name: array.copy() for name, array in views.items()}

    def train(self, drawn: dict[str, np.ndarray]) -> None:
        """Priorities that depend on what was drawn alone."""
        layout = self.blueprint.priorities
        buffer = layout.allocate()
        views = layout.views(buffer)
        views["key"][...] = drawn["key"]
        views["error"][...] = (drawn["key"] % 13) / 7
        self.executor.perform(SetPriorities(Priorities(buffer)))

    def begin(self, version: int, has_batch: bool = False) -> None:
        self.executor.perform(SaveReplay(version, LimiterState(inserted=5), 7, has_batch))

    def finish(self) -> ReplaySaved:
        while True:
            (event,) = self.executor.perform(PollReplay())
            if isinstance(event, ReplaySaved):
                return event

    def save(self, version: int, has_batch: bool = False) -> ReplaySaved:
        self.begin(version, has_batch)
        saved = self.finish()
        assert not saved.error
        return saved

    @property
    def directory(self) -> Path:
        assert self.root is not None
        return replay_directory(self.root, 0)


def assert_goes_on_alike(one: Store, other: Store, numbers: Iterator[int]) -> None:
    for number in itertools.islice(numbers, 9):
        drawn, again = one.draw(), other.draw()
        assert set(drawn) == set(again)
        for name, values in drawn.items():
            np.testing.assert_array_equal(values, again[name], err_msg=name)
        for store in (one, other):
            store.train(drawn)
            store.insert(number)


@pytest.mark.parametrize("num_rollouts", [3, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_store_draws_what_an_uninterrupted_one_does(
    tmp_path: Path, kind: str, num_rollouts: int
):
    """To the last bit: samples, keys, importance weights, and priorities set before and after."""
    blueprint = make(kind)
    store = Store(tmp_path, blueprint)
    for number in range(num_rollouts):
        store.insert(number)
        store.train(store.draw())
    store.save(12)
    verify_replay(store.directory / "v0000000012.json")
    resumed = Store(tmp_path, blueprint, 12)
    counts = resumed.executor.saved_counts
    assert counts is not None
    assert (counts.limiter, counts.has_batch) == (LimiterState(inserted=5), False)
    # Rollouts of the resumed run are of new lives of its actors: they follow none of before.
    first = 100 * num_rollouts
    assert_goes_on_alike(store, resumed, itertools.count(first))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_on_its_way_comes_first_though_its_samples_are_overwritten(
    tmp_path: Path, kind: str
):
    store = Store(tmp_path, make(kind))
    store.insert(*range(NUM_SLOTS))
    drawn = store.draw()
    store.insert(*range(100, 100 + NUM_SLOTS))
    store.save(3, has_batch=True)
    resumed = Store(tmp_path, store.blueprint, 3)
    again = resumed.draw()
    for name, values in drawn.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    for one in (store, resumed):
        one.train(drawn)
    assert_goes_on_alike(store, resumed, itertools.count(200))


def test_what_comes_while_it_is_saved_is_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk stands still until every rollout of the store is overwritten."""
    gate = threading.Event()

    def slow(rollouts: Iterator[bytes]) -> Iterator[bytes]:
        gate.wait(20)
        return replay_file.packed(rollouts)

    monkeypatch.setattr(replay_saver, "packed", slow)
    blueprint = make()
    store, twin = Store(tmp_path, blueprint), Store(None, blueprint)
    for one in (store, twin):
        one.insert(*range(8))
    store.begin(4)
    for number in range(20, 20 + 2 * NUM_SLOTS):
        store.insert(number)
        store.train(store.draw())
    gate.set()
    assert not store.finish().error
    assert_goes_on_alike(Store(tmp_path, blueprint, 4), twin, itertools.count(50))


def test_a_disk_that_is_too_slow_is_given_up_and_the_next_time_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gate = threading.Event()

    def slow(rollouts: Iterator[bytes]) -> Iterator[bytes]:
        gate.wait(20)
        return replay_file.packed(rollouts)

    monkeypatch.setattr(replay_saver, "packed", slow)
    monkeypatch.setattr(replay_saver, "MIN_ASIDE_BYTES", 0)
    store = Store(tmp_path, make())
    store.insert(*range(NUM_SLOTS))
    store.begin(1)
    store.insert(*range(20, 20 + NUM_SLOTS))
    gate.set()
    assert "faster than they can be written" in store.finish().error
    assert not list(store.directory.glob("v*"))
    store.save(2)
    verify_replay(store.directory / "v0000000002.json")


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> int:
    """Rollouts of one file."""
    init = replay_saver.ReplaySaver.__init__
    size = 2 * make().layout.num_bytes
    monkeypatch.setattr(
        replay_saver.ReplaySaver,
        "__init__",
        lambda self, *args, **more: init(self, *args, **more, segment_bytes=size),
    )
    return 2


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.usefixtures("small_files")
def test_only_what_is_new_is_written_and_only_what_is_needed_is_kept(tmp_path: Path):
    store = Store(tmp_path, make(keep=2))
    store.insert(*range(5))
    whole = store.save(1).num_bytes
    first = read_replay_info(store.directory / "v0000000001.json")
    assert [(s.first, s.count) for s in first.segments] == [(0, 2), (2, 2), (4, 1)]
    store.insert(5)
    written = store.save(2).num_bytes
    second = read_replay_info(store.directory / "v0000000002.json")
    assert second.segments[:2] == first.segments[:2]
    assert (second.segments[2].first, second.segments[2].count) == (4, 2)
    assert written < whole
    store.insert(*range(6, 13))
    store.save(3)
    third = read_replay_info(store.directory / "v0000000003.json")
    assert [s.first for s in third.segments] == [7, 8, 10, 12]
    expected = {n for info in (second, third) for n in (info.name, *info.sizes)}
    assert names(store.directory) == expected, "the first is gone, and what it alone had"
    resumed = Store(tmp_path, store.blueprint, 3)
    resumed.insert(50)
    store.insert(50)
    resumed.save(4)
    fourth = read_replay_info(store.directory / "v0000000004.json")
    assert fourth.segments[:2] == third.segments[1:3], "a resumed run writes only what is new"
    assert_goes_on_alike(store, Store(tmp_path, store.blueprint, 4), itertools.count(60))


def test_policies_can_change_and_environments_cannot(tmp_path: Path):
    store = Store(tmp_path, make())
    store.insert(*range(8))
    drawn = store.draw()
    store.save(3, has_batch=True)
    on_device = DeviceReplayExecutor(
        make(policy="gpu-only"), 0, ManualClock(), checkpoints=tmp_path, resumed=3
    )
    for _ in range(2):  # the batch that was on its way, and a new one
        (event,) = on_device.perform(DrawSamples(5))
        for name, values in event.samples.tensors.items():
            np.testing.assert_array_equal(drawn[name], values.numpy(), err_msg=name)
        drawn = store.draw()
    on_device.perform(SaveReplay(4, LimiterState(), None, True))
    while not isinstance(on_device.perform(PollReplay())[0], ReplaySaved):
        pass
    back = Store(tmp_path, store.blueprint, 4)
    np.testing.assert_array_equal(back.draw()["key"], event.samples.tensors["key"].numpy())
    np.testing.assert_array_equal(back.draw()["key"], drawn["key"])
    assert_goes_on_alike(store, back, itertools.count(70))

    experiment = store.blueprint.experiment
    wider = replace(experiment, env=replace(experiment.env, num_envs=5))
    with pytest.raises(ConfigError, match="has other rollouts"):
        Store(tmp_path, make_blueprint(wider), 3)


@pytest.fixture
def saved(tmp_path: Path) -> Store:
    store = Store(tmp_path, make())
    store.insert(*range(8))
    store.draw()
    store.save(3, has_batch=True)
    return store


@pytest.mark.parametrize("pattern", ["v*.json", "v*.safetensors", "s*.rollouts"])
def test_a_damaged_file_is_named_and_nothing_is_loaded(saved: Store, pattern: str):
    (file,) = saved.directory.glob(pattern)
    whole = file.read_bytes()
    for damaged in (whole[:-2], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], b""):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError):
            verify_replay(saved.directory / "v0000000003.json")
        with pytest.raises(ConfigError):
            Store(saved.root, saved.blueprint, 3)
    file.unlink()
    with pytest.raises(ConfigError):
        verify_replay(saved.directory / "v0000000003.json")


def test_a_link_is_not_followed(saved: Store):
    (file,) = saved.directory.glob("s*.rollouts")
    file.rename(saved.directory / "elsewhere")
    file.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        verify_replay(saved.directory / "v0000000003.json")


def test_what_is_forged_allocates_nothing_and_loads_nothing(saved: Store):
    """Each with a checksum that is right: what a host could send."""
    path = saved.directory / "v0000000003.json"
    info = read_replay_info(path)
    (segment,) = info.segments
    impossible: list[dict[str, object]] = [
        {"rollout_bytes": 1 << 31},
        {"num_kept": 5},
        {"num_kept": 7, "num_rollouts": 8},
        {"num_rollouts": 9},
        {"segments": [replace(segment, first=1)]},
        {"segments": [segment, segment]},
        {"random": replace(info.random, state="9" * 40)},
    ]
    for changes in impossible:
        path.write_bytes(msgspec.json.encode(replace(info, **changes).sealed()))
        with pytest.raises(ConfigError):
            Store(saved.root, saved.blueprint, 3)
    path.write_bytes(msgspec.json.encode(info))
    Store(saved.root, saved.blueprint, 3)


def test_a_rollout_that_grows_when_it_is_unpacked_is_refused(tmp_path: Path):
    pieces = b"".join(replay_file.packed([bytes(1 << 24)]))
    path = tmp_path / "s000000000000-0.rollouts"
    path.write_bytes(pieces)
    segment = Segment(first=0, count=1, num_bytes=len(pieces), sha256="0" * 64)
    with pytest.raises(ConfigError, match="not 100 bytes long"):
        list(replay_file.read_segment(path, segment, 100))


def die_at(root: Path, step: int) -> None:
    """Kills this process before it does so many things to files there."""
    steps = itertools.count(1)

    def watch(event: str, args: tuple[object, ...]) -> None:
        is_there = event in ("open", "os.rename", "os.remove") and str(root) in str(args[0])
        if is_there and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def test_a_saver_that_is_killed_between_any_two_steps_leaves_the_store_before(tmp_path: Path):
    blueprint = make(keep=1)
    store = Store(tmp_path / "begin", blueprint)
    store.insert(*range(8))
    store.save(1)
    was_saved = []
    for step in range(1, 100):
        root = tmp_path / str(step)
        shutil.copytree(tmp_path / "begin", root)
        resumed = Store(root, blueprint, 1)
        resumed.insert(*range(20, 25))
        pid = os.fork()
        if pid == 0:
            die_at(root, step)
            resumed.save(2)
            os._exit(3)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found = sorted(resumed.directory.glob("v*.json"))
        version = [verify_replay(path).version for path in found][-1]
        Store(root, blueprint, version)
        was_saved.append(version == 2)
        if status == 3:
            break
        assert status == -signal.SIGKILL
    assert was_saved.index(True) > 5, "files, and what they are made of, come before"
    assert was_saved == sorted(was_saved)
    assert len(names(resumed.directory)) == 3, "what is needed no more is gone"
