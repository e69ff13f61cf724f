"""Environments are rendered as they are played."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from engine.envs.make import make_vector_env, register_environment
from engine.envs.minatar import BACKGROUND, CELL_PIXELS, COLOURS, drawn
from engine.envs.rendering import make_rendered_env, picture_of
from engine.errors import ConfigError
from engine.spec import EnvSpec


def needs(module: str) -> pytest.MarkDecorator:
    is_there = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not is_there, reason=f"needs {module}")


class Drawn(gymnasium.Env):
    """Its picture has the colour of its step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, size: int = 8) -> None:
        self.render_mode = render_mode
        self.size = size
        self.step_number = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.step_number += 1
        return np.array([self.step_number], np.float32), 1.0, self.step_number == 3, False, {}

    def render(self):
        return np.full((self.size, 2 * self.size, 3), self.step_number, np.uint8)


class Modeless(Drawn):
    metadata = {"render_modes": ["ansi"], "render_fps": 7}  # noqa: RUF012


class Blind(Drawn):
    def render(self):
        return None


class Failing(Drawn):
    def render(self):
        raise OSError("no graphics card")


class Bare(gymnasium.Env):
    """Has no constructor of its own."""

    observation_space, action_space = Drawn.observation_space, Drawn.action_space


class Unasked(Drawn):
    def __init__(self) -> None:
        super().__init__()


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    names = []
    for one in (Drawn, Modeless, Blind, Failing, Unasked, Bare):
        names.append(f"{one.__name__}-v0")
        register_environment(names[-1], one, max_episode_steps=50)
    yield
    for name in names:
        del gymnasium.registry[name]


def first_frame(spec: EnvSpec) -> np.ndarray:
    env = make_rendered_env(spec)
    env.reset(seed=0)
    try:
        return env.frame()
    finally:
        env.close()


def test_an_environment_shows_what_it_looks_like_after_each_step():
    env = make_rendered_env(EnvSpec(id="Drawn-v0", num_envs=8, num_splits=2, kwargs={"size": 4}))
    env.reset(seed=0)
    pictures = [env.frame()]
    for _ in range(3):
        _, _, terminated, _, _ = env.step(np.zeros(1, np.int64))
        pictures.append(env.frame())
    assert terminated.tolist() == [True]
    assert [int(picture[0, 0, 0]) for picture in pictures] == [0, 1, 2, 3]
    assert pictures[0].shape == (4, 8, 3)
    assert env.fps == 7
    env.close()


def test_wrappers_go_around_what_is_rendered():
    wrapper = {"name": "AddRenderObservation", "render_only": True}
    env = make_rendered_env(EnvSpec(id="Drawn-v0", wrappers=(wrapper,)))
    observation, _ = env.reset(seed=0)
    assert observation.shape == (1, 8, 16, 3)
    np.testing.assert_array_equal(env.frame(), observation[0])
    env.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Modeless-v0", "no render mode rgb_array, but ansi"),
        ("Blind-v0", r"render\(\) returned None"),
        ("Failing-v0", "no graphics card"),
        ("Unasked-v0", "its constructor takes no render_mode"),
        ("Bare-v0", "its constructor takes no render_mode"),
    ],
)
def test_what_cannot_be_rendered_is_named(name: str, words: str):
    with pytest.raises(ConfigError, match=f"{name} cannot be rendered: .*{words}") as error:
        first_frame(EnvSpec(id=name))
    assert error.value.where == "env.id"
    if name != "Failing-v0":
        assert "render_modes" in error.value.fix


def test_other_errors_of_a_constructor_stay_what_they_are():
    with pytest.raises(ConfigError, match="unexpected keyword argument 'sise'"):
        make_rendered_env(EnvSpec(id="Drawn-v0", kwargs={"sise": 4}))


