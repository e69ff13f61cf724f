"""Numbers that are none: noticed in their update, never kept, and never more than that update."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import gymnasium
import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch

from engine.algorithms.base import LearnerState
from engine.algorithms.gradient import EagerSteps, Step
from engine.algorithms.networks import RunningStatistics
from engine.algorithms.off_policy.ratios import METRICS as RATIOS
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.compilation.tracing import record
from engine.envs.make import register_environment
from engine.errors import ConfigError, RunFailedError
from engine.executors.checkpoint import load_checkpoint, save_checkpoint
from engine.executors.learner import LearnerExecutor
from engine.executors.reducer import ReducerExecutor
from engine.executors.soundness import PATIENCE, PATIENCE_WITH_INPUTS
from engine.progress import RunCounters
from engine.replay.prioritized import PrioritizedSampler
from engine.roles.commands import ExportWeights, MergeModel, SaveCheckpoint, Update
from engine.roles.events import CheckpointWritten, Noted, Updated
from engine.rollout import Rollout, Weights
from engine.spec import EnvSpec, Experiment, NetworkSpec, StopSpec
from engine.testing import make_experiment, make_rollout
from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.checkpoint_file import CheckpointInfo, read_info
from engine.trace.reader import read_table
from engine.trace.records import Consumption
from engine.trace.records import Event as TraceEvent
from engine.trace.tensor_file import refuse_strange
from tests.helpers.engine.functional_steps import FunctionalTaker
from tests.helpers.engine.inline_runs import run
from tests.helpers.engine.small_learners import batch_of, experiment

ALGORITHMS = ("ppo", "impala", "dqn", "apex")
OF_REALS = ("sac", "td3")
NOT_FINITE = (math.nan, math.inf, -math.inf)


def of(name: str, **hyperparameters: object) -> Experiment:
    """A small experiment of an algorithm, on CartPole."""
    kind = "dqn" if name == "apex" else name
    base = experiment(kind)
    algorithm = {**base.algorithm, "name": name, "normalize_reward": False, **hyperparameters}
    if kind != "ppo":
        del algorithm["normalize_reward"]
    return msgspec.structs.replace(
        base, algorithm=algorithm, network=NetworkSpec(hidden_sizes=(8,)), actors=1
    )


class Spiking(gymnasium.Env):
    """Pays 1 a step, and in some steps as much as it is told to."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reward: float, at: int, every: int = 10**9) -> None:
        self._reward, self._at, self._every, self._num_steps = reward, at, every, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self._num_steps += 1
        is_high = self._num_steps == self._at or self._num_steps % self._every == 0
        observation = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        ends = self._num_steps % 40 == 0
        return observation, self._reward if is_high else 1.0, False, ends, {}


@pytest.fixture
def spiking():
    register_environment("Spiking-v0", Spiking)
    yield
    del gymnasium.registry["Spiking-v0"]


def holds_finite_numbers(root: Path) -> bool:
    files = list((root / "checkpoints").rglob("*.safetensors"))
    tensors = [t for file in files for t in safetensors.torch.load_file(file).values()]
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def events(root: Path, kind: str) -> list[str]:
    return [row.detail for row in read_table(root / "trace", TraceEvent) if row.kind == kind]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_learning_rate_that_destroys_the_network_ends_the_run_by_name(tmp_path: Path, name: str):
    rate = 1e30 if name in ("ppo", "impala") else 1e38  # less leaves all of Q-learning finite
    wanted = of(name, learning_rate=rate)
    with pytest.raises(RunFailedError, match=r"learner-0: update \d+: ") as caught:
        run(tmp_path, wanted)
    assert caught.value.exit_code == 1
    assert "is not finite" in str(caught.value)
    assert holds_finite_numbers(tmp_path)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("reward", [1e25, -3e38])
