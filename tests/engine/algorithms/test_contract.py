"""What every algorithm promises; one that does not keep to `Algorithm` is told what it lacks."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from engine.algorithms.base import Spaces
from engine.algorithms.impala import Impala, ImpalaConfig
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.registry import ALGORITHMS, Entry, make_algorithm
from engine.blueprint import make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError, RunFailedError
from engine.executors.actor import ActorExecutor
from engine.roles.commands import CollectRollout, LoadWeights
from engine.rollout import Weights
from engine.spec import EnvSpec, NetworkSpec, Scalar, StalenessSpec
from engine.testing import SCRIPTED_ENV, discrete_spaces, make_experiment
from tests.helpers.engine.policy_by_hand import make_batch, spoil_invalid_steps

SCRIPTED = EnvSpec(id=SCRIPTED_ENV, num_envs=4)


class Half:
    """Without `update` and `act_greedily`."""

    def __init__(self, config: PpoConfig, network: object, spaces: object) -> None: ...

    def samples(self) -> None: ...

    def network(self) -> None: ...

    def init(self, seed: int) -> None: ...

    def noise(self, generator: torch.Generator, num_steps: int, lanes: object) -> None: ...

    def act(self, network: nn.Module, observation: Tensor, noise: Tensor) -> None: ...


def test_missing_methods_are_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ALGORITHMS, "half", Entry(PpoConfig, Half))  # type: ignore[arg-type]
    experiment = replace(make_experiment(env=SCRIPTED), algorithm={"name": "half"})
    with pytest.raises(ConfigError, match="half lacks act_greedily, update") as error:
        make_blueprint(experiment)
    assert error.value.where == "algorithm.name"


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [("squash_actions", True, "squashes its actions itself"), ("scale_actions", False, "scaled")],
)
@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_actions_in_units_of_a_range_are_scaled_and_no_more(
    name: str, key: str, value: bool, why: str
):
    spaces = Spaces(discrete_spaces().observation, gymnasium.spaces.Box(-2, 2, (1,)))
    experiment = replace(
        make_experiment(staleness=StalenessSpec(mode="unbounded")), algorithm={"name": name}
    )
    make_algorithm(experiment, spaces)
    other = replace(experiment, env=replace(experiment.env, **{key: value}))
    with pytest.raises(ConfigError, match=why) as error:
        make_algorithm(other, spaces)
    assert error.value.where == f"env.{key}"


@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_only_a_store_that_there_is_can_be_saved(name: str):
    experiment = replace(make_experiment(), algorithm={"name": name})
    make_algorithm(experiment, discrete_spaces())
    other = replace(experiment, checkpoint=replace(experiment.checkpoint, replay=True))
    with pytest.raises(ConfigError, match=f"{name} has no replay store") as error:
        make_algorithm(other, discrete_spaces())
    assert error.value.where == "checkpoint.replay"


@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_a_bound_that_follows_the_sample_size_needs_diagnostics(name: str):
    auto = StalenessSpec(max_lag="auto")
    algorithm: dict[str, Scalar] = {"name": name, "diagnostics": False}
    experiment = replace(make_experiment(staleness=auto), algorithm=algorithm)
    with pytest.raises(ConfigError, match="not known without diagnostics") as error:
        make_algorithm(experiment, discrete_spaces())
    assert error.value.where == "algorithm.diagnostics"
    make_algorithm(replace(experiment, algorithm={"name": name}), discrete_spaces())
    floorless = replace(experiment, staleness=replace(auto, least_ess=0.0))
    make_algorithm(floorless, discrete_spaces())


def test_a_replay_store_has_no_adaptive_bound():
    experiment = replace(
        make_experiment(staleness=StalenessSpec(max_lag="auto")), algorithm={"name": "dqn"}
    )
    with pytest.raises(ConfigError, match="can be neither bounded nor fixed"):
        make_algorithm(experiment, discrete_spaces())


class Forgets(Ppo):
    """Does not say how likely its actions were."""

    def act(self, network: nn.Module, observation: Tensor, noise: Tensor) -> dict[str, Tensor]:
        chosen = super().act(network, observation, noise)
        return {"action": chosen["action"]}


class Narrow(Ppo):
    """Chooses for the first environment only; a copy would spread that over all of them."""

    def act(self, network: nn.Module, observation: Tensor, noise: Tensor) -> dict[str, Tensor]:
        chosen = super().act(network, observation, noise)
        return {**chosen, "action": chosen["action"][:1]}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgets, r"act\(\) returns no log_prob, which samples\(\)\.fields lists"),
        (Narrow, r"act\(\) returns action of shape \(1,\); samples\(\)\.fields declares \(4,\)"),
    ],
)
def test_what_act_gives_is_compared_with_the_fields_of_a_rollout(kind: type[Ppo], message: str):
    blueprint = make_blueprint(
        make_experiment(
            env=SCRIPTED,
            rollout_steps=10,
            batch_steps=40,
            minibatch_steps=40,
        )
    )
    algorithm = blueprint.algorithm
    assert isinstance(algorithm, Ppo)
    algorithm.__class__ = kind
    executor = ActorExecutor(blueprint, 0, 0, ManualClock(0.0))
    try:
        executor.perform(LoadWeights(Weights(0, np.zeros(blueprint.weights.num_bytes, np.uint8))))
        executor.perform(CollectRollout(0))
        with pytest.raises(RunFailedError, match=message):
            executor.advance(float("inf"))
    finally:
        executor.close()


SMALL = NetworkSpec(hidden_sizes=(8, 8))
ONE_BATCH = {"rollout_steps": 6, "batch_steps": 24}


@pytest.mark.parametrize(
    ("algorithm", "epochs"),
    [
        (Impala(ImpalaConfig(**ONE_BATCH, max_rho=1.2), SMALL, discrete_spaces()), 1),
        (
            Ppo(PpoConfig(**ONE_BATCH, minibatch_steps=24, num_epochs=1), SMALL, discrete_spaces()),
            1,
        ),
        (
            Ppo(PpoConfig(**ONE_BATCH, minibatch_steps=8, num_epochs=4), SMALL, discrete_spaces()),
            4,
        ),
    ],
    ids=["impala", "ppo", "ppo in minibatches"],
)
def test_steps_that_only_reset_change_nothing(algorithm: Impala | Ppo, epochs: int):
    batch = make_batch()
    states = [algorithm.init(seed=5) for _ in range(2)]
    results = [
        algorithm.update(state, data)
        for state, data in zip(states, (batch, spoil_invalid_steps(batch)), strict=True)
    ]
    assert results[0] == results[1]
    assert results[0].samples_trained == epochs * int(batch["valid"].sum())
    assert torch.equal(states[0].weights.vector, states[1].weights.vector)
