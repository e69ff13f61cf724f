"""A team's trained policy, agent by agent: the actions of the evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from team_envs import MEMBERS, Convoy, convoy

from engine import load_policy
from engine.envs.rendering import make_rendered_env
from engine.spec import Experiment
from engine.trained.episodes import PlayRules, play_group, play_rendered
from engine.trained.load import Trained, load_trained
from engine.trained.policy import Policy
from engine.trained.run import read_trained
from tests.helpers.engine.trained_runs import experiment_of, spaces_experiment, write_run
from tests.helpers.engine.trained_teams import TEAM_ALGORITHMS, convoy_experiment


def loaded(root: Path, experiment: Experiment) -> Trained:
    return load_trained(read_trained(write_run(root, experiment, is_lively=True)))


def agent_returns(env: Convoy, policy: Policy, seed: int) -> dict[str, float]:
    """Played as with any environment of PettingZoo; this one refuses wrong agents and choices."""
    observations, _ = env.reset(seed=seed)
    policy.reset()
    totals = dict.fromkeys(env.possible_agents, 0.0)
    while env.agents:
        present = {agent: observations[agent] for agent in env.agents}
        actions = policy(present)
        assert all(env.action_space(agent).contains(action) for agent, action in actions.items())
        observations, rewards, *_ = env.step(actions)
        for agent, reward in rewards.items():
            totals[agent] += reward
    return totals


@pytest.mark.parametrize("algorithm", TEAM_ALGORITHMS)
def test_episodes_are_those_of_the_evaluator(algorithm: str, tmp_path: Path) -> None:
    trained = loaded(tmp_path, convoy_experiment(algorithm))
    policy = Policy(trained)
    returns = []
    for seed in range(4):
        (played,) = [one for step in play_group(trained, 1, seed, PlayRules()) for one in step]
        own = agent_returns(convoy(), policy, seed)
        returns.append(sum(own.values()))
        assert played.episode_return == pytest.approx(returns[-1])
        assert played.of_team is not None
        assert played.of_team.agents == pytest.approx(own)
        of_policies = {name: sum(own[one] for one in of) for name, of in MEMBERS.items()}
        assert played.of_team.policies == pytest.approx(of_policies)
    assert len(set(returns)) > 1
    observations, _ = convoy().reset(seed=1)
    sampled = [policy(observations, sampled=True)["ann"] for _ in range(20)]
    assert len(set(map(int, sampled))) == 2, "one of three is not valid"


def test_a_batch_is_of_the_agents_that_are_there(tmp_path: Path) -> None:
    policy = Policy(loaded(tmp_path, convoy_experiment("maddpg")))
    singles = [convoy().reset(seed=seed)[0] for seed in range(5)]
    batch: dict[str, Any] = {
        agent: {
            key: np.stack([single[agent][key] for single in singles])
            for key in ("observation", "action_mask")
        }
        for agent in ("ann", "ben")
    }
    actions = policy(batch)
    assert list(actions) == ["ann", "ben"]
    for agent, chosen in actions.items():
        assert chosen.tolist() == [int(policy(single)[agent]) for single in singles]
    assert list(policy({"ben": singles[0]["ben"]})) == ["ben"]
    assert list(policy.observation_space) == list(policy.action_space) == ["ann", "ben", "cat"]


def test_masks_of_infos_are_given_by_agent(tmp_path: Path) -> None:
    policy = Policy(loaded(tmp_path, convoy_experiment("maddpg")))
    observations, _ = convoy().reset(seed=3)
    for choice in range(3):
        only = np.arange(3) == choice
        assert policy(observations, action_mask={"ben": only})["ben"] == choice


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no value by agent.*ann, ben, cat"),
        (np.zeros(3), "no value by agent"),
        ({"bob": np.zeros(3)}, "no agent is called 'bob'; they are ann, ben, cat"),
        ({"ann": np.zeros(3)}, "what 'ann' observes is no value of Dict"),
        ({"ann": {"observation": np.zeros(4)}}, r"agents.ann.* has shape \(1?,?4,?\)"),
        (
            {"ann": {"observation": np.zeros(3), "action_mask": np.ones(2)}},
            "the mask of ann has 2 entries; expected 3",
        ),
    ],
)
def test_what_is_wrong_is_said(given: object, message: str, tmp_path: Path) -> None:
    policy = Policy(loaded(tmp_path, convoy_experiment("maddpg")))
    with pytest.raises(ValueError, match=message):
        policy(given)


def test_a_policy_without_masks_takes_none(tmp_path: Path) -> None:
    policy = Policy(loaded(tmp_path, experiment_of("id: TwoStep-v0", algorithm="maddpg")))
    seen = {"agent_0": np.zeros(3, np.float32)}
    assert list(policy(seen)) == ["agent_0"]
    with pytest.raises(ValueError, match="does not take an action_mask"):
        policy(seen, action_mask={"agent_0": np.ones(2)})
    with pytest.raises(ValueError, match="one for each agent, by its name"):
        policy(seen, action_mask=np.ones(2))
    one = Policy(loaded(tmp_path / "one", spaces_experiment(mask="info")))
    with pytest.raises(ValueError, match="of one agent is an array"):
        one(one.observation_space.sample(), action_mask={"agent_0": np.ones(2)})


def test_a_rendered_episode_is_that_of_the_evaluator(tmp_path: Path) -> None:
    trained = loaded(tmp_path, convoy_experiment("maddpg"))
    env = make_rendered_env(trained.experiment.env)
    moments = [
        (one, int(env.frame()[0, 0, 0])) for one in play_rendered(trained, env, 5, PlayRules())
    ]
    env.close()
    assert [shown for _, shown in moments] == [10 * step for step in range(7)]
    (played,) = [one for step in play_group(trained, 1, 5, PlayRules()) for one in step]
    assert moments[-1][0].episode_return == played.episode_return
    assert played.ended_by == "truncated"


def test_it_is_loaded_by_the_path_of_its_run(tmp_path: Path) -> None:
    experiment = experiment_of("id: TwoStep-v0", algorithm="maddpg")
    policy = load_policy(write_run(tmp_path, experiment), trust=True)
    chosen = policy(policy.observation_space.sample())
    assert policy.action_space.contains(chosen)
