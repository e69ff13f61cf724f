"""The learner's body: several rollouts become one batch, an update becomes newer weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from engine.algorithms.base import Batch, LearnerState, UpdateResult
from engine.algorithms.off_policy.ratios import METRICS as RATIOS
from engine.algorithms.off_policy.ratios import WINDOW, RatioStatistics
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError
from engine.executors.learner import PARTS, LearnerExecutor, Staging
from engine.progress import MeanReturn, RunCounters
from engine.roles.commands import (
    BlendModel,
    ExportModel,
    ExportWeights,
    Quit,
    SaveCheckpoint,
    Update,
    UpdateFromSamples,
)
from engine.roles.events import CheckpointWritten, ModelExported, Updated, WeightsExported
from engine.rollout import Field, Layout, Rollout, Samples, SamplesInfo
from engine.spec import EnvSpec
from engine.testing import SCRIPTED_ENV, make_experiment, make_rollout
from engine.trace.checkpoint_file import verify
from tests.helpers.engine import small_learners


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return make_blueprint(make_experiment())


@pytest.fixture
def executor(blueprint: Blueprint, tmp_path: Path) -> Iterator[LearnerExecutor]:
    executor = LearnerExecutor(blueprint, tmp_path, ManualClock())
    yield executor
    executor.close()


def random_rollout(blueprint: Blueprint, seed: int) -> Rollout:
    rollout, random = make_rollout(layout=blueprint.layout), np.random.default_rng(seed)
    views = blueprint.layout.views(rollout.buffer)
    for name in ("observation", "reward"):
        views[name][:] = random.normal(size=views[name].shape)
    views["action"][:] = random.integers(2, size=views["action"].shape)
    views["log_prob"][:] = np.log(0.5)
    views["valid"][:] = True
    return rollout


def export(executor: LearnerExecutor, version: int = 0) -> np.ndarray:
    (event,) = executor.perform(ExportWeights(version))
    assert isinstance(event, WeightsExported)
    assert event.weights.version == version
    return event.weights.buffer.view(np.float32)


def train(executor: LearnerExecutor, *rollouts: Rollout) -> Updated:
    (event,) = executor.perform(Update(rollouts))
    assert isinstance(event, Updated)
    return event


def test_rollouts_lie_side_by_side_along_the_environments():
    layout = Layout((Field("observation", "float32", (2,), 1), Field("action", "int64")), 3, 2)
    rollouts = [make_rollout(layout=layout) for _ in range(3)]
    for number, rollout in enumerate(rollouts):
        for values in layout.views(rollout.buffer).values():
            values[:] = 10 * number + np.arange(2).reshape((2,) + (1,) * (values.ndim - 2))
    staging = Staging(layout, 3)
    batch = staging.fill(rollouts)
    assert batch["observation"].shape == (4, 6, 2)
    assert batch["action"].tolist() == [[0, 1, 10, 11, 20, 21]] * 3
    assert batch["observation"][-1, :, 1].tolist() == [0, 1, 10, 11, 20, 21]
    again = staging.fill(rollouts[::-1])
    assert again["action"].data_ptr() == batch["action"].data_ptr(), "allocated once"
    assert again["action"].tolist() == [[20, 21, 10, 11, 0, 1]] * 3


def test_the_first_weights_are_those_of_the_seed(blueprint: Blueprint, executor: LearnerExecutor):
    wanted = blueprint.algorithm.init(blueprint.experiment.seed).weights.vector.detach()
    assert torch.equal(torch.from_numpy(export(executor)), wanted)


def test_every_update_raises_the_version_by_one_and_exports_what_was_learnt(
    blueprint: Blueprint, executor: LearnerExecutor
):
    first = export(executor).copy()
    events = [
        train(executor, random_rollout(blueprint, 2 * i), random_rollout(blueprint, 2 * i + 1))
        for i in range(WINDOW + 1)
    ]
    assert [event.weights.version for event in events[:3]] == [1, 2, 3]
    assert [event.num_updates for event in events[:3]] == [2, 4, 6], "two minibatches each"
    assert {event.samples_trained for event in events} == {80}
    exported = [first, *(event.weights.buffer.view(np.float32) for event in events)]
    for before, after in itertools.pairwise(exported):
        assert not np.array_equal(before, after), "no buffer is written to again"
    reported = {"policy_loss", "value_loss", "entropy", "approximate_kl"}
    every = {*reported, "gradient_norm", "learning_rate"}
    for event in events[:-1]:
        assert set(event.metrics) == {*every, *RATIOS}, "of the first batches"
    assert set(events[-1].metrics) == every, "until 256 updates later"
    assert set(events[0].ratios_by_lag["ess_by_lag"]) == {0}
    assert not events[-1].ratios_by_lag
    assert [event.num_updates_before for event in events[:3]] == [0, 2, 4]


def test_after_a_merged_model_was_blended_in_no_policy_is_the_one_that_acted(
    blueprint: Blueprint, executor: LearnerExecutor, monkeypatch: pytest.MonkeyPatch
):
    blended: list[bool] = []
    watch = executor._watch
    assert watch is not None

    def check(version: int, ratios: RatioStatistics, *, is_blended: bool) -> str:
        blended.append(is_blended)
        return ""

    monkeypatch.setattr(watch, "check", check)
    rollouts = random_rollout(blueprint, 1), random_rollout(blueprint, 2)
    export(executor)
    train(executor, *rollouts)
    (offered,) = executor.perform(ExportModel())
    assert isinstance(offered, ModelExported)
    executor.perform(BlendModel(offered.weights))
    train(executor, *rollouts)
    train(executor, *rollouts)
    executor.perform(BlendModel(offered.weights))
    export(executor, 3)
    train(executor, *rollouts)
    assert blended == [False, True, False, False]


def test_figures_that_an_algorithm_gives_as_tensors_become_numbers(
    blueprint: Blueprint, executor: LearnerExecutor, monkeypatch: pytest.MonkeyPatch
):
    metrics: dict[str, Any] = {"loss": torch.tensor(0.5), "norm": np.float32(2.0)}
    result = UpdateResult(torch.tensor(80), metrics)  # type: ignore[arg-type]
    monkeypatch.setattr(blueprint.algorithm, "update", lambda state, batch: result)
    event = train(executor, random_rollout(blueprint, 0), random_rollout(blueprint, 1))
    row = msgspec.json.encode([event.samples_trained, event.metrics])
    assert row == b'[80,{"loss":0.5,"norm":2.0}]'


def test_the_update_sees_the_rollouts_as_they_came(blueprint: Blueprint, executor: LearnerExecutor):
    rollouts = [random_rollout(blueprint, seed) for seed in (1, 2)]
    state = blueprint.algorithm.init(blueprint.experiment.seed)
    batch = {
        name: torch.cat(
            [
                torch.from_numpy(blueprint.layout.views(rollout.buffer)[name])
                for rollout in rollouts
            ],
            dim=1,
        )
        for name in blueprint.layout.views(rollouts[0].buffer)
    }
    blueprint.algorithm.update(state, batch)
    event = train(executor, *rollouts)
    wanted = state.weights.vector.detach().numpy()
    assert np.array_equal(event.weights.buffer.view(np.float32), wanted)


def test_an_update_knows_how_far_the_run_has_come(
    blueprint: Blueprint, executor: LearnerExecutor, monkeypatch: pytest.MonkeyPatch
):
    seen: list[float] = []

    def update(state: LearnerState, batch: Batch) -> UpdateResult:
        seen.append(state.progress)
        return UpdateResult(80, {})

    monkeypatch.setattr(blueprint.algorithm, "update", update)
    rollouts = (random_rollout(blueprint, 0), random_rollout(blueprint, 1))
    for progress in (0.0, 0.25):
        executor.perform(Update(rollouts, progress))
    assert seen == [0.0, 0.25]


class TwoLearners:
    """Another learner that says what it counts."""

    rank, count, shares, own_and_others = 0, 2, (1, 1), (1, 1)

    def __init__(self, of_other: int) -> None:
        self._of_other = of_other

    def all_agree(self, own: int) -> int:
        return own + self._of_other

    def all_reduce_sum(self, values: torch.Tensor) -> None: ...

    def close(self) -> None: ...


def test_learners_with_stores_of_their_own_agree_on_how_far_the_run_has_come(
    monkeypatch: pytest.MonkeyPatch,
):
    blueprint = make_blueprint(small_learners.experiment("dqn"))
    group: Any = TwoLearners(of_other=round(0.3 * PARTS))
    executor = LearnerExecutor(blueprint, None, ManualClock(), group)
    seen: list[float] = []

    def update(state: LearnerState, batch: Batch) -> UpdateResult:
        seen.append(state.progress)
        return UpdateResult(80, {})

    monkeypatch.setattr(blueprint.algorithm, "update", update)
    info = SamplesInfo(env_steps=16, drawn_s=0.0, age_mean_s=0.0, age_max_s=0.0)
    samples = Samples(info, np.zeros(blueprint.samples.num_bytes, np.uint8))
    executor.perform(UpdateFromSamples(samples, 0.2))
    assert seen == [pytest.approx(0.25)]
    executor.close()


def test_a_checkpoint_lands_where_it_was_told_to(executor: LearnerExecutor, tmp_path: Path):
    counters = RunCounters(env_steps_collected=9)
    known = MeanReturn(mean=12.5, judge="evaluation", version=3)
    written = executor.perform(SaveCheckpoint(4, counters, is_final=True, known_return=known))
    assert written == [CheckpointWritten("v0000000004.json", is_final=True)]
    info = verify(tmp_path / "v0000000004.json")
    assert (info.version, info.counters) == (4, counters)
    assert info.known_return == known


def test_a_disk_that_refuses_a_checkpoint_ends_nothing(
    executor: LearnerExecutor, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    (written,) = executor.perform(SaveCheckpoint(4, RunCounters()))
    assert isinstance(written, CheckpointWritten)
    assert "No space left" in written.error


def test_commands_of_other_roles_are_refused(executor: LearnerExecutor):
    with pytest.raises(RuntimeError, match="a learner cannot perform Quit"):
        executor.perform(Quit())


def test_a_batch_must_be_made_of_whole_rollouts():
    experiment = make_experiment(env=EnvSpec(id=SCRIPTED_ENV, num_envs=3))
    with pytest.raises(ConfigError, match="80 is not a multiple of a rollout's 30") as error:
        make_blueprint(experiment)
    assert error.value.where == "algorithm.batch_steps"
    assert error.value.fix == "try 90"


def test_everybody_computes_the_same_layouts(blueprint: Blueprint):
    twin = make_blueprint(make_experiment(seed=9))
    assert twin.layout.digest == blueprint.layout.digest
    assert twin.weights == blueprint.weights
    assert blueprint.rollouts_per_batch == 2
    names = [item.name for item in blueprint.layout.fields]
    assert names == [
        "observation",
        "action",
        "log_prob",
        "reward",
        "terminated",
        "truncated",
        "valid",
    ]


def test_an_environment_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ConfigError) as error:
        make_blueprint(make_experiment(env=EnvSpec(id="CartPol-v1")))
    assert error.value.where == "env.id"
    assert error.value.fix == "did you mean 'CartPole-v1'?"


def test_arguments_that_an_environment_refuses_are_a_configuration_error():
    with pytest.raises(ConfigError, match="cannot be made") as error:
        make_blueprint(make_experiment(env=EnvSpec(id=SCRIPTED_ENV, kwargs={"colour": "red"})))
    assert error.value.where.startswith("env")
