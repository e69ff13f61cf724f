"""An algorithm that does not keep to `engine.algorithms.base.Algorithm` is told what it lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from engine.algorithms.ppo import Ppo, PpoConfig
from engine.algorithms.registry import ALGORITHMS, Entry
from engine.blueprint import make_blueprint
from engine.clock import ManualClock
from engine.errors import ConfigError, RunFailedError
from engine.executors.actor import ActorExecutor
from engine.roles.commands import CollectRollout, LoadWeights
from engine.rollout import Weights
from engine.spec import EnvSpec
from engine.testing import SCRIPTED_ENV, make_experiment

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
