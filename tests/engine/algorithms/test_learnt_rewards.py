"""What is learnt from may differ from what the environment pays; traced returns never do."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from engine.blueprint import make_blueprint
from engine.clock import ManualClock
from engine.executors.actor import ActorExecutor
from engine.roles.commands import CollectRollout
from engine.roles.events import RolloutCollected
from engine.spec import EnvSpec
from engine.testing import SCRIPTED_ENV, make_experiment


def collect(
    env: EnvSpec, rollout_steps: int = 10
) -> tuple[dict[str, np.ndarray], RolloutCollected]:
    batch = rollout_steps * env.num_envs
    experiment = make_experiment(
        env=env, rollout_steps=rollout_steps, batch_steps=batch, minibatch_steps=batch
    )
    blueprint = make_blueprint(experiment)
    executor = ActorExecutor(blueprint, 0, 0, ManualClock())
    executor.perform(CollectRollout(0))
    (collected,) = executor.advance(float("inf"))
    executor.close()
    assert isinstance(collected, RolloutCollected)
    return blueprint.layout.views(collected.rollout.buffer), collected


def test_rewards_are_scaled_and_clipped_but_returns_are_not():
    plain, collected = collect(EnvSpec(id=SCRIPTED_ENV, num_envs=2))
    spec = EnvSpec(id=SCRIPTED_ENV, num_envs=2, reward_scale=0.5)
    scaled, same = collect(spec)
    np.testing.assert_allclose(scaled["reward"], 0.5 * plain["reward"])
    spec = EnvSpec(id=SCRIPTED_ENV, num_envs=2, reward_scale=0.5, clip_reward=True)
    clipped, again = collect(spec)
    np.testing.assert_allclose(clipped["reward"], 0.5 * np.sign(plain["reward"]))
    returns = [[e.episode_return for e in c.episodes] for c in (collected, same, again)]
    assert returns[0]
    assert returns[0] == returns[1] == returns[2]


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs the extra atari")
def test_a_lost_life_ends_the_episode_for_the_learner_only():
    found = []
    for terminates in (False, True):
        spec = EnvSpec(id="ALE/Breakout-v5", num_envs=4, life_loss_terminates=terminates)
        found.append(collect(spec, rollout_steps=150))
    (plain, plain_rollout), (lives, lives_rollout) = found
    assert plain["terminated"].sum() == len(plain_rollout.episodes)
    np.testing.assert_array_equal(plain["valid"], lives["valid"])
    assert [e.length_env_steps for e in plain_rollout.episodes] == [
        e.length_env_steps for e in lives_rollout.episodes
    ]
    lost = lives["terminated"] & ~plain["terminated"]
    assert lost.sum() >= 8, "150 random steps lose at least two of five lives in each game"
    assert lives["valid"][1:][lost[:-1]].all(), "the game goes on"
