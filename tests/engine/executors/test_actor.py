"""Collecting with an environment whose every number is known (`engine.testing`).

Environment i's episodes last 3 + i steps; then one step only resets. The n-th step earns n, a reset
earns -7, which is nobody's return.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from engine.algorithms.networks import PolicyValueNetwork
from engine.roles.commands import AbandonRollout, LoadWeights, Quit
from engine.roles.events import RolloutAbandoned, RolloutCollected
from engine.rollout import Weights
from engine.trace.records import Episode
from tests.helpers.engine.actor_bench import Bench, make_bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = make_bench()
    yield bench
    bench.executor.close()


def column(views: dict[str, np.ndarray], name: str, env: int) -> list[int]:
    return [int(value) for value in views[name][:, env]]


def test_a_step_that_only_resets_is_not_valid(bench: Bench):
    views = bench.views(bench.collect().rollout)
    assert column(views, "valid", 0) == [1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    assert column(views, "valid", 1) == [1, 1, 1, 1, 0, 1, 1, 1, 1, 0]


def test_rewards_lie_in_the_row_of_the_step_that_earned_them(bench: Bench):
    views = bench.views(bench.collect().rollout)
    assert column(views, "reward", 0) == [1, 2, 3, -7, 1, 2, 3, -7, 1, 2]
    assert column(views, "reward", 1) == [1, 2, 3, 4, -7, 1, 2, 3, 4, -7]


def test_terminated_and_truncated_are_kept_apart(bench: Bench):
    views = bench.views(bench.collect().rollout)
    assert column(views, "terminated", 0) == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert column(views, "truncated", 0) == [0] * 10
    assert column(views, "terminated", 1) == [0] * 10
    assert column(views, "truncated", 1) == [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]


def test_row_t_plus_1_holds_the_true_last_observation_of_an_episode(bench: Bench):
    observation = bench.views(bench.collect().rollout)["observation"]
    age, episode = observation[:, :, 2], observation[:, :, 1]
    assert age[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert episode[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert age[:, 1].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]


def test_the_next_rollout_begins_with_the_last_observation_of_this_one(bench: Bench):
    first = bench.views(bench.collect().rollout)["observation"].copy()
    second = bench.views(bench.collect().rollout)
    assert np.array_equal(second["observation"][0], first[-1])
    assert column(second, "valid", 0) == [1, 0, 1, 1, 1, 0, 1, 1, 1, 0]


def test_only_steps_of_the_environment_are_counted(bench: Bench):
    infos = [bench.collect().rollout.info for _ in range(3)]
    for info in infos:
        assert info.actor == 3
        assert info.version_min == info.version_max == 6
    assert [info.sequence for info in infos] == [0, 1, 2]
    assert [info.ticket for info in infos] == [0, 1, 2]
    totals = np.cumsum([info.num_env_steps for info in infos]).tolist()
    assert [info.total_env_steps for info in infos] == totals
    assert totals[-1] == bench.env.num_env_steps
    assert infos[0].num_env_steps == 16


def test_the_count_is_that_of_the_valid_mask(bench: Bench):
    for _ in range(5):
        rollout = bench.collect().rollout
        assert rollout.info.num_env_steps == int(bench.views(rollout)["valid"].sum())


def told(episodes: tuple[Episode, ...]) -> list[tuple[float, int]]:
    return sorted((e.episode_return, e.length_env_steps) for e in episodes)


def test_episodes_are_reported_with_their_whole_return_and_length(bench: Bench):
    episodes = bench.collect().episodes
    assert told(episodes) == [(6.0, 3), (6.0, 3), (10.0, 4), (10.0, 4)]
    assert {episode.actor for episode in episodes} == {3}
    assert {episode.version for episode in episodes} == {6}


def test_an_episode_that_crosses_a_border_is_counted_once_and_whole(bench: Bench):
    finished = [episode for _ in range(4) for episode in told(bench.collect().episodes)]
    assert set(finished) == {(6.0, 3), (10.0, 4)}
    assert finished.count((6.0, 3)) == 10
    assert finished.count((10.0, 4)) == 8


def test_actions_and_log_probabilities_are_those_of_the_algorithm(bench: Bench):
    views = bench.views(bench.collect().rollout)
    assert set(np.unique(views["action"])) <= {0, 1}
    # The weights are all zero, so both actions are equally probable.
    assert views["log_prob"] == pytest.approx(np.log(0.5))


def test_loaded_weights_are_those_that_act(bench: Bench):
    twin = bench.blueprint.algorithm.init(seed=1)
    vector = twin.weights.vector.detach().numpy()
    bench.executor.perform(LoadWeights(Weights(7, vector.view(np.uint8))))
    rollout = bench.collect().rollout
    views = bench.views(rollout)
    with torch.inference_mode():
        observation = torch.from_numpy(views["observation"][:-1].reshape(-1, 4))
        action = torch.from_numpy(views["action"].reshape(-1))
        assert isinstance(twin.network, PolicyValueNetwork)
        log_probs = twin.network.distribution(observation).log_prob(action).numpy()
    chosen = log_probs.reshape(10, 2)
    np.testing.assert_allclose(views["log_prob"], chosen, atol=1e-6)
    assert rollout.info.version_min == 7


def test_times_are_on_the_run_s_timeline(bench: Bench):
    bench.begin()
    bench.clock.advance(1.0)
    assert bench.step(1) == []
    bench.clock.advance(2.5)
    info = bench.finish().rollout.info
    assert (info.start_s, info.end_s) == (5.0, 8.5)


def test_it_can_be_left_and_entered_again_after_every_step(bench: Bench):
    bench.begin()
    for number in range(1, 11):
        assert bench.executor.is_busy
        assert bench.step(1) == []
        assert bench.env.num_vector_steps == number
    assert isinstance(bench.step(1)[0], RolloutCollected)
    assert bench.env.num_vector_steps == 10


def test_giving_up_tells_what_the_unfinished_rollout_held(bench: Bench):
    bench.collect()
    before = bench.env.num_env_steps
    bench.begin()
    bench.step(5)
    bench.clock.advance(2.0)
    (event,) = bench.executor.perform(AbandonRollout())
    assert isinstance(event, RolloutAbandoned)
    assert event.num_env_steps == bench.env.num_env_steps - before == 8
    assert event.collect_s == 2.0
    assert told(event.episodes) == [(6.0, 3), (6.0, 3), (10.0, 4)]
    assert not bench.executor.is_busy


@pytest.mark.parametrize("rollouts", [0, 2])
def test_giving_up_between_rollouts_loses_nothing(bench: Bench, rollouts: int):
    for _ in range(rollouts):
        bench.collect()
    (event,) = bench.executor.perform(AbandonRollout())
    assert isinstance(event, RolloutAbandoned)
    assert (event.num_env_steps, event.episodes) == (0, ())


def observations(bench: Bench) -> np.ndarray:
    views = bench.views(bench.collect().rollout)
    return np.concatenate([views["observation"][:-1].ravel(), views["action"].ravel()])


def test_equal_seeds_collect_equal_rollouts_and_others_differ():
    same = [observations(make_bench(seed=1)) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], observations(make_bench(seed=2)))
    assert not np.array_equal(same[0], observations(make_bench(seed=1, epoch=1)))


def test_rollouts_do_not_share_memory(bench: Bench):
    first = bench.collect().rollout
    kept = first.buffer.copy()
    bench.collect()
    assert np.array_equal(first.buffer, kept)


def test_commands_of_other_roles_are_refused(bench: Bench):
    with pytest.raises(RuntimeError, match="an actor cannot perform Quit"):
        bench.executor.perform(Quit())