def test_one_reward_costs_no_more_than_its_update(
    tmp_path: Path, spiking: None, name: str, reward: float
):
    env = EnvSpec(id="Spiking-v0", num_envs=4, kwargs={"reward": reward, "at": 130})
    base = msgspec.structs.replace(of(name), env=env, stop=StopSpec(env_steps=3000))
    result = run(tmp_path, base)
    assert result.summary.status == "ok"
    assert holds_finite_numbers(tmp_path)
    assert choose_checkpoint(tmp_path / "checkpoints", "last")
    rows = list(read_table(result.trace, Consumption))
    assert all(math.isfinite(value) for row in rows for value in row.metrics.values())
    if name in ("ppo", "impala"):
        (told,) = events(tmp_path, "not-finite")
        assert f"from a reward of {reward:g}" in told
        complete = [row for row in rows if "value_loss" in row.metrics]
        assert len(complete) >= len(rows) - 1
        assert abs(complete[-1].metrics["value_loss"]) < 1e6, "it has learnt on"


@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_rewards_that_are_always_too_large_end_the_run_by_name(
    tmp_path: Path, spiking: None, name: str
):
    kwargs = {"reward": 1e25, "at": 1, "every": 2}
    env = EnvSpec(id="Spiking-v0", num_envs=4, kwargs=kwargs)
    base = msgspec.structs.replace(of(name), env=env, stop=StopSpec(env_steps=3000))
    with pytest.raises(RunFailedError, match=r"from a reward of 1e\+25") as caught:
        run(tmp_path, base)
    assert "env.reward_scale" in caught.value.fix
    assert f"update {PATIENCE_WITH_INPUTS} in a row" in str(caught.value)


def rollout_of(blueprint: Blueprint, seed: int, **values: float) -> Rollout:
    """Something to learn from, with one number of a field replaced."""
    rollout, random = make_rollout(layout=blueprint.layout), np.random.default_rng(seed)
    views = blueprint.layout.views(rollout.buffer)
    for name in ("observation", "reward"):
        views[name][:] = random.normal(size=views[name].shape)
    views["log_prob"][:] = np.log(0.5)
    views["valid"][:] = True
    for name, value in values.items():
        views[name][3, 1] = value
    return rollout


@pytest.fixture
def blueprint() -> Blueprint:
    return make_blueprint(make_experiment())


def train(executor: LearnerExecutor, blueprint: Blueprint, **values: float) -> list[object]:
    rollouts = (rollout_of(blueprint, 0, **values), rollout_of(blueprint, 1))
    return list(executor.perform(Update(rollouts)))


