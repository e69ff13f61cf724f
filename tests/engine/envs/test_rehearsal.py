"""What is wrong with an environment or a network is told before a run, with the user's own line."""

from __future__ import annotations

import sys

import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.registry import ALGORITHMS, register_algorithm
from engine.blame import place_of, told
from engine.blueprint import make_blueprint
from engine.envs.make import make_vector_env, register_environment
from engine.envs.names import extra_of, nearest, newer_version
from engine.envs.torch_envs import TORCH_ENVIRONMENTS
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.layers.trunks import TRUNKS, register_network
from engine.spec import EnvSpec, Experiment, NetworkSpec
from engine.testing import SCRIPTED_ENV, make_experiment

SPACE = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)


class Odd(gymnasium.Env):
    """Breaks at its construction, or at its first reset."""

    observation_space = SPACE
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, at: str = "", how: str = "raises", **_: object) -> None:
        self._at, self._how = at, how
        if at == "init":
            self.breaks()

    def breaks(self):
        match self._how:
            case "raises":
                raise ValueError("the simulator\nfell over")
            case "imports":
                import nowhere  # noqa: F401
            case "looks up":
                return {}["nothing"]
            case "asserts":
                raise AssertionError
            case "leaves":
                sys.exit("no licence")
            case "runs out":
                raise MemoryError
            case "shape":
                return np.zeros((5,), np.float32)
            case "scalar":
                return 3.0
            case "none":
                return None
            case "text":
                return np.array(["a"] * 4)
            case "nan":
                return np.full(4, np.nan, np.float32)
        return np.zeros(4, np.float32)

    def reset(self, *, seed=None, options=None):
        return self.breaks() if self._at == "reset" else np.zeros(4, np.float32), {}


@pytest.fixture
def odd():
    register_environment("Odd-v0", Odd)
    yield
    del gymnasium.registry["Odd-v0"]


def on_odd(policy: str = "local", **kwargs: str) -> Experiment:
    return make_experiment(env=EnvSpec(id="Odd-v0", num_envs=4, kwargs=kwargs), policy=policy)


def refusal(experiment: Experiment) -> ConfigError:
    cut = build_graph(read_policy(experiment.policy), experiment).cut
    with pytest.raises(ConfigError) as caught:
        make_blueprint(experiment, cut, rehearses=True)
    return caught.value


@pytest.mark.parametrize("policy", ["local", "tianji", "environments"])
@pytest.mark.parametrize("at", ["init", "reset"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", "ValueError: the simulator fell over"),
        ("imports", "ModuleNotFoundError: No module named 'nowhere'"),
        ("looks up", "KeyError: 'nothing'"),
        ("asserts", "AssertionError"),
    ],
)
def test_what_an_environment_raises_at_first_is_told_with_its_line(
    odd: None, policy: str, at: str, how: str, words: str
):
    error = refusal(on_odd(policy, at=at, how=how))
    what = "cannot be made" if at == "init" else "cannot be reset"
    first, place, *_ = error.what.splitlines()
    assert first == f"Odd-v0 {what}: {words}"
    assert "test_rehearsal.py:" in place
    assert " in breaks: " in place
    assert error.where == "env"
    assert error.exit_code == 2
    assert error.fix


@pytest.mark.filterwarnings("ignore")  # Gymnasium's own, which is not always on
@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("shape", "shape (5,) and dtype float32"),
        ("scalar", "shape () and dtype float64"),
        ("none", "shape () and dtype object"),
        ("text", "shape (4,) and dtype <U1"),
    ],
)
def test_a_first_observation_of_another_shape_or_type_names_both(odd: None, how: str, found: str):
    error = refusal(on_odd(at="reset", how=how))
    assert f"observation of environment 0 has {found}; its space declares (4,) and float32" in (
        error.what
    )
    assert "Odd-v0 raised this in reset" in error.fix


@pytest.mark.filterwarnings("ignore")
def test_a_first_observation_that_is_no_number_is_told(odd: None):
    assert (
        "observation of environment 0 is nan in reset"
        in refusal(on_odd(at="reset", how="nan")).what
    )