@pytest.mark.parametrize(
    ("shown", "pixel"),
    [
        (np.full((2, 3), 9, np.uint8), (9, 9, 9)),
        (np.full((2, 3, 4), (1, 2, 3, 255), np.uint8), (1, 2, 3)),
        (np.full((2, 3, 3), (1, 2, 3), np.uint8), (1, 2, 3)),
    ],
)
def test_pictures_of_all_kinds_become_red_green_and_blue(shown: np.ndarray, pixel: tuple[int, ...]):
    picture = picture_of(shown, EnvSpec(id="A-v0"))
    assert picture.shape == (2, 3, 3)
    assert tuple(picture[1, 2]) == pixel


@pytest.mark.parametrize(
    "shown", ["text", np.zeros((2, 3, 3)), np.zeros((2, 3, 2), np.uint8), np.zeros(0, np.uint8)]
)
def test_what_is_no_picture_is_refused(shown: object):
    with pytest.raises(ConfigError, match="cannot be rendered"):
        picture_of(shown, EnvSpec(id="A-v0"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    def render(_self: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr(Drawn, "render", render)
    env = make_rendered_env(EnvSpec(id="Drawn-v0"))
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="pygame is not installed") as error:
        env.frame()
    assert "pip install" in error.value.fix
    env.close()


@needs("pygame")
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_a_rendered_episode_is_the_one_that_is_played(env_id: str):
    """Also of environments that are vectorised otherwise: the same starts, the same rewards."""
    rendered = make_rendered_env(EnvSpec(id=env_id))
    played = make_vector_env(EnvSpec(id=env_id, num_envs=1))
    np.testing.assert_allclose(rendered.reset(seed=3)[0], played.reset(seed=3)[0], rtol=1e-6)
    played.action_space.seed(0)
    pictures = [rendered.frame()]
    for _ in range(12):
        action = played.action_space.sample()
        one, other = rendered.step(action), played.step(action)
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4)
        pictures.append(rendered.frame())
    assert pictures[0].shape[-1] == 3
    assert (pictures[0] != pictures[-1]).any()
    assert rendered.fps > 1
    rendered.close()
    played.close()


def test_a_board_of_minatar_has_a_colour_for_each_channel():
    state = np.zeros((10, 10, 3), np.bool_)
    state[1, 2, 0] = state[3, 4, 2] = True
    state[5, 5] = True
    picture = drawn(state)
    assert picture.shape == (240, 240, 3)
    assert picture.dtype == np.uint8
    cells = picture[CELL_PIXELS // 2 :: CELL_PIXELS, CELL_PIXELS // 2 :: CELL_PIXELS]
    assert tuple(cells[0, 0]) == BACKGROUND
    assert tuple(cells[1, 2]) == COLOURS[0]
    assert tuple(cells[3, 4]) == COLOURS[2]
    assert tuple(cells[5, 5]) == COLOURS[2], "the last channel is seen"
    assert len(set(COLOURS)) == 10


@needs("minatar")
def test_minatar_is_rendered():
    env = make_rendered_env(EnvSpec(id="MinAtar/Breakout-v1"))
    env.reset(seed=0)
    assert len(np.unique(env.frame().reshape(-1, 3), axis=0)) >= 3
    assert env.fps == 10
    env.close()


@needs("ale_py")
def test_a_frame_of_atari_is_what_its_observation_was_made_of():
    env = make_rendered_env(EnvSpec(id="ALE/Pong-v5"))
    observation, _ = env.reset(seed=4)
    rng = np.random.default_rng(0)
    for _ in range(200):
        observation, *_ = env.step(rng.integers(0, 6, 1))
    frame = env.frame()
    assert frame.shape == (210, 160, 3)
    assert (frame[..., 0] != frame[..., 2]).any(), "in colour"
    grey = frame @ np.array([0.299, 0.587, 0.114])
    seen = observation[0, -1].astype(np.float64)
    rows = np.linspace(0, 209, 84).round().astype(int)
    columns = np.linspace(0, 159, 84).round().astype(int)
    small = grey[np.ix_(rows, columns)]
    assert np.corrcoef(small.ravel(), seen.ravel())[0, 1] > 0.8
    assert env.fps == 15
    env.close()
