"""The particle environments in arrays go the same way as mpe2's own, from equal states."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.envs.make import make_vector_env
from engine.envs.teams.parallel import ParallelTeam
from engine.envs.teams.particles import push_of
from engine.envs.teams.speaker_listener import LISTENER, SPEAKER, SimpleSpeakerListener
from engine.envs.teams.spread import SimpleSpread
from engine.envs.teams.vector import BatchedTeam
from engine.errors import ConfigError
from engine.spaces.team import AGENTS, CENTRAL_STATE, PRESENT, REWARD, TEAM, TERMINATED
from engine.spec import EnvSpec

NUM_ENVS, NUM_STEPS = 2, 100
SPREAD = "pettingzoo:mpe2.simple_spread_v3"
SPEAKER_LISTENER = "pettingzoo:mpe2.simple_speaker_listener_v4"


def copy_spread(ours: SimpleSpread, world, env: int) -> None:
    for number, agent in enumerate(world.agents):
        ours.particles[env, 1, number] = agent.state.p_pos
    for number, landmark in enumerate(world.landmarks):
        ours.particles[env, 2, number] = landmark.state.p_pos
    ours._look()


def copy_speaker_listener(ours: SimpleSpeakerListener, world, env: int) -> None:
    speaker, listener = world.agents
    ours.position[env] = listener.state.p_pos
    ours.landmarks[env] = [landmark.state.p_pos for landmark in world.landmarks]
    ours.goal[env] = world.landmarks.index(speaker.goal_b)


def make_spread(**options):
    from mpe2 import simple_spread_v3

    theirs = [simple_spread_v3.parallel_env(**options) for _ in range(NUM_ENVS)]
    return SimpleSpread(NUM_ENVS, central_state=True, **options), theirs, copy_spread


def make_speaker_listener(**options):
    from mpe2 import simple_speaker_listener_v4

    theirs = [simple_speaker_listener_v4.parallel_env(**options) for _ in range(NUM_ENVS)]
    return (
        SimpleSpeakerListener(NUM_ENVS, central_state=True, **options),
        theirs,
        copy_speaker_listener,
    )


def random_actions(ours: BatchedTeam, rng: np.random.Generator):
    """As an environment gets them; some of the real ones are beyond their bounds."""
    return {
        name: rng.integers(space.n, size=NUM_ENVS)
        if space.dtype.kind == "i"
        else rng.uniform(-0.1, 1.1, (NUM_ENVS, *space.shape)).astype(np.float32)
        for name, space in ours.agent_actions.items()
    }


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (make_spread, {}),
        (make_spread, {"N": 5, "continuous_actions": True}),
        (make_spread, {"N": 1, "local_ratio": 0.0}),
        (make_spread, {"N": 2, "local_ratio": 1.0}),
        (make_speaker_listener, {}),
        (make_speaker_listener, {"continuous_actions": True}),
    ],
)
def test_a_hundred_random_steps_are_those_of_mpe2(make, options):
    ours, theirs, copy = make(max_cycles=NUM_STEPS, **options)
    rng = np.random.default_rng(24)
    seen, _ = ours.reset(seed=0)
    for number, env in enumerate(theirs):
        env.reset(seed=number)
        copy(ours, env.unwrapped.world, number)
    assert ours.agents == tuple(theirs[0].possible_agents)
    for _ in range(NUM_STEPS):
        actions = random_actions(ours, rng)
        seen, reward, terminated, truncated, _ = ours.step(actions)
        for number, env in enumerate(theirs):
            o_t, r_t, *ends, _ = env.step({name: a[number] for name, a in actions.items()})
            for name in ours.agents:
                assert_allclose(seen[AGENTS][name][number], o_t[name], rtol=0, atol=1e-6)
            assert_allclose(seen[TEAM][REWARD][number], list(r_t.values()), rtol=1e-6, atol=1e-6)
            assert_allclose(reward[number], sum(r_t.values()), rtol=1e-6, atol=1e-6)
            assert_allclose(seen[CENTRAL_STATE][number], env.state(), rtol=0, atol=1e-6)
            assert [all(end.values()) for end in ends] == [terminated[number], truncated[number]]
    assert truncated.all()


def test_spaces_are_those_of_mpe2():
    for make in (make_spread, make_speaker_listener):
        for is_continuous in (False, True):
            ours, (theirs, *_), _ = make(continuous_actions=is_continuous)
            assert ours.state_space == theirs.state_space
            for name in ours.agents:
                assert ours.agent_observations[name] == theirs.observation_space(name)
                assert ours.agent_actions[name] == theirs.action_space(name)


def test_agents_that_touch_are_pushed_apart_as_in_mpe2_and_lose_reward():
    ours, theirs, copy = make_spread(local_ratio=1.0)
    ours.reset(seed=0)
    for number, env in enumerate(theirs):
        env.reset(seed=number)
        first, second, third = env.unwrapped.world.agents
        first.state.p_pos = np.array([0.1, 0.2])
        second.state.p_pos = np.array([0.2 + 0.05 * number, 0.25])
        third.state.p_pos = np.array([-0.9, -0.9])
        copy(ours, env.unwrapped.world, number)
    still = dict.fromkeys(ours.agents, np.zeros(NUM_ENVS, np.int64))
    seen, *_ = ours.step(still)
    assert (seen[TEAM][REWARD] == [-1, -1, 0]).all(), "a force shows in the position a step later"
    for env in theirs:
        env.step({name: a[0] for name, a in still.items()})
    seen, *_ = ours.step(still)
    speeds = seen[AGENTS]["agent_0"][:, :2]
    assert (np.abs(speeds) > 0.1).all()
    for number, env in enumerate(theirs):
        o_t, *_ = env.step({name: a[number] for name, a in still.items()})
        assert_allclose(seen[AGENTS]["agent_0"][number], o_t["agent_0"], rtol=0, atol=1e-6)


def test_particles_at_one_point_do_not_push():
    assert (push_of(np.zeros((1, 2)), np.zeros(1), 0.3) == 0).all()


@pytest.mark.parametrize("make", [SimpleSpread, SimpleSpeakerListener])
def test_the_step_after_the_last_only_begins_an_episode(make):
    ours = make(NUM_ENVS, max_cycles=2)
    first, _ = ours.reset(seed=5)
    again, _ = ours.reset(seed=5)
    assert all((first[AGENTS][name] == again[AGENTS][name]).all() for name in ours.agents)
    rng = np.random.default_rng(0)
    ours.step(random_actions(ours, rng))
    last, reward, terminated, truncated, _ = ours.step(random_actions(ours, rng))
    assert truncated.all()
    assert not terminated.any()
    assert last[TEAM][PRESENT].all()
    assert not last[TEAM][TERMINATED].any()
    fresh, reward, terminated, truncated, _ = ours.step(random_actions(ours, rng))
    assert (reward == 0).all()
    assert (fresh[TEAM][REWARD] == 0).all()
    assert not truncated.any()
    mover = LISTENER if make is SimpleSpeakerListener else "agent_1"
    assert (fresh[AGENTS][mover][:, :2] == 0).all(), "at rest"
    assert (fresh[AGENTS][mover] != last[AGENTS][mover]).any(axis=1).all()


def test_a_new_episode_is_silent_and_drawn_from_the_whole_square():
    ours = SimpleSpeakerListener(400)
    seen, _ = ours.reset(seed=1)
    assert (seen[AGENTS][LISTENER][:, -3:] == 0).all()
    goals = np.unique(seen[AGENTS][SPEAKER], axis=0)
    assert len(goals) == 3
    assert np.abs(ours.position).max() < 1
    assert_allclose(ours.position.mean(axis=0), 0, atol=0.1)
    assert_allclose(ours.landmarks.std(axis=0), 1 / np.sqrt(3), atol=0.06)


@pytest.mark.parametrize("options", [{"N": 0}, {"local_ratio": 1.5}])
def test_values_that_mpe2_refuses_are_refused(options):
    spec = EnvSpec(id=SPREAD, kwargs=options)
    with pytest.raises(ConfigError, match="at least 1, and from 0 to 1"):
        make_vector_env(spec)


@pytest.mark.parametrize(
    ("env_id", "made"), [(SPREAD, SimpleSpread), (SPEAKER_LISTENER, SimpleSpeakerListener)]
)
def test_arrays_are_preferred_and_look_like_copies_of_mpe2s(env_id, made):
    def make(**kwargs: object):
        return make_vector_env(EnvSpec(id=env_id, num_envs=2, central_state=True, kwargs=kwargs))

    ours, theirs = make(max_cycles=7), make(max_cycles=7, dynamic_rescaling=False)
    assert isinstance(ours.unwrapped, made)
    assert isinstance(theirs.unwrapped, ParallelTeam), "an argument that only mpe2 takes"
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.single_action_space == theirs.single_action_space