@pytest.mark.parametrize("how", ["leaves", "runs out"])
def test_what_ends_a_process_is_left_to_the_run(odd: None, how: str):
    """It ends by name, and has a summary."""
    make_blueprint(on_odd(at="reset", how=how), rehearses=True)


def test_nothing_is_reset_unless_a_run_is_about_to_begin(odd: None):
    """A compiler's process needs the spaces alone."""
    make_blueprint(on_odd(at="reset", how="raises"))


def test_arguments_that_are_refused_name_themselves():
    with pytest.raises(ConfigError, match="unexpected keyword argument 'size'") as caught:
        make_vector_env(EnvSpec(id="MountainCar-v0", kwargs={"size": 3}))
    assert caught.value.fix == "env.kwargs gives size"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", ["Hopper-v3", "Walker2d-v2"])
def test_an_environment_that_has_moved_names_its_newest_version(env_id: str):
    with pytest.raises(ConfigError, match="cannot be made: ImportError") as caught:
        make_vector_env(EnvSpec(id=env_id))
    assert caught.value.fix == f"did you mean '{env_id[:-1]}5'?"


def test_torch_environments_are_told_alike(monkeypatch: pytest.MonkeyPatch):
    class Falls:
        single_observation_space, single_action_space = SPACE, gymnasium.spaces.Discrete(2)

        def __init__(self, num_envs: int, device: torch.device, at: str = "init") -> None:
            if at == "init":
                raise KeyError("table")

        def reset(self, seed: int) -> torch.Tensor:
            raise OSError("no simulator")

    monkeypatch.setitem(TORCH_ENVIRONMENTS, "Falls-v0", Falls)
    for at, words in ("init", "KeyError: 'table'"), ("reset", "OSError: no simulator"):
        env = EnvSpec(id="Falls-v0", num_envs=4, kwargs={"at": at})
        experiment = make_experiment(env=env, policy="gpu-only", actors=1)
        batch = {**experiment.algorithm, "batch_steps": 40}
        error = refusal(msgspec.structs.replace(experiment, algorithm=batch))
        assert words in error.what
        assert "test_rehearsal.py:" in error.what


@pytest.mark.parametrize(
    ("env_id", "advice"),
    [
        ("Pong-v4", "'ALE/Pong-v5'"),
        ("Pong-v0", "'ALE/Pong-v5'"),
        ("pong-v5", "'ALE/Pong-v5'"),
        ("PongNoFrameskip-v4", "'ALE/Pong-v5'"),
        ("PongDeterministic-v4", "'ALE/Pong-v5'"),
        ("Pong-ram-v4", "'ALE/Pong-v5'"),
        ("Pong-ramNoFrameskip-v4", "'ALE/Pong-v5'"),
        ("ALE/Pong-v4", "'ALE/Pong-v5'"),
        ("ale/pong-v5", "'ALE/Pong-v5'"),
        ("Breakout-v4", "'ALE/Breakout-v5' or 'MinAtar/Breakout-v1'"),
        ("minatar/breakout-v0", "'MinAtar/Breakout-v1'"),
        ("cartpole-v1", "'CartPole-v1'"),
        ("CartPole-v7", "'CartPole-v1'"),
        ("gym/CartPole-v1", "'CartPole-v1'"),
        ("CartPol-v1", "'CartPole-v1'"),
        ("Pnog-v5", "'ALE/Pong-v5'"),
        ("mine:CartPol-v1", "'mine:CartPole-v1'"),
    ],
)
def test_an_unknown_id_is_answered_with_what_it_was_meant_to_be(env_id: str, advice: str):
    assert nearest(env_id, gymnasium.registry) == f"did you mean {advice}?"


def test_what_resembles_nothing_is_answered_with_the_list():
    assert "lists all" in nearest("Xyzzy-v0", gymnasium.registry)
    assert newer_version("CartPole-v1", gymnasium.registry) == ""
    assert extra_of('run `pip install "gymnasium[mujoco]"`') == "pip install 'tianji-rl[mujoco]'"


class Double(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, 8, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x.double()).float()


class Lambda(nn.Module):
    """A layer, and something done to what it gives."""

    def __init__(self, do, size: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(size, 8)
        self._do = do

    def forward(self, x):
        return self._do(self.layer(x))


class Infinite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.full((4,), -torch.inf), requires_grad=False)
        self.layer = nn.Linear(4, 8)

    def forward(self, x):
        return self.layer(torch.maximum(x, self.mask))


