"""What an own algorithm may call its fields, and what is compiled for which spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium import spaces

from engine.algorithms.networks import observation_field
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.registry import ALGORITHMS, register_algorithm
from engine.blueprint import Blueprint, make_blueprint
from engine.compilation.library import library_path, sources_of
from engine.errors import ConfigError
from engine.rollout import Field
from engine.spec import CoreSpec, EnvSpec, NetworkSpec
from engine.testing import make_experiment

BOX = spaces.Box(-1, 1, (2,))


class Any_(gymnasium.Env[Any, Any]):
    """Spaces as they are given; with a mask in its info, if so wanted."""

    def __init__(
        self, observation: object = BOX, action: object = spaces.Discrete(2), masks: bool = False
    ) -> None:
        self.observation_space, self.action_space = observation, action  # type: ignore[assignment]
        self._info = {"action_mask": np.ones(2, np.int8)} if masks else {}

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return self.observation_space.sample(), self._info

    def step(self, action: object) -> tuple[Any, float, bool, bool, Any]:
        return self.observation_space.sample(), 0.0, False, False, self._info


def blueprint_with(name: str = "ppo", core: bool = False, **kwargs: Any) -> Blueprint:  # noqa: ANN401
    registry = dict(gymnasium.registry)
    try:
        gymnasium.register("Any-v0", entry_point=lambda: Any_(**kwargs))
        experiment = make_experiment(env=EnvSpec(id="Any-v0", num_envs=4), name=name)
        network = NetworkSpec(core=CoreSpec(name="gru", size=4) if core else None)
        return make_blueprint(msgspec.structs.replace(experiment, network=network), rehearses=True)
    finally:
        gymnasium.registry.clear()
        gymnasium.registry.update(registry)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Field, ...]]:
    """An own algorithm `own`, which declares these fields under `fields`."""
    monkeypatch.setattr("engine.algorithms.registry.ALGORITHMS", dict(ALGORITHMS))
    declared: dict[str, tuple[Field, ...]] = {}

    class Own(Ppo):
        @property
        def fields(self) -> tuple[Field, ...]:
            return declared.get("fields", ()) or super().fields

    register_algorithm("own", PpoConfig, Own)
    return declared


@pytest.mark.parametrize("name", ["state", "action_mask"])
def test_names_with_a_meaning_are_refused_for_own_fields(own: dict[str, Any], name: str):
    plain = blueprint_with().layout.fields[:3]
    own["fields"] = (*plain, Field(name, "float32"))
    with pytest.raises(ConfigError, match=f"own declares the field '{name}'") as error:
        blueprint_with("own")
    assert error.value.where == "algorithm.name"


def test_a_memory_that_an_algorithm_does_not_use_is_refused(own: dict[str, Any]):
    own["fields"] = blueprint_with().layout.fields[:3]
    with pytest.raises(ConfigError, match="own does not use a memory") as error:
        blueprint_with("own", core=True)
    assert error.value.where == "network.core"


def test_several_leaves_are_refused_where_one_array_is_expected():
    with pytest.raises(ConfigError, match="an observation of one array"):
        observation_field(spaces.Dict({"a": BOX, "b": BOX}))
    assert observation_field(spaces.Dict({"a": BOX})).name == "observation"


PAIRS = [
    ("action", spaces.MultiDiscrete([2, 4]), spaces.MultiDiscrete([3, 3])),
    ("action", spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 2])),
    ("observation", spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 2])),
    ("observation", spaces.Discrete(4), spaces.Discrete(4, start=1)),
    ("observation", spaces.Box(0, 1, (2,)), spaces.Box(0, 2, (2,))),
]


@pytest.mark.parametrize(("which", "one", "other"), PAIRS)
def test_spaces_of_equal_sizes_do_not_share_compiled_functions(which: str, one: Any, other: Any):  # noqa: ANN401
    first, second = (blueprint_with(**{which: space}) for space in (one, other))
    for kind in ("steps", "act"):
        assert library_path(first, kind) != library_path(second, kind)  # type: ignore[arg-type]
        assert library_path(first, kind) == library_path(blueprint_with(**{which: one}), kind)  # type: ignore[arg-type]


def test_compiled_functions_depend_on_the_sources_of_layers_and_spaces():
    folders = {path.parent.name for path in sources_of(blueprint_with(), "steps")}
    assert {"algorithms", "layers", "spaces", "compilation"} <= folders
