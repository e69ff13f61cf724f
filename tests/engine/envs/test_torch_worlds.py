"""Tensor versions of environments are the same worlds as their originals, step for step.

The originals step in Gymnasium's vector of copies, next-step restarts included. Where dynamics are
chaotic (Acrobot) rounding of the last digit grows within an episode, so every step begins with the
original's state, to the last bit; what comes of it must agree to rounding.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.acrobot import wrap

from engine.envs import torch_breakout
from engine.envs.make import make_vector_env
from engine.envs.minatar import MAX_EPISODE_STEPS, MinAtarEnv
from engine.envs.torch_acrobot import _wrap
from engine.envs.torch_batch import TorchBatch
from engine.envs.torch_breakout import TorchBreakout
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, make_torch_env, torch_spaces_of
from engine.errors import ConfigError
from engine.spec import EnvSpec

CPU = torch.device("cpu")
NUM_ENVS = 3
Choose = Callable[[np.ndarray, np.random.Generator], np.ndarray]
needs_minatar = pytest.mark.skipif(
    importlib.util.find_spec("minatar") is None, reason="needs minatar"
)


def at_random_3(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, len(states))


def swing_up(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pushes with the second joint's movement, which adds energy until the height is reached."""
    return np.where(states[:, 3] >= 0, 2, 0)


def at_random_2(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2, len(states))


def torque(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Also beyond what the motor can do."""
    return rng.uniform(-3, 3, (len(states), 1)).astype(np.float32)


def spin(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As fast as it can, so that the angle runs over many turns."""
    return np.where(states[:, 1:] >= 0, 2.0, -2.0).astype(np.float32)


WORLDS = [
    ("CartPole-v1", at_random_2, {}, {"terminated"}),
    ("Acrobot-v1", at_random_3, {}, {"truncated"}),
    ("Acrobot-v1", swing_up, {}, {"terminated"}),
    ("Pendulum-v1", torque, {}, {"truncated"}),
    ("Pendulum-v1", spin, {"g": 3.7}, {"truncated"}),
]


@pytest.mark.parametrize(("env_id", "choose", "kwargs", "ends"), WORLDS)
def test_every_step_is_that_of_gymnasium(
    env_id: str, choose: Choose, kwargs: dict[str, float], ends: set[str]
):
    theirs = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make(env_id, **kwargs)] * NUM_ENVS,
        autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP,
    )
    ours = TORCH_ENVIRONMENTS[env_id](NUM_ENVS, CPU, **kwargs)
    assert isinstance(ours, TorchBatch)
    rng, seen, num_restarts = np.random.default_rng(1), set(), 0
    ours.reset(0)
    theirs.reset(seed=1)
    restarts = np.zeros(NUM_ENVS, bool)
    for _ in range(600):
        states = states_of(theirs)
        ours.state = torch.from_numpy(states.copy())
        actions = choose(states, rng)
        observation, reward, terminated, truncated = ours.step(torch.from_numpy(actions))
        o_t, r_t, fell, ran_out, _ = theirs.step(actions)
        goes_on = ~restarts
        np.testing.assert_allclose(
            ours.state.numpy()[goes_on], states_of(theirs)[goes_on], rtol=1e-11, atol=1e-12
        )
        np.testing.assert_allclose(observation.numpy()[goes_on], o_t[goes_on], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(reward.numpy(), np.where(goes_on, r_t, 0.0), rtol=1e-6)
        np.testing.assert_array_equal(terminated.numpy(), fell)
        np.testing.assert_array_equal(truncated.numpy(), ran_out)
        assert theirs.single_observation_space.contains(observation.numpy()[0])
        restarts = fell | ran_out
        num_restarts += int(restarts.sum())
        seen |= {"terminated"} if fell.any() else set()
        seen |= {"truncated"} if ran_out.any() else set()
    assert seen >= ends
    assert num_restarts >= NUM_ENVS


def states_of(env: gymnasium.vector.SyncVectorEnv) -> np.ndarray:
    return np.stack([np.asarray(one.unwrapped.state, np.float64) for one in env.envs])


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "Pendulum-v1"])
def test_episodes_begin_where_those_of_gymnasium_do(env_id: str):
    ours = TORCH_ENVIRONMENTS[env_id](4000, CPU)
    assert isinstance(ours, TorchBatch)
    first = ours.reset(3)
    assert torch.equal(ours.reset(3), first)
    assert not torch.equal(ours.reset(4), first)
    theirs = gymnasium.make(env_id)
    states = []
    for seed in range(400):
        theirs.reset(seed=seed)
        states.append(np.asarray(theirs.unwrapped.state, np.float64))
    for column, reference in zip(ours.state.T.numpy(), np.stack(states).T, strict=True):
        assert abs(column).max() == pytest.approx(abs(reference).max(), rel=0.02)
        assert abs(column.mean()) < 0.05 * abs(column).max()
        assert column.std() == pytest.approx(reference.std(), rel=0.1)


def test_angles_of_more_than_a_turn_are_brought_back_as_in_gymnasium():
    angles = np.concatenate((np.linspace(-15, 15, 4001), [np.pi, -np.pi, 3 * np.pi, -3 * np.pi]))
    expected = [wrap(angle, -np.pi, np.pi) for angle in angles]
    np.testing.assert_allclose(_wrap(torch.from_numpy(angles)).numpy(), expected, atol=1e-14)


PLACES = [
    pytest.param(name, marks=needs_minatar if name.startswith("MinAtar") else ())
    for name in sorted(TORCH_ENVIRONMENTS)
]


