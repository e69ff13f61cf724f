"""Wrappers from the experiment: applied in order, and checked before anything starts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from engine.blueprint import make_blueprint
from engine.config.config_file import load_experiment, overlaid_experiment
from engine.envs.make import make_vector_env
from engine.envs.names import EXTRAS
from engine.envs.wrappers import wrappings_of
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.spec import EnvSpec, Scalar, WrapperValue
from engine.testing import SCRIPTED_ENV, make_experiment

NOVEL = "engine.envs.observation_wrappers:HideEntries"
Entry = dict[str, WrapperValue]
SINGLE: Entry = {"name": "OrderEnforcing"}
"""Changes nothing, but single environments are stepped, which are seeded in their own way."""
needs_minigrid = pytest.mark.skipif(
    importlib.util.find_spec("minigrid") is None, reason="needs the extra minigrid"
)


def spec(*wrappers: Entry, env_id: str = "CartPole-v1", **kwargs: Scalar) -> EnvSpec:
    return EnvSpec(id=env_id, num_envs=2, wrappers=wrappers, kwargs=kwargs)


def refusal(*wrappers: Entry, env_id: str = "CartPole-v1") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make_vector_env(spec(*wrappers, env_id=env_id))
    assert caught.value.fix, caught.value
    return caught.value


def observed(*wrappers: Entry, num_steps: int = 3) -> np.ndarray:
    env = make_vector_env(spec(*wrappers))
    observation, _ = env.reset(seed=3)
    for _ in range(num_steps):
        observation = env.step(np.ones(2, np.int64))[0]
    env.close()
    return observation


def test_frames_are_stacked_around_each_single_environment():
    stacked = observed({"name": "FrameStackObservation", "stack_size": 4}, num_steps=3)
    frames = [observed(SINGLE, num_steps=steps) for steps in range(4)]
    np.testing.assert_allclose(stacked, np.stack(frames, 1), rtol=1e-6)


def test_the_first_wrapper_is_the_innermost():
    flatten: Entry = {"name": "FlattenObservation"}
    stack: Entry = {"name": "FrameStackObservation", "stack_size": 3}
    assert observed(flatten, stack).shape == (2, 3, 4)
    assert observed(stack, flatten).shape == (2, 12)


def test_single_environments_are_stepped_even_if_there_is_a_vectorised_implementation():
    plain = make_vector_env(spec())
    wrapped = make_vector_env(spec({"name": "FlattenObservation"}))
    assert not isinstance(plain.unwrapped, SyncVectorEnv)
    assert isinstance(wrapped.unwrapped, SyncVectorEnv)


def test_lists_are_tuples_or_arrays_as_the_wrapper_takes_them():
    shaped = spec({"name": "ReshapeObservation", "shape": (2, 2)})
    assert make_vector_env(shaped).single_observation_space.shape == (2, 2)
    scaled = spec(
        {"name": "RescaleAction", "min_action": (-0.5,), "max_action": (0.5,)}, env_id="Pendulum-v1"
    )
    env = make_vector_env(scaled)
    assert env.reset(seed=0)[0].shape == (2, 3)


def test_velocities_are_hidden():
    np.testing.assert_allclose(
        observed({"name": NOVEL, "entries": (1, 3)}), observed(SINGLE)[:, [0, 2]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("entries", "env_id", "what"),
    [
        ((1, 4), "CartPole-v1", "from 0 to 3, not 4"),
        ((-1,), "CartPole-v1", "from 0 to 3, not -1"),
        ((0, 1, 2, 3), "CartPole-v1", "nothing would be left"),
        ((0,), "FrozenLake-v1", "of a vector only"),
    ],
)
def test_entries_that_cannot_be_hidden_are_refused(entries: tuple[int, ...], env_id, what: str):
    error = refusal({"name": NOVEL, "entries": entries}, env_id=env_id)
    assert what in error.what
    assert error.where == "env.wrappers.0.entries"


@pytest.mark.parametrize(
    ("entry", "where", "what", "fix"),
    [
        ({"name": "FrameStack"}, ".name", "unknown wrapper 'FrameStack'", "FrameStackObservation"),
        ({"name": "Qwerty"}, ".name", "unknown wrapper", "known: AddRenderObservation"),
        ({"name": ""}, ".name", "unknown wrapper ''", "known: "),
        ({"name": "nowhere:Foo"}, ".name", "No module named 'nowhere'", "correct"),
        ({"name": "json:Foo"}, ".name", "unknown wrapper 'json:Foo'", "module:Class"),
        ({"name": "numpy:ndarray"}, ".name", "not a subclass of gymnasium.Wrapper", "module:Class"),
        ({"name": "gymnasium:Env"}, ".name", "not a subclass of gymnasium.Wrapper", "module:Class"),
        ({"name": "gymnasium:make"}, ".name", "is not a class", "module:Class"),
        ({"name": "vector"}, ".name", "is not a class", "module:Class"),
        ({"name": "FrameStackObservation", "stack_siz": 4}, ".stack_siz", "no argument", "stack_s"),
        ({"name": "FlattenObservation", "x": 4}, ".x", "no argument 'x'", "it has none"),
        ({"name": "FrameStackObservation"}, "", "needs the argument 'stack_size'", "stack_size: "),
        ({"name": "FrameStackObservation", "stack_size": 0}, ".stack_size", "greater than", "corr"),
        ({"name": "TimeLimit", "max_episode_steps": "a"}, ".max_episode_steps", "int", "corr"),
        ({"name": "GrayscaleObservation"}, "", "around Box(", "correct its arguments"),
        ({"name": "TransformObservation"}, "", "takes a function as 'func'", "module:Class"),
        ({"name": "TransformReward", "func": "abs"}, "", "takes a function", "module:Class"),
        ({"name": "Autoreset"}, ".name", "resets", "leave it out"),
        ({"name": "NormalizeObservation"}, ".name", "statistics", "network.normalize_observation"),
        ({"name": "NormalizeReward"}, ".name", "statistics", "algorithm.normalize_reward"),
        ({"name": "gymnasium.wrappers:NormalizeReward"}, ".name", "statistics", "algorithm.norm"),
        ({"name": "RecordVideo", "video_folder": "x"}, ".name", "files", "leave it out"),
        ({"name": "vector.ClipReward"}, ".name", "wraps vector environments", "name: ClipReward"),
        (
            {"name": "gymnasium.wrappers.vector:FlattenObservation"},
            ".name",
            "wraps vector",
            "name: FlattenObservation",
        ),
        ({"name": "DictInfoToList"}, ".name", "wraps vector environments", "module:Class"),
    ],
)
def test_a_wrapper_that_cannot_be_used_is_refused(entry: Entry, where: str, what: str, fix: str):
    error = refusal({"name": "PassiveEnvChecker"}, entry)
    assert error.where == f"env.wrappers.1{where}"
    assert what in error.what
    assert fix in error.fix


def test_every_wrapper_of_gymnasium_is_made_or_refused_with_a_reason():
    names = [
        name
        for name, value in vars(gymnasium.wrappers).items()
        if isinstance(value, type) and issubclass(value, gymnasium.Wrapper)
    ]
    assert len(names) > 25
    refused: dict[str, ConfigError] = {}
    for name in names:
        try:
            make_vector_env(spec({"name": name}, env_id="Pendulum-v1")).close()
        except ConfigError as error:
            refused[name] = error
    assert len(refused) < len(names) - 4
    for name, error in refused.items():
        assert error.where.startswith("env.wrappers.0"), name
        assert name in error.what, name
        assert error.fix, name


class Broken(gymnasium.Wrapper):
    """Forgets to call its base class."""

    def __init__(self, env: gymnasium.Env, **anything: object) -> None:
        self.anything = anything


class Spaceless(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = "a vector"  # type: ignore[assignment]


def test_what_a_constructor_leaves_undone_is_refused():
    error = refusal({"name": f"{__name__}:Broken", "colour": "red"})
    assert "Broken(colour='red') cannot be made: AttributeError" in error.what
    assert error.where == "env.wrappers.0"
    assert "its space is 'a vector'" in refusal({"name": f"{__name__}:Spaceless"}).what


def test_an_error_of_the_environment_is_not_blamed_on_a_wrapper():
    with pytest.raises(ConfigError, match="unexpected keyword argument") as caught:
        make_vector_env(spec({"name": "FlattenObservation"}, colour="red"))
    assert (caught.value.where, caught.value.fix) == ("env", "env.kwargs gives colour")
    assert refusal({"name": "FlattenObservation"}, env_id="CartPol-v1").where == "env.id"


def test_an_environment_with_only_a_vector_implementation_takes_no_wrappers():
    error = refusal({"name": "FlattenObservation"}, env_id=SCRIPTED_ENV)
    assert error.where == "env.wrappers"
    assert "only a vector implementation" in error.what


def test_policy_gpu_only_refuses_wrappers_by_name():
    experiment = make_experiment(
        env=spec({"name": "FlattenObservation"}), policy="gpu-only", actors=1
    )
    graph = build_graph(read_policy("gpu-only"), experiment)
    with pytest.raises(ConfigError, match="FlattenObservation") as caught:
        make_blueprint(experiment, graph.cut)
    assert caught.value.where == "env.wrappers"


def test_a_module_of_the_working_directory_is_imported(tmp_path: Path, monkeypatch):
    (tmp_path / "my_wrappers.py").write_text(
        "import gymnasium\n"
        "class Twice(gymnasium.RewardWrapper):\n"
        "    def __init__(self, env, factor=2.0):\n"
        "        super().__init__(env)\n"
        "        self.factor = factor\n"
        "    def reward(self, reward):\n"
        "        return self.factor * reward\n"
    )
    monkeypatch.chdir(tmp_path)
    try:
        experiment = make_experiment(env=spec({"name": "my_wrappers:Twice", "factor": 3.0}))
        env = make_blueprint(experiment).env
        vector = make_vector_env(env)
        vector.reset(seed=0)
        assert vector.step(np.zeros(2, np.int64))[1].tolist() == [3.0, 3.0]
        assert "my_wrappers:Twice" in refusal({"name": "my_wrappers:Twise"}).fix
    finally:
        sys.modules.pop("my_wrappers", None)


def test_a_missing_module_names_the_wrapper():
    with pytest.raises(ConfigError, match="'nowhere' cannot be imported") as caught:
        make_blueprint(make_experiment(env=spec({"name": "nowhere:Foo"})))
    assert caught.value.where == "env.wrappers.0.name"


def test_a_missing_package_of_an_extra_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    monkeypatch.delitem(sys.modules, "minigrid.wrappers", raising=False)
    with pytest.raises(ConfigError) as caught:
        make_blueprint(make_experiment(env=spec({"name": "minigrid.wrappers:ImgObsWrapper"})))
    assert caught.value.where == "env.wrappers.0.name"
    assert "minigrid" in caught.value.fix
    assert "pip install" in caught.value.fix


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-5x5-v0", "BabyAI-GoToObj-v0", "m:MiniGrid-X"])
def test_the_ids_of_minigrid_need_its_extra(monkeypatch, env_id: str):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package minigrid") as caught:
        make_vector_env(spec(env_id=env_id))
    assert caught.value.where == "env.id"
    assert "minigrid" in caught.value.fix
    assert EXTRAS["BabyAI"] == EXTRAS["MiniGrid"]


@needs_minigrid
@pytest.mark.parametrize(
    ("wrappers", "space"),
    [
        (({"name": "minigrid.wrappers:ImgObsWrapper"},), "Box(0, 255, (7, 7, 3), uint8)"),
        (
            ({"name": "FilterObservation", "filter_keys": ("direction", "image")},),
            "Dict('direction': Discrete(4), 'image': Box(0, 255, (7, 7, 3), uint8))",
        ),
    ],
)
def test_minigrid_without_its_mission(wrappers: tuple[Entry, ...], space: str):
    env = make_vector_env(spec(*wrappers, env_id="MiniGrid-DoorKey-5x5-v0"))
    assert str(env.single_observation_space) == space
    env.close()


@needs_minigrid
def test_a_misspelt_id_of_minigrid_gets_a_suggestion():
    error = refusal({"name": "minigrid.wrappers:ImgObsWrapper"}, env_id="MiniGrid-Doorkey-5x5-v0")
    assert "'MiniGrid-DoorKey-5x5-v0'" in error.fix


def write(tmp_path: Path, wrappers: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nalgorithm: {name: ppo}\nstop: {env_steps: 1000}\n"
        f"env:\n  id: CartPole-v1\n  wrappers:\n    {wrappers}\n"
    )
    return path


def test_settings_reach_wrappers(tmp_path: Path):
    path = write(tmp_path, "- {name: FrameStackObservation, stack_size: 4}")
    given = [{"name": "FrameStackObservation", "stack_size": 4}]
    assert list(load_experiment(path)[0].env.wrappers) == given
    one = load_experiment(path, ["env.wrappers.0.stack_size=2"])[0].env.wrappers
    assert one[0]["stack_size"] == 2
    whole = ["env.wrappers=[{name: ReshapeObservation, shape: [2, 2]}, {name: PassiveEnvChecker}]"]
    assert load_experiment(path, whole)[0].env.wrappers == (
        {"name": "ReshapeObservation", "shape": (2, 2)},
        {"name": "PassiveEnvChecker"},
    )
    assert load_experiment(path, ["env.wrappers=[]"])[0].env.wrappers == ()
    resumed = overlaid_experiment(load_experiment(path)[0], "x", ["env.wrappers.0.stack_size=3"])
    assert resumed[0].env.wrappers[0]["stack_size"] == 3


@pytest.mark.parametrize(
    ("setting", "where", "what"),
    [
        ("env.wrappers.1.stack_size=2", "-s env.wrappers.1.stack_size", "no entry of a list of 1"),
        ("env.wrappers.x=2", "-s env.wrappers.x", "no entry of a list of 1"),
        ("env.wrappers=[{stack_size: 2}]", "-s env.wrappers.0", "needs a name"),
        ("env.wrappers=[{name: 2}]", "-s env.wrappers.0.name", "needs a name"),
        ("env.wrappers=[{name: A, x: {a: 1}}]", "-s env.wrappers.0.x", "got `mapping`"),
        ("env.wrappers=[{name: A, y: [1], x: [[1]]}]", "-s env.wrappers.0.x.0", "got `array`"),
        ("env.wrappers=[{name: A, x: [1, .inf]}]", "-s env.wrappers.0.x", "not a finite number"),
        ("env.wrappers=[FlattenObservation]", "-s env.wrappers.0", "expected `mapping`"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, setting: str, where: str, what: str):
    path = write(tmp_path, "- {name: FrameStackObservation, stack_size: 4}")
    with pytest.raises(ConfigError, match=what) as caught:
        load_experiment(path, [setting])
    assert caught.value.where == where


def test_an_error_names_the_line_of_a_wrapper(tmp_path: Path):
    path = write(tmp_path, "- {name: PassiveEnvChecker}\n    - {name: A, x: .nan}")
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    assert caught.value.where == f"{path}:8: env.wrappers.1.x"


def test_no_wrappers_make_no_difference():
    assert wrappings_of(spec()) == []
