"""What each learner holds of a batch that several share: all of it, each column once, evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.batch_shares import share_rollouts, share_samples, split
from engine.blueprint import Blueprint, make_blueprint
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import DistributionPolicy, read_policy
from engine.spec import EnvSpec, Experiment, StalenessSpec
from engine.testing import SCRIPTED_ENV, make_experiment

SMALL = st.integers(1, 40)


@given(SMALL, SMALL, SMALL)
def test_shares_make_up_the_batch_and_nobody_steps_more_than_an_actor_has(
    num_rollouts: int, num_envs: int, num_learners: int
):
    columns, least = num_rollouts * num_envs, -(-num_rollouts // num_learners)
    rounds = [r for r in range(least, num_rollouts + 1) if columns % r == 0]
    if all(columns // r < num_learners for r in rounds):
        with pytest.raises(ConfigError, match="cannot be shared"):
            share_rollouts(num_rollouts, num_envs, num_learners)
        return
    sharing = share_rollouts(num_rollouts, num_envs, num_learners)
    total = sum(sharing.rollouts_per_batch * count for count in sharing.num_envs)
    assert total == columns
    assert len(sharing.num_envs) == num_learners
    assert max(sharing.num_envs) - min(sharing.num_envs) <= 1
    assert 1 <= min(sharing.num_envs) <= max(sharing.num_envs) <= num_envs
    assert sharing.shares == sharing.num_envs
    if num_rollouts % num_learners == 0:
        assert sharing.rollouts_per_batch == num_rollouts // num_learners
        assert set(sharing.num_envs) == {num_envs}


@pytest.mark.parametrize(
    ("sizes", "num_envs", "per_share"),
    [
        ((1, 8, 2), (4, 4), 1),
        ((1, 8, 3), (3, 3, 2), 1),
        ((3, 8, 2), (6, 6), 2),
        ((3, 5, 2), (3, 2), 3),
        ((4, 8, 2), (8, 8), 2),
    ],
)
def test_rollouts_are_split_only_where_they_do_not_go_round(sizes, num_envs, per_share):
    sharing = share_rollouts(*sizes)
    assert (sharing.num_envs, sharing.rollouts_per_batch) == (num_envs, per_share)


@given(st.integers(0, 200), SMALL)
def test_parts_are_as_equal_as_can_be_and_the_larger_ones_come_first(count: int, num_parts: int):
    parts = split(count, num_parts)
    assert (sum(parts), len(parts)) == (count, num_parts)
    assert list(parts) == sorted(parts, reverse=True)
    assert parts[0] - parts[-1] <= 1


def blueprint_of(policy: str | DistributionPolicy, experiment: Experiment) -> Blueprint:
    loaded = read_policy(policy) if isinstance(policy, str) else policy
    return make_blueprint(experiment, build_graph(loaded, experiment).cut)


def test_each_learner_has_its_part_of_a_rollout_and_all_lanes_are_told_apart():
    experiment = make_experiment(
        actors=3,
        env=EnvSpec(id=SCRIPTED_ENV, num_envs=8),
        batch_steps=80,
        minibatch_steps=40,
    )
    whole = blueprint_of("multi-learner", experiment)
    parts = [whole.of_group(group) for group in range(3)]
    assert [part.layout.num_envs for part in parts] == [3, 3, 2]
    assert [part.env.num_envs for part in parts] == [3, 3, 2]
    assert {part.rollouts_per_batch for part in parts} == {1}
    lanes = [whole.slice_of(actor) for actor in range(3)]
    assert [(lane.first, lane.count, lane.total) for lane in lanes] == [
        (0, 3, 8),
        (3, 3, 8),
        (6, 2, 8),
    ]
    assert all(part.experiment is experiment for part in parts), "what a checkpoint belongs to"


def test_learners_of_groups_share_nothing():
    experiment = make_experiment(actors=4, groups=2)
    whole = blueprint_of("tianji", experiment)
    assert whole.of_group(1).layout == whole.layout
    assert [whole.slice_of(actor).first for actor in range(4)] == [0, 4, 8, 12]
    assert whole.slice_of(0).total == 16


def dqn(actors: int, **changes: int) -> Experiment:
    sizes = {"batch_size": 32, "replay_capacity": 1000, "min_replay_size": 100, **changes}
    experiment = make_experiment(actors=actors, staleness=StalenessSpec(mode="unbounded"))
    return replace(experiment, algorithm={"name": "dqn", **sizes})


def test_of_replay_each_learner_has_its_part_of_the_store_and_of_every_batch():
    whole = blueprint_of("multi-learner", dqn(actors=3))
    parts = [whole.of_group(group) for group in range(3)]
    requests = [part.replay for part in parts]
    assert [request.batch_size for request in requests if request] == [11, 11, 10]
    assert {request.capacity for request in requests if request} == {334}
    assert {request.min_size for request in requests if request} == {34}
    assert [part.samples.num_envs for part in parts] == [11, 11, 10]
    assert [part.priorities.num_envs for part in parts] == [11, 11, 10]
    assert {part.layout.num_envs for part in parts} == {4}, "each actor has all environments"
    with pytest.raises(ConfigError, match="a batch of 2 samples cannot be shared by 3 learners"):
        share_samples(2, 4, 3)


def test_parts_that_step_by_turns_must_divide_what_a_learner_has():
    env = EnvSpec(id=SCRIPTED_ENV, num_envs=8, num_splits=4)
    experiment = make_experiment(actors=4, env=env, batch_steps=80, minibatch_steps=40)
    with pytest.raises(ConfigError, match="2 environments cannot be split into 4") as info:
        blueprint_of("multi-learner", experiment)
    assert info.value.where == "env.num_splits"
