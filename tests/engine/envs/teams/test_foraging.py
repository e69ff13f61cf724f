"""Level-Based Foraging in arrays goes the same way as lbforaging's own, from equal states."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.envs.make import make_vector_env
from engine.envs.teams.foraging import MAX_STEPS, Foraging, foraging_of
from engine.envs.teams.parallel import ParallelTeam
from engine.spaces.team import AGENTS, REWARD, TEAM
from engine.spec import EnvSpec

lbforaging = pytest.importorskip("lbforaging")

CROWDED = "Foraging-5x5-4p-2f-v3"
"""They are often in each other's way."""
IDS = ["Foraging-8x8-2p-3f-v3", "Foraging-6x6-2p-3f-coop-v3", CROWDED]
NUM_ENVS = 2


def theirs_of(env_id: str):
    return gymnasium.make(env_id, disable_env_checker=True).unwrapped


def copy(ours: Foraging, env, number: int) -> None:
    places = np.argwhere(env.field)
    ours.food_level[number] = 0
    ours.food_place[number, : len(places)] = places
    ours.food_level[number, : len(places)] = env.field[env.field > 0]
    ours.worth[number] = env.field.sum()
    ours.place[number] = [player.position for player in env.players]
    ours.level[number] = [player.level for player in env.players]


def chosen_by(env, rng: np.random.Generator) -> list[int]:
    """Mostly all go to the first food and try to eat it; often anything."""
    (row, column), *_ = np.argwhere(env.field)
    chosen = []
    for player in env.players:
        south, east = row - player.position[0], column - player.position[1]
        goes = (2 if south > 0 else 1) if abs(south) > abs(east) else (4 if east > 0 else 3)
        wanted = 5 if abs(south) + abs(east) == 1 else goes
        chosen.append(wanted if rng.random() < 0.6 else int(rng.integers(6)))
    return chosen


@pytest.mark.parametrize("env_id", IDS)
def test_every_step_is_that_of_lbforaging(env_id):
    rng, num_rewarded, num_ends = np.random.default_rng(3), 0, 0
    ours = foraging_of(env_id)(NUM_ENVS)
    theirs = [theirs_of(env_id) for _ in range(NUM_ENVS)]
    ours.reset(seed=0)
    for number, env in enumerate(theirs):
        env.reset(seed=number)
        copy(ours, env, number)
    is_over = np.zeros(NUM_ENVS, bool)
    for _ in range(4 * MAX_STEPS):
        chosen = np.array([chosen_by(env, rng) for env in theirs])
        seen, reward, terminated, truncated, _ = ours.step(
            {name: chosen[:, agent] for agent, name in enumerate(ours.agents)}
        )
        assert not truncated.any()
        for number, env in enumerate(theirs):
            if is_over[number]:
                copy(ours, env, number)
                assert (reward[number], terminated[number]) == (0, False)
                continue
            o_t, r_t, has_ended, _, _ = env.step(chosen[number].tolist())
            for name, own in zip(ours.agents, o_t, strict=True):
                np.testing.assert_array_equal(seen[AGENTS][name][number], own)
            assert_allclose(seen[TEAM][REWARD][number], r_t, rtol=1e-6)
            assert_allclose(reward[number], sum(r_t), rtol=1e-6)
            assert terminated[number] == has_ended
            num_rewarded += r_t != [0] * len(ours.agents)
            if has_ended:
                env.reset()
        is_over = terminated
        num_ends += is_over.sum()
    assert num_rewarded > 5
    assert num_ends >= 3 * NUM_ENVS


@pytest.mark.parametrize("env_id", IDS)
def test_spaces_are_those_of_lbforaging(env_id):
    ours, theirs = foraging_of(env_id)(1), theirs_of(env_id)
    assert tuple(ours.agent_observations.values()) == tuple(theirs.observation_space)
    assert tuple(ours.agent_actions.values()) == tuple(theirs.action_space)


@pytest.mark.parametrize("env_id", IDS)
def test_episodes_begin_as_those_of_lbforaging(env_id):
    """Levels, and how far things are from each other and from the edges, on average."""
    count, theirs = 200, theirs_of(env_id)
    ours = foraging_of(env_id)(count)
    ours.reset(seed=1)
    other = foraging_of(env_id)(count)
    for number in range(count):
        theirs.reset(seed=number)
        copy(other, theirs, number)
    for one in (ours, other):
        away = np.abs(one.food_place[:, :, None] - one.food_place[:, None]).max(axis=-1)
        is_pair = ~np.eye(one.food_level.shape[1], dtype=bool)
        has_food = (one.food_level[:, :, None] > 0) & (one.food_level[:, None] > 0) & is_pair
        assert (away[has_food] > 1).all()
        cells = np.concatenate((one.place, one.food_place), axis=1) @ [100, 1]
        cells = np.where(np.pad(one.food_level == 0, ((0, 0), (one.level.shape[1], 0))), -1, cells)
        assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in cells)
    for figure in (
        lambda one: one.level.mean(),
        lambda one: one.food_level.mean(),
        lambda one: (one.food_level > 0).mean(),
        lambda one: one.place.mean(),
        lambda one: np.abs(one.place[:, :1] - one.food_place).sum(axis=-1).mean(),
    ):
        assert figure(ours) == pytest.approx(figure(other), rel=0.15)


def test_arguments_and_rendering_are_those_of_lbforaging():
    env_id = f"lbforaging:{IDS[0]}"
    assert isinstance(make_vector_env(EnvSpec(id=env_id)).unwrapped, Foraging)
    spec = EnvSpec(id=env_id, kwargs={"penalty": 0.1})
    assert isinstance(make_vector_env(spec).unwrapped, ParallelTeam)
    assert isinstance(make_vector_env(EnvSpec(id=env_id), "human").unwrapped, ParallelTeam)
    partly_seen = EnvSpec(id="lbforaging:Foraging-2s-8x8-2p-3f-v3")
    assert isinstance(make_vector_env(partly_seen).unwrapped, ParallelTeam)
    with pytest.raises(ValueError, match="no state"):
        foraging_of(IDS[0])(1, central_state=True)
