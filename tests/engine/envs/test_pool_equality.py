"""EnvPool's environments are Gymnasium's: from equal states both go the same way, step for step.

Needs the extras `envpool` and, for their families, `mujoco`, `atari` and `box2d`; without them
there is nothing to compare. EnvPool brings a MuJoCo of its own: where the one that Gymnasium uses
is another version, contacts amplify the last digits, and only the first steps can agree.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import pytest

from engine.envs.make import make_vector_env
from engine.envs.pool.catalogue import ATARI_NAMES, BOX2D, CLASSIC, MUJOCO, POOL_OPTIONS, task_of
from engine.envs.pool.vector import PoolVectorEnv
from engine.spec import EnvSpec
from tests.helpers.engine.next_step_mode import check_next_step_mode

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None, reason="needs the extra envpool (740 MB)"
)


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    is_here = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not is_here, reason=f"needs the extra {extra}")


needs_mujoco = needs("mujoco", "mujoco")
needs_atari = needs("ale_py", "atari")
needs_box2d = needs("Box2D", "box2d")
BOX2D_IDS = tuple(f"{name}-v3" for name in BOX2D)
QUICK = ("Ant-v5", "CartPole-v1", "HalfCheetah-v5", "Hopper-v5", "Pendulum-v1")
"""Those that are not compared in slow tests only."""
Unwrapped: TypeAlias = Any
"""An environment of Gymnasium, with its state."""
Start: TypeAlias = Callable[[Unwrapped, np.ndarray], None]
POOLS_MUJOCO = "3.6.0"
IN_CONTACT = ("Ant", "HalfCheetah", "Humanoid")
"""Their contacts depend on the version of MuJoCo: names begin like this."""
NUM_ENVS = 4


@pytest.fixture(autouse=True)
def _gymnasium_may_warn() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):  # of old versions and of packages
        yield


def slowly(ids: Iterable[str]) -> list[Any]:
    """Parameters, of which all that are not quick are marked as slow."""
    return [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in ids]


def pooled(env_id: str, num_envs: int = NUM_ENVS, **kwargs) -> PoolVectorEnv:
    spec = EnvSpec(id=env_id, num_envs=num_envs, backend="envpool", kwargs=kwargs)
    return PoolVectorEnv(task_of(spec), num_envs)


def actions_for(
    space: gymnasium.Space[Any], num_steps: int, num_envs: int = NUM_ENVS
) -> np.ndarray:
    random = np.random.default_rng(0)
    if isinstance(space, gymnasium.spaces.Discrete):
        return random.integers(0, space.n, (num_steps, num_envs))
    shape = (num_steps, num_envs, *space.shape)
    return random.uniform(space.low, space.high, shape).astype(np.float32)


def compare(
    env: gymnasium.Env[Any, Any],
    pool: PoolVectorEnv,
    start: Start,
    num_steps: int,
    tolerance: float,
) -> int:
    """Plays the first episode of each environment in both; returns how many have ended.

    Args:
        env: Gymnasium's.
        pool: With as many steps to an episode.
        start: Puts the first into the state that an observation of the second shows.
        num_steps: At most.
        tolerance: Of observations and rewards, relative to the largest.
    """
    first, _ = pool.reset(seed=3)
    actions = actions_for(pool.single_action_space, num_steps, pool.num_envs)
    steps = [pool.step(action) for action in actions]
    num_ended = 0
    for i in range(pool.num_envs):
        env.reset(seed=0)
        start(env.unwrapped, first[i].astype(np.float64))
        for t, (action, step) in enumerate(zip(actions, steps, strict=True)):
            observation, reward, terminated, truncated, _ = env.step(action[i])
            size = tolerance * (1 + abs(observation).max())
            assert abs(observation - step[0][i]).max() <= size, f"environment {i}, step {t}"
            assert step[1][i] == pytest.approx(reward, rel=tolerance, abs=tolerance)
            assert (step[2][i], step[3][i]) == (terminated, truncated), f"{i}, step {t}"
            if terminated or truncated:
                num_ended += 1
                break
    return num_ended


def start_classic(env: Unwrapped, seen: np.ndarray) -> None:
    match type(env).__name__:
        case "PendulumEnv":
            env.state = np.array([np.arctan2(seen[1], seen[0]), seen[2]])
        case "AcrobotEnv":
            angles = np.arctan2(seen[[1, 3]], seen[[0, 2]])
            env.state = np.array([*angles, *seen[4:]])
        case _:
            env.state = seen


@pytest.mark.parametrize("env_id", slowly(CLASSIC))
def test_classic_control_step_by_step(env_id: str) -> None:
    limit = 40 if env_id in ("Acrobot-v1", "Pendulum-v1") else 210  # those two are chaotic
    env = gymnasium.make(env_id, max_episode_steps=limit)
    pool = pooled(env_id, max_episode_steps=limit)
    assert compare(env, pool, start_classic, limit, 1e-4) == NUM_ENVS
    pool.close()


def set_state(env: Unwrapped, qpos: np.ndarray, qvel: np.ndarray) -> None:
    import mujoco

    mujoco.mj_resetData(env.model, env.data)
    env.set_state(qpos, qvel)


def start_mujoco(env: Unwrapped, seen: np.ndarray) -> None:
    """The state behind an observation; where x and y are hidden they are 0, which changes nothing
    else."""
    nq, nv = env.model.nq, env.model.nv
    match type(env).__name__:
        case "InvertedDoublePendulumEnv":
            qpos = np.array([seen[0], *np.arctan2(seen[1:3], seen[3:5])])
            return set_state(env, qpos, seen[5:8])
        case "ReacherEnv":
            angles = np.arctan2(seen[2:4], seen[:2])
            return set_state(env, np.array([*angles, *seen[4:6]]), np.array([*seen[6:8], 0, 0]))
        case "PusherEnv":
            zeros, unit = np.zeros(nq), np.eye(nq)
            places = []
            for qpos in (zeros, unit[-4], unit[-3]):
                set_state(env, qpos, np.zeros(nv))
                places.append(env.get_body_com("object").copy())
            axes = np.stack([places[1] - places[0], places[2] - places[0]], 1)
            moved = np.linalg.lstsq(axes, seen[17:20] - places[0], rcond=None)[0]
            qpos = np.array([*seen[:7], *moved, 0, 0])
            return set_state(env, qpos, np.array([*seen[7:14], *np.zeros(nv - 7)]))
    return set_state(env, seen[:nq], seen[nq : nq + nv])


def mujoco_case(env_id: str) -> tuple[int, float, dict[str, Any]]:
    """Steps, tolerance, and the arguments with which an observation shows the whole state."""
    hides = "exclude_current_positions_from_observation" in MUJOCO[env_id]
    kwargs = {"exclude_current_positions_from_observation": False} if hides else {}
    is_same = metadata.version("mujoco") == POOLS_MUJOCO
    if env_id.startswith(IN_CONTACT) and not is_same:
        return 1, 1e-3, kwargs
    return 60, 1e-5, kwargs


@needs_mujoco
@pytest.mark.parametrize("env_id", slowly(MUJOCO))
def test_mujoco_step_by_step(env_id: str) -> None:
    num_steps, tolerance, kwargs = mujoco_case(env_id)
    env = gymnasium.make(env_id, max_episode_steps=50, **kwargs)
    pool = pooled(env_id, max_episode_steps=50, **kwargs)
    num_ended = compare(env, pool, start_mujoco, num_steps, tolerance)
    assert num_ended == (NUM_ENVS if num_steps > 50 else 0)
    pool.close()


@needs_mujoco
@pytest.mark.parametrize("env_id", slowly(MUJOCO))
def test_arguments_of_mujoco_mean_the_same(env_id: str) -> None:
    parameters = inspect.signature(type(gymnasium.make(env_id).unwrapped).__init__).parameters
    changed = {}
    for key in MUJOCO[env_id]:
        default: Any = parameters[key].default
        changed[key] = not default if isinstance(default, bool) else default * 2
    changed["exclude_current_positions_from_observation"] = False
    kwargs = {key: value for key, value in changed.items() if key in MUJOCO[env_id]}
    num_steps, tolerance, _ = mujoco_case(env_id)
    env = gymnasium.make(env_id, max_episode_steps=50, **kwargs)
    pool = pooled(env_id, max_episode_steps=50, **kwargs)
    compare(env, pool, start_mujoco, min(num_steps, 10), tolerance)
    pool.close()


ALL_IDS = (*CLASSIC, *MUJOCO, *BOX2D_IDS, "ALE/Pong-v5", "ALE/Freeway-v5")


@needs_mujoco
@needs_atari
@needs_box2d
@pytest.mark.parametrize("env_id", slowly(ALL_IDS))
def test_spaces_and_limits_are_gymnasiums(env_id: str) -> None:
    theirs = make_vector_env(EnvSpec(id=env_id, num_envs=2))
    ours = make_vector_env(EnvSpec(id=env_id, num_envs=2, backend="envpool"))
    for name in ("single_observation_space", "single_action_space", "observation_space"):
        assert getattr(ours, name) == getattr(theirs, name)
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    observation, _ = ours.reset(seed=0)
    assert observation.dtype == theirs.single_observation_space.dtype
    assert ours.single_observation_space.contains(observation[0])
    assert type(ours) is type(theirs)
    theirs.close()
    ours.close()


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "Hopper-v5", *slowly(["BipedalWalker-v3", "ALE/Pong-v5"])]
)
def test_equal_seeds_and_only_those_give_equal_episodes(env_id: str) -> None:
    def played(seed: int, num_threads: int = 1) -> np.ndarray:
        env = pooled(env_id, num_threads=num_threads)
        first = env.reset(seed=seed)[0]
        steps = [env.step(one)[0] for one in actions_for(env.single_action_space, 20)]
        env.close()
        return np.stack([first, *steps]).reshape(21, NUM_ENVS, -1)

    one = played(5)
    np.testing.assert_array_equal(one, played(5))
    np.testing.assert_array_equal(one, played(5, num_threads=2))
    np.testing.assert_array_equal(played(6)[0, 0], one[0, 1])  # the next seed is the next one's
    assert (one != played(1005)).any()
    assert len(np.unique(one[1:].swapaxes(0, 1).reshape(NUM_ENVS, -1), axis=0)) == NUM_ENVS


def test_a_second_reset_with_a_seed_starts_anew() -> None:
    env = pooled("CartPole-v1")
    first = env.reset(seed=1)[0]
    for action in actions_for(env.single_action_space, 30):
        env.step(action)
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    assert (env.reset()[0] != first).all()
    env.close()


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("CartPole-v1", {"max_episode_steps": 15}),
        ("Hopper-v5", {"max_episode_steps": 20}),
        pytest.param(
            *("ALE/Freeway-v5", {"max_num_frames_per_episode": 20}), marks=pytest.mark.slow
        ),
    ],
)
def test_the_step_after_an_end_only_resets(env_id: str, kwargs: dict[str, int]) -> None:
    env = pooled(env_id, 8, **kwargs)
    env.reset(seed=0)
    steps = [env.step(one)[:4] for one in actions_for(env.single_action_space, 60, 8)]
    env.close()
    check_next_step_mode(steps)
    assert any(step[3].any() for step in steps)
    if env_id == "CartPole-v1":
        assert any(step[2].any() for step in steps)


def test_its_threads_end_with_it() -> None:
    def num_threads() -> int:
        return len(os.listdir("/proc/self/task"))

    env = make_vector_env(EnvSpec(id="CartPole-v1", num_envs=4, backend="envpool"))
    before = num_threads()
    env.reset(seed=0)
    assert num_threads() > before
    env.close()
    assert num_threads() == before


@needs_atari
@pytest.mark.parametrize("sticky", [0.25, pytest.param(0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("game", ["Breakout", *slowly(["Pong", "SpaceInvaders"])])
def test_atari_frame_by_frame(game: str, sticky: float) -> None:
    """With a single no-op and FIRE both start alike; then every byte is the same."""
    kwargs = {"noop_max": 1, "repeat_action_probability": sticky}
    spec = EnvSpec(id=f"ALE/{game}-v5", num_envs=NUM_ENVS, kwargs=kwargs)
    theirs = make_vector_env(spec)
    ours = pooled(spec.id, **kwargs)
    one, other = theirs.reset(seed=9)[0], ours.reset(seed=9)[0]
    np.testing.assert_array_equal(one, other)
    alive, lost = np.ones(NUM_ENVS, np.bool_), 0
    for action in actions_for(ours.single_action_space, 250):
        a, b = theirs.step(action), ours.step(action)
        for x, y in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(x[alive], y[alive])
        np.testing.assert_array_equal(a[4]["lives"][alive], b[4]["lives"][alive])
        # Then no-ops differ; and ale-py leaves the last frame of an episode out of what it shows.
        alive &= ~(a[2] | a[3])
        np.testing.assert_array_equal(a[0][alive], b[0][alive])
        lost += int(b[2].sum())
    assert lost or game != "Breakout"
    theirs.close()
    ours.close()


@needs_atari
@pytest.mark.slow
def test_atari_options_mean_the_same() -> None:
    options: dict[str, Any] = {
        "frameskip": 2,
        "full_action_space": True,
        "img_height": 40,
        "img_width": 50,
        "noop_max": 1,
        "reward_clipping": True,
        "stack_num": 2,
        "repeat_action_probability": 0.5,
        "use_fire_reset": True,
    }
    assert set(options) == set(ATARI_NAMES)
    limit = {"max_num_frames_per_episode": 100}
    spec = EnvSpec(id="ALE/Breakout-v5", num_envs=2, kwargs={**options, **limit})
    theirs, ours = make_vector_env(spec), pooled(spec.id, 2, **options, **limit)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.single_action_space == theirs.single_action_space
    np.testing.assert_array_equal(theirs.reset(seed=2)[0], ours.reset(seed=2)[0])
    for action in actions_for(ours.single_action_space, 50, 2):
        a, b = theirs.step(action)[:4], ours.step(action)[:4]
        for x, y in zip(a[1:], b[1:], strict=True):
            np.testing.assert_array_equal(x, y)
        if not a[3].any():
            np.testing.assert_array_equal(a[0], b[0])
    assert a[3].all()
    theirs.close()
    ours.close()


@needs_box2d
@pytest.mark.parametrize("env_id", slowly(BOX2D_IDS))
def test_box2d_starts_and_ends_alike(env_id: str) -> None:
    """Its states cannot be set: what 64 episodes begin with and how they end is compared, with
    bounds that equal distributions pass."""
    found = []
    for backend in ("gymnasium", "envpool"):
        kwargs = {"max_episode_steps": 60}
        spec = EnvSpec(id=env_id, num_envs=64, backend=backend, kwargs=kwargs)
        env = make_vector_env(spec)
        first = env.reset(seed=0)[0]
        steps = [env.step(one)[:4] for one in actions_for(env.single_action_space, 60, 64)]
        env.close()
        reward = np.stack([step[1] for step in steps])
        ended = np.stack([step[2] | step[3] for step in steps])
        is_first = ended.cumsum(0) - ended == 0
        returns = (reward * is_first).sum(0)
        found.append([first[:, :6], returns[:, None], is_first.sum(0)[:, None]])
    for one, other in zip(*found, strict=True):
        spread = np.sqrt((one.var(0) + other.var(0)) / 64) + 1e-6
        assert (abs(one.mean(0) - other.mean(0)) < 5 * spread + 1e-3 * abs(one).max(0)).all()


def test_what_it_can_be_given_is_what_envpool_knows() -> None:
    import envpool

    for env_id in ALL_IDS:
        task = task_of(EnvSpec(id=env_id, backend="envpool"))
        known = envpool.make_spec(task.name)._config_keys
        assert set(POOL_OPTIONS) <= set(known)
        if env_id in MUJOCO:
            assert set(MUJOCO[env_id]) <= set(known)
    assert set(ATARI_NAMES.values()) <= set(envpool.make_spec("Pong-v5")._config_keys)
