"""A run of policy `local` that goes on with its saved replay store trains on the same samples.

Its environments begin anew, which no run can avoid. So here every rollout is replaced, when it is
stored, by one that only depends on how many came before: then nothing else may differ either, and
the resumed run must be the uninterrupted one to the last bit.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from msgspec.structs import replace

from engine.blueprint import make_blueprint
from engine.executors.learner import LearnerExecutor
from engine.executors.replay_buffer import ReplayExecutor
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.progress import Resumed, Standing
from engine.roles.commands import Command, SaveReplay, UpdateFromSamples
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import Event, Updated
from engine.roles.learner import LearnerRole
from engine.rollout import Rollout, Samples
from engine.runtime.inline import InlineRun
from engine.spec import CheckpointSpec, EnvSpec, Experiment, StalenessSpec, StopSpec
from engine.testing import make_experiment
from engine.trace.checkpoint_file import verify
from engine.trace.replay_file import verify_replay

ENV_ID = "EndlessNoise-v0"
SAVED = 70
"""Version at which a checkpoint is written."""


class Endless(gymnasium.Env):
    """Episodes that never end, so that each rollout has as many env steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action):
        return self._seen(), float(self.np_random.normal()), False, False, {}

    def _seen(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


gymnasium.register(ENV_ID, Endless)


def experiment(name: str, env_steps: int) -> Experiment:
    base = make_experiment(
        actors=1,
        env=EnvSpec(id=ENV_ID, num_envs=4),
        staleness=StalenessSpec(mode="unbounded"),
        stop=StopSpec(env_steps=env_steps),
        checkpoint=CheckpointSpec(every_s=None, replay=True),
    )
    sizes = {"rollout_steps": 5, "replay_capacity": 600, "min_replay_size": 100, "n_step": 2}
    batch = {"batch_size": 16, "updates_per_batch": 2, "replay_ratio": 4.0}
    schedules = {"epsilon_final": 0.1, "epsilon_decay_fraction": 0.9}
    if name == "apex":  # with priorities
        schedules["importance_exponent_final"] = 1.0
    algorithm = {"name": name, "target_update_period": 3, **sizes, **batch, **schedules}
    return replace(base, algorithm=algorithm)


@dataclass
class Recorded:
    """What the buffer and the learner of a run did."""

    drawn: list[tuple[int, np.ndarray]] = field(default_factory=list)
    """How many rollouts came before, and the samples."""
    weights: list[np.ndarray] = field(default_factory=list)
    """After each update."""
    saved: dict[int, int] = field(default_factory=dict)
    """By version, how many batches were drawn before the store was saved."""


def recorded(
    monkeypatch: pytest.MonkeyPatch, root: Path, wanted: Experiment, resumed: Resumed | None = None
) -> Recorded:
    found = Recorded()

    class Buffer(ReplayExecutor):
        def perform(self, command: Command) -> list[Event]:
            if isinstance(command, SaveReplay):
                found.saved[command.version] = len(found.drawn) - command.has_batch
            return super().perform(command)

        def _insert(self, rollout: Rollout) -> None:
            number = self._store.numbers.stop
            random, buffer = np.random.default_rng(number), rollout.buffer.copy()
            views = self._whole.views(buffer)
            for view in views.values():
                if np.issubdtype(view.dtype, np.floating):
                    view[...] = random.normal(size=view.shape)
            views["action"][...] = random.integers(0, 2, views["action"].shape)
            info = replace(rollout.info, version_min=0)  # how many updates came before is chance
            super()._insert(Rollout(info, buffer))

        def _draw(self, env_steps: int) -> Samples:
            samples = super()._draw(env_steps)
            found.drawn.append((self._store.numbers.stop, samples.buffer.copy()))
            return samples

    class Learner(LearnerExecutor):
        def perform(self, command: Command) -> list[Event]:
            events = super().perform(command)
            if isinstance(command, UpdateFromSamples):
                found.weights.append(self._state.weights.vector.detach().numpy().copy())
            return events

    class Role(LearnerRole):
        def _updated(self, event: Updated, now_s: float) -> list[Command]:
            if event.weights.version == SAVED:
                self._due = Standing()
            return super()._updated(event, now_s)

    monkeypatch.setattr("engine.runtime.assemble.LearnerRole", Role)
    monkeypatch.setattr("engine.runtime.assemble.ReplayExecutor", Buffer)
    monkeypatch.setattr("engine.runtime.assemble.LearnerExecutor", Learner)
    for name in ("trace", "checkpoints"):
        (root / name).mkdir(parents=True, exist_ok=True)
    graph = build_graph(read_policy("local"), wanted)
    info = RunInfo(
        run_id=root.name, num_hosts=1, num_actors=wanted.actors, num_groups=1, resumed=resumed
    )
    InlineRun(make_blueprint(wanted), info, graph.processes[0].roles, root, lambda _: None).run()
    return found


def taken_over(origin: Path, root: Path) -> Resumed:
    """The checkpoint of a version, copied to a run that goes on with it."""
    store = verify_replay(origin / f"checkpoints/replay-0/v{SAVED:010d}.json")
    info = verify(origin / "checkpoints" / store.name)
    (root / "checkpoints/replay-0").mkdir(parents=True)
    for name in (info.name, info.tensors_name):
        shutil.copy(origin / "checkpoints" / name, root / "checkpoints" / name)
    for name in (store.name, *store.sizes):
        shutil.copy(origin / "checkpoints/replay-0" / name, root / "checkpoints/replay-0" / name)
    consumed = store.env_steps_consumed
    assert consumed is not None
    counters = replace(info.counters, env_steps_consumed=consumed, env_steps_collected=consumed)
    return Resumed(
        run_id="one",
        checkpoint=info.name,
        version=info.version,
        updates=info.updates,
        counters=counters,
        resumes=1,
        replays={0: store.version},
    )


@pytest.mark.parametrize("name", ["dqn", "apex"])
def test_the_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    wanted = experiment(name, 1_500)
    whole = recorded(monkeypatch, tmp_path / "one", wanted)
    resumed = taken_over(tmp_path / "one", tmp_path / "two")
    again = recorded(monkeypatch, tmp_path / "two", wanted, resumed)
    begin = whole.saved[SAVED]
    assert 20 < len(again.drawn) == len(whole.drawn) - begin
    for (before, samples), (before_again, samples_again) in zip(
        whole.drawn[begin:], again.drawn, strict=True
    ):
        assert before == before_again
        np.testing.assert_array_equal(samples, samples_again)
    np.testing.assert_array_equal(whole.weights[-len(again.weights) :], again.weights)