@pytest.mark.parametrize("field", ["reward", "observation", "log_prob"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_what_is_no_number_in_a_batch_moves_nothing(
    tmp_path: Path, blueprint: Blueprint, field: str, value: float
):
    executor = LearnerExecutor(blueprint, tmp_path, ManualClock())
    train(executor, blueprint)
    moments = {k: v.clone() for k, v in executor._state.optimizer.named_tensors().items()}
    before = executor._state.weights.vector.detach().clone()
    updated, noted = train(executor, blueprint, **{field: value})
    assert isinstance(updated, Updated)
    assert isinstance(noted, Noted)
    assert noted.kind == "not-finite"
    assert noted.detail.startswith("update 2: ")
    assert f"from a {field} of {value:g}" in noted.detail
    by_lag = updated.ratios_by_lag.values()
    assert all(math.isfinite(value) for values in by_lag for value in values.values())
    after = executor._state.weights.vector.detach()
    assert torch.isfinite(after).all()
    if " 2 of 2 optimiser steps" in noted.detail:
        assert torch.equal(before, after)
        for name, tensor in executor._state.optimizer.named_tensors().items():
            assert torch.equal(tensor, moments[name])
    (again,) = train(executor, blueprint)
    assert isinstance(again, Updated)
    reported = {"policy_loss", "value_loss", "entropy", "approximate_kl"}
    assert set(again.metrics) == {*reported, *RATIOS, "gradient_norm", "learning_rate"}
    executor.close()


def write_parameter(state: LearnerState, value: float) -> None:
    with torch.no_grad():
        state.weights.vector[0] = value


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_parameter_that_is_no_number_ends_the_run_before_anybody_gets_it(
    tmp_path: Path, blueprint: Blueprint, value: float, monkeypatch: pytest.MonkeyPatch
):
    """Whatever an own algorithm does to its network."""
    executor = LearnerExecutor(blueprint, tmp_path, ManualClock(), name="learner-3")
    update = blueprint.algorithm.update

    def spoil(state, batch):
        result = update(state, batch)
        write_parameter(state, value)
        return result

    monkeypatch.setattr(blueprint.algorithm, "update", spoil)
    with pytest.raises(RunFailedError) as caught:
        train(executor, blueprint)
    assert str(caught.value).startswith("learner-3: update 1: the parameter policy_trunk.1.weight")
    assert f"({value})" in str(caught.value)
    executor.close()


def spoilt(state: LearnerState, place: str, value: float) -> None:
    if place == "parameter":
        write_parameter(state, value)
    elif place == "statistics":
        with torch.no_grad():
            state.network.input.statistics.variance[0] = value
    elif place == "target":
        assert state.target is not None
        with torch.no_grad():
            state.target.weights.vector[0] = value
    else:
        state.optimizer.named_tensors()[place].view(-1)[0] = value


@pytest.mark.parametrize("place", ["parameter", "statistics", "target", "mean", "variance"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_no_checkpoint_holds_a_number_that_is_none(tmp_path: Path, place: str, value: float):
    blueprint = make_blueprint(experiment("dqn"))
    state = blueprint.algorithm.init(0)
    for version in (1, 2, 3):
        save_checkpoint(tmp_path, state, blueprint, version=version, counters=RunCounters())
    before = sorted(path.name for path in tmp_path.iterdir())
    spoilt(state, place, value)
    with pytest.raises(RunFailedError, match="so no checkpoint was written"):
        save_checkpoint(tmp_path, state, blueprint, version=4, counters=RunCounters())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def forged(directory: Path, info: CheckpointInfo, place: str, value: float) -> Path:
    """The same checkpoint as an older release would have written it of spoilt numbers."""
    tensors = safetensors.torch.load_file(directory / info.tensors_name)
    tensors[place].view(-1)[0] = value
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    forgery = msgspec.structs.replace(
        info, version=info.version + 1, sha256=digest, num_bytes=len(data)
    ).sealed()
    (directory / forgery.tensors_name).write_bytes(data)
    (directory / forgery.name).write_bytes(msgspec.json.encode(forgery))
    return directory / forgery.name


@pytest.mark.parametrize("place", ["network.trunk.1.weight", "optimizer.variance"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_nothing_goes_on_from_numbers_that_are_none(tmp_path: Path, place: str, value: float):
    blueprint = make_blueprint(experiment("dqn"))
    state = blueprint.algorithm.init(0)
    path = save_checkpoint(tmp_path, state, blueprint, version=7, counters=RunCounters())
    bad = forged(tmp_path, read_info(path), place, value)
    found = choose_checkpoint(tmp_path, "last")
    assert found.info.version == 7
    assert f"the tensor '{place}' holds numbers that are not finite" in found.refused[0]
    with pytest.raises(ConfigError, match="not finite"):
        load_checkpoint(bad, state)
    assert torch.isfinite(state.weights.vector).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_numbers_of_every_type_are_looked_at(tmp_path: Path, dtype: torch.dtype):
    file = tmp_path / "tensors"
    for values, is_sound in (
        ([1.0, 3e38 if dtype.itemsize > 2 else 6e4], True),
        ([1.0, math.inf], False),
    ):
        data = safetensors.torch.save({"w": torch.tensor(values, dtype=dtype), "n": torch.ones(3)})
        file.write_bytes(data)
        with file.open("rb") as opened:
            if is_sound:
                refuse_strange(opened, len(data), file)
                continue
            with pytest.raises(ConfigError, match="'w' holds numbers"):
                refuse_strange(opened, len(data), file)


def test_weights_that_cannot_be_learnt_with_push_no_checkpoint_out(
    tmp_path: Path, blueprint: Blueprint
):
    """Finite, but so large that every loss is infinite."""
    executor = LearnerExecutor(blueprint, tmp_path, ManualClock())
    executor.perform(ExportWeights(0))
    train(executor, blueprint)
    (written,) = executor.perform(SaveCheckpoint(1, RunCounters()))
    assert isinstance(written, CheckpointWritten)
    assert written.name == "v0000000001.json"
    with torch.no_grad():
        executor._state.weights.vector.mul_(1e30)
    for update in range(2, 1 + PATIENCE):
        assert len(train(executor, blueprint)) == 2
        for is_final in (False, True):
            (written,) = executor.perform(SaveCheckpoint(update, RunCounters(), is_final))
            assert written.name == ""
            assert "from the network itself" in written.error
    with pytest.raises(RunFailedError, match=f"update {PATIENCE} in a row without effect"):
        train(executor, blueprint)
    assert [path.name for path in tmp_path.glob("*.json")] == ["v0000000001.json"]
    executor.close()


@pytest.mark.parametrize("policy", ["average", "accumulate"])
def test_models_that_are_merged_to_no_number_end_the_reducer_by_name(policy: str):
    blueprint = make_blueprint(make_experiment())
    cut = msgspec.structs.replace(blueprint.cut, merge=policy)
    executor = ReducerExecutor(Blueprint(**{**vars(blueprint), "cut": cut}))
    model = blueprint.algorithm.init(0).weights.vector.detach().numpy().copy()

    def merge(values: np.ndarray) -> None:
        """What each group says is finite; what they have learnt adds up to more."""
        weights = Weights(1, values.copy().view(np.uint8))
        executor.perform(MergeModel(0, weights, {0: 1.0}, True))

    merge(model)
    with np.errstate(over="ignore"):
        model[0] = 3e38
        merge(model)
        model[0] = -3e38
        with pytest.raises(RunFailedError, match="group 0 merged with the others is not finite"):
            merge(model)


def test_priorities_stay_numbers():
    sampler = PrioritizedSampler(
        8, np.random.default_rng(0), priority_exponent=0.6, importance_exponent=0.4
    )
    sampler.insert(0, np.ones(8, np.bool_), np.array([1.0, *NOT_FINITE, 1, 1, 1, 1]))
    sampler.update(np.arange(4), np.array([*NOT_FINITE, 3e38]))
    positions, weights = sampler.draw(64)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert set(positions) <= set(range(8))


def test_running_statistics_leave_out_what_cannot_be_squared():
    statistics = RunningStatistics((2,))
    statistics.learn(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))
    before = statistics.variance.clone(), statistics.mean.clone()
    statistics.learn(torch.tensor([[1.0, 1e25], [0.0, math.nan]]))
    assert torch.isfinite(statistics.variance).all()
    assert torch.isfinite(statistics.mean).all()
    assert statistics.variance[1] == before[0][1]
    assert statistics.mean[0] != before[1][0]


def recorded_step(name: str) -> tuple[LearnerState, Step, dict[str, torch.Tensor]]:
    """A learner after an update; a gradient step of that update, and its samples."""
    blueprint = make_blueprint(of(name))
    state = blueprint.algorithm.init(0)
    recorder = record(blueprint, state)
    assert recorder.step is not None
    blueprint.algorithm.update(state, batch_of(blueprint, 0))
    samples = dict(recorder.samples)
    if recorder.order is not None:
        samples = {name: values[recorder.order[0]] for name, values in samples.items()}
    return state, recorder.step, samples


@pytest.mark.parametrize("name", ["ppo", "impala", "dqn", *OF_REALS])
def test_an_eager_and_a_functional_step_leave_out_the_same(name: str):
    """What is compiled is the functional one."""
    state, recorded, samples = recorded_step(name)
    key = "reward" if "reward" in samples else "value_target"
    samples[key] = samples[key].clone()
    samples[key].view(-1)[0] = math.inf
    before = [tensor.clone() for tensor in recorded.changed(state)]
    for taker in (FunctionalTaker(), EagerSteps()):
        state.weights.steps.count()
        taker.take(state, recorded, samples)
        assert state.weights.steps.count() == (1, 1), "the step was not made"
        after = recorded.changed(state)
        assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))


@pytest.mark.parametrize("name", ["ppo", "impala", "dqn", *OF_REALS])
def test_an_eager_and_a_functional_step_tell_the_same_norm(name: str):
    norms = []
    for taker in (FunctionalTaker(), EagerSteps()):
        state, recorded, samples = recorded_step(name)
        state.weights.steps.count()
        taker.take(state, recorded, samples)
        state.weights.steps.count()
        norms.append(state.weights.steps.metrics["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