@pytest.mark.parametrize("env_id", PLACES)
def test_spaces_are_those_of_the_original(env_id: str):
    spec = EnvSpec(id=env_id, num_envs=2)
    ours = make_torch_env(spec, CPU)
    theirs = make_vector_env(spec)
    spaces = torch_spaces_of(ours)
    assert spaces.observation == theirs.single_observation_space
    assert spaces.action == theirs.single_action_space
    first = ours.reset(0)
    assert first.shape == (2, *spaces.observation.shape)
    assert first.numpy().dtype == spaces.observation.dtype
    assert all(spaces.observation.contains(row) for row in first.numpy())
    theirs.close()


class Told:
    """A source of randomness of `minatar` that says what it is told to."""

    def __init__(self) -> None:
        self.sticks = False
        self.starts_right = False

    def rand(self) -> float:
        return 0.0 if self.sticks else 0.999

    def randint(self, high: int) -> int:
        assert high == 2
        return int(self.starts_right)


class ToldBreakout(TorchBreakout):
    """The same draws for the tensor version."""

    told: tuple[Told, ...] = ()

    def _sticks(self, drawn: torch.Tensor) -> torch.Tensor:
        return torch.tensor([told.sticks for told in self.told])

    def _starts_right(self, drawn: torch.Tensor) -> torch.Tensor:
        return torch.tensor([told.starts_right for told in self.told])


def follow_ball(game: object, rng: np.random.Generator) -> int:
    """Mostly under the ball: long games, in which the whole wall is broken more than once."""
    if rng.random() < 0.08:
        return int(rng.integers(3))
    ahead = {0: -1, 1: 1, 2: 1, 3: -1}[game.ball_dir]
    aim = min(max(game.ball_x + (ahead if game.ball_y < 8 else 0), 0), 9)
    return 0 if aim == game.pos else (1 if aim < game.pos else 2)


@needs_minatar
@pytest.mark.parametrize("plays_well", [False, True], ids=["at random", "under the ball"])
@pytest.mark.parametrize("minimal", [True, False], ids=["3 actions", "6 actions"])
def test_breakout_goes_as_that_of_minatar_with_the_same_draws(plays_well: bool, minimal: bool):
    rng, num_envs = np.random.default_rng(5), 4
    theirs = [MinAtarEnv("breakout", minimal_actions=minimal) for _ in range(num_envs)]
    told = tuple(Told() for _ in theirs)
    draw(told, rng)
    for env, source in zip(theirs, told, strict=True):
        env._game.random = env._game.env.random = source
        env.reset()
    ours = ToldBreakout(num_envs, CPU, minimal_actions=minimal)
    ours.told = told
    observation = ours.reset(0)
    restarts, ends, broken, walls = [False] * num_envs, 0, 0, 0
    for _ in range(1500):
        for row, env in zip(observation.numpy(), theirs, strict=True):
            np.testing.assert_array_equal(row, env._state())
        draw(told, rng)
        actions = [choose_action(env, plays_well, minimal, rng) for env in theirs]
        observation, reward, terminated, truncated = ours.step(torch.tensor(actions))
        assert not truncated.any()
        for i, env in enumerate(theirs):
            if restarts[i]:
                env.reset()
                assert (float(reward[i]), bool(terminated[i])) == (0.0, False)
                restarts[i] = False
                continue
            walls += int(np.count_nonzero(env._game.env.brick_map) == 0)
            _, r_t, fell, _, _ = env.step(np.int64(actions[i]))
            assert (float(reward[i]), bool(terminated[i])) == (r_t, fell)
            restarts[i] = fell
            ends, broken = ends + fell, broken + int(r_t)
    assert ends > 10
    assert broken > 100
    assert (walls > 0) == plays_well, "a cleared wall is to be seen, and filled up again"


def draw(told: Iterable[Told], rng: np.random.Generator) -> None:
    for source in told:
        source.sticks, source.starts_right = rng.random() < 0.1, bool(rng.integers(2))


def choose_action(env: MinAtarEnv, plays_well: bool, minimal: bool, rng) -> int:
    if not plays_well:
        return int(rng.integers(3 if minimal else 6))
    action = follow_ball(env._game.env, rng)
    return action if minimal else torch_breakout.MINIMAL_ACTIONS[action]


def test_breakout_draws_sides_and_repetitions_as_often_as_it_says():
    env = TorchBreakout(4000, CPU)
    env.reset(1)
    starts_right = env.state[:, torch_breakout.BALL_X] == 9
    assert 0.47 < starts_right.float().mean() < 0.53
    env.step(torch.full((4000,), 2))
    env.step(torch.full((4000,), 1))
    repeats = (env.state[:, torch_breakout.LAST_ACTION] == torch_breakout.RIGHT).float().mean()
    assert 0.07 < repeats < 0.13


def test_breakout_is_truncated_when_a_player_goes_on_for_ever():
    env = TorchBreakout(1, CPU, sticky_action_prob=0.0)
    env.reset(0)
    begun = MAX_EPISODE_STEPS - 300
    env._age += begun
    for number, truncated in enumerate(plays_for_ever(env), start=begun + 1):
        assert truncated == (number == MAX_EPISODE_STEPS)
    assert number == MAX_EPISODE_STEPS


def plays_for_ever(env: TorchBreakout) -> Iterator[bool]:
    """Puts the paddle where the ball comes down; ends with the episode."""
    ended = False
    while not ended:
        env.state[:, torch_breakout.PADDLE] = env.state[:, torch_breakout.BALL_X]
        _, _, terminated, truncated = env.step(torch.tensor([0]))
        assert not terminated.any()
        ended = bool(truncated)
        yield ended


def test_breakout_refuses_what_the_original_refuses():
    with pytest.raises(ConfigError, match="MinAtar/Breakout-v1 cannot be made"):
        make_torch_env(EnvSpec(id="MinAtar/Breakout-v1", kwargs={"colour": 1}), CPU)