def falls(_features):
    raise LookupError("no such layer")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Double(4), "parameters of own must be float32, these are not: layer.weight"),
        (lambda: Lambda(lambda y: (y, y)), "own gives a tuple"),
        (lambda: Lambda(lambda y: y[:, None]), "own gives shape (2, 1, 8) for 2 observations"),
        (lambda: Lambda(lambda y: y.sum(0)), "own gives shape (8,) for 2 observations"),
        (lambda: Lambda(lambda y: y[:1]), "own gives shape (1, 8) for 2 observations"),
        (lambda: Lambda(lambda y: y[:, :0]), "own gives shape (2, 0) for 2 observations"),
        (lambda: Lambda(lambda y: y.double()), "own gives torch.float64"),
        (lambda: Lambda(lambda y: y.argmax(-1, keepdim=True)), "own gives torch.int64"),
        (lambda: Lambda(lambda y: None), "own gives a NoneType"),
        (lambda: Lambda(lambda y: y * torch.nan), "the network gives nan as log_prob"),
        (lambda: Lambda(nn.Dropout(0.5)), "two different values of"),
        (lambda: Lambda(lambda y: y + torch.rand_like(y)), "two different values of"),
        (lambda: Infinite(), "parameters of own are not finite before training: mask"),
        (lambda: Lambda(falls), "LookupError: no such layer"),
        (lambda: falls(None), "own cannot be built for (4,): LookupError: no such layer"),
        (lambda: Lambda(lambda y: y, size=5), "own cannot take observations of shape (4,)"),
    ],
)
def test_a_network_that_breaks_a_rule_is_told_by_name(monkeypatch, build, words: str):
    monkeypatch.setattr("engine.layers.trunks.TRUNKS", TRUNKS)
    register_network("own", lambda shape, spec: build())
    try:
        experiment = make_experiment(env=EnvSpec(id="CartPole-v1", num_envs=4))
        wanted = msgspec.structs.replace(experiment, network=NetworkSpec(name="own"))
        error = refusal(wanted)
        assert words in error.what
        assert error.where.startswith("network")
    finally:
        del TRUNKS["own"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act": lambda self, n, o, z: {"action": torch.zeros(len(o), dtype=torch.int64)}},
         "act() returns no log_prob"),
        ({"act": lambda self, n, o, z: {"action": torch.zeros(1), "log_prob": torch.zeros(1)}},
         "act() returns action of shape (1,)"),
        ({"network": lambda self: nn.Flatten()}, "the network has no parameters"),
        ({"network": falls}, "the network cannot be built: LookupError"),
        ({"__init__": lambda self, *_: falls(None)}, "own cannot be made: LookupError"),
    ],
)  # fmt: skip
def test_an_algorithm_that_breaks_a_rule_is_told_by_name(change: dict[str, object], words: str):
    register_algorithm("own", PpoConfig, type("Own", (Ppo,), change))
    try:
        experiment = make_experiment(env=EnvSpec(id=SCRIPTED_ENV, num_envs=4))
        algorithm = {**experiment.algorithm, "name": "own"}
        assert words in refusal(msgspec.structs.replace(experiment, algorithm=algorithm)).what
    finally:
        del ALGORITHMS["own"]


def test_the_users_line_comes_before_what_was_noted():
    try:
        Odd("init", "raises")
    except ValueError as error:
        error.add_note("Odd-v0 raised this")
        first, place, note = told(error).splitlines()
        assert first == "ValueError: the simulator fell over"
        assert place.startswith(f"    {__file__}:")
        assert place.endswith('in breaks: raise ValueError("the simulator\\nfell over")')
        assert note == "    Odd-v0 raised this"


def test_an_error_of_the_machinery_alone_has_no_line_of_the_user():
    caught: list[Exception] = []
    try:
        exec(compile("raise OSError('x')", "<string>", "exec"))
    except OSError as error:
        caught.append(error.with_traceback(error.__traceback__.tb_next))
    assert place_of(caught[0]) is None
    assert told(caught[0]) == "OSError: x"
