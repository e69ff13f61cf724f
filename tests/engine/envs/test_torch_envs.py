"""Environments of tensors: the same world as Gymnasium's, next-step restarts, refusals by name."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from engine.envs.torch_cartpole import MAX_EPISODE_STEPS, TorchCartPole
from engine.envs.torch_envs import (
    TORCH_ENVIRONMENTS,
    TorchActions,
    make_torch_env,
    register_torch_environment,
    torch_spaces_of,
)
from engine.errors import ConfigError
from engine.spec import EnvSpec

CPU = torch.device("cpu")


def hold_upright(state: np.ndarray) -> int:
    """A controller that reaches the time limit from most starts."""
    return int(state[2] + 0.3 * state[3] + 0.05 * state[0] + 0.1 * state[1] > 0)


@pytest.mark.parametrize("policy", ["random", "upright"])
def test_trajectories_are_those_of_gymnasium_step_for_step(policy: str):
    num_envs = 12
    rng = np.random.default_rng(3)
    theirs = [gymnasium.make("CartPole-v1") for _ in range(num_envs)]
    ours = TorchCartPole(num_envs, CPU)
    ours.reset(0)
    for i, env in enumerate(theirs):
        env.reset(seed=i)
        ours.state[i] = torch.from_numpy(np.asarray(env.unwrapped.state))
    running, ends = set(range(num_envs)), []
    while running:
        states = ours.state.numpy()
        actions = rng.integers(0, 2, num_envs)
        if policy == "upright":
            actions = np.array([hold_upright(state) for state in states])
        observation, reward, terminated, truncated = ours.step(torch.from_numpy(actions))
        for i in sorted(running):
            o_t, r_t, fell, ran_out, _ = theirs[i].step(int(actions[i]))
            np.testing.assert_allclose(observation[i].numpy(), o_t, rtol=1e-6, atol=1e-7)
            assert (float(reward[i]), bool(terminated[i])) == (r_t, fell)
            assert bool(truncated[i]) == ran_out
            if fell or ran_out:
                running.discard(i)
                ends.append(ran_out)
    assert len(ends) == num_envs
    assert any(ends) == (policy == "upright"), "both kinds of ends are to be seen"


def test_spaces_are_those_of_gymnasium():
    env = gymnasium.make("CartPole-v1")
    spaces = torch_spaces_of(make_torch_env(EnvSpec(id="CartPole-v1", num_envs=1), CPU))
    assert spaces.observation == env.observation_space
    assert spaces.action == env.action_space


def test_an_ended_copy_resets_in_the_next_step_while_others_go_on():
    env = TorchCartPole(2, CPU)
    env.reset(1)
    env.state[0, 2] = 0.5  # beyond any angle that is allowed
    push = torch.tensor([1, 1])
    last, reward, terminated, _ = env.step(push)
    assert terminated.tolist() == [True, False]
    assert reward.tolist() == [1.0, 1.0]
    assert abs(float(last[0, 2])) > 0.4, "the true last observation comes with the end"
    before = env.state[1].clone()
    observation, reward, terminated, truncated = env.step(push)
    assert reward.tolist() == [0.0, 1.0]
    assert not (terminated | truncated).any()
    assert observation[0].abs().max() <= 0.05
    assert not torch.equal(env.state[1], before)
    env.step(push)
    assert env._age.tolist() == [1, 3]


def test_the_time_limit_truncates():
    env = TorchCartPole(1, CPU)
    env.reset(0)
    for step in range(1, MAX_EPISODE_STEPS + 1):
        _, _, terminated, truncated = env.step(torch.tensor([hold_upright(env.state[0].numpy())]))
        assert not terminated.any()
        assert bool(truncated) == (step == MAX_EPISODE_STEPS)


def test_equal_seeds_begin_equally_and_others_do_not():
    env = TorchCartPole(3, CPU)
    first, again, other = env.reset(4), env.reset(4), env.reset(5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(row.tolist()) for row in first}) == 3


def test_the_other_reward_is_that_of_gymnasium():
    spec = EnvSpec(id="CartPole-v1", num_envs=1, kwargs={"sutton_barto_reward": True})
    ours, theirs = make_torch_env(spec, CPU), gymnasium.make(spec.id, **spec.kwargs)
    assert isinstance(ours, TorchCartPole)
    ours.reset(0)
    theirs.reset(seed=0)
    ours.state[0] = torch.from_numpy(np.asarray(theirs.unwrapped.state))
    fell = False
    while not fell:
        _, reward, _, _ = ours.step(torch.tensor([1]))
        _, r_t, fell, _, _ = theirs.step(1)
        assert float(reward) == r_t
    assert r_t == -1.0


class Drift:
    """One number that moves by the action, which lies between 2 and 6."""

    single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    single_action_space = gymnasium.spaces.Box(2.0, 6.0, (1,), np.float32)

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.place = torch.zeros((num_envs, 1), device=device)

    def reset(self, seed: int) -> torch.Tensor:
        return self.place

    def step(self, action: torch.Tensor):
        self.place = self.place + action
        never = torch.zeros(len(self.place), dtype=torch.bool)
        return self.place, self.place[:, 0], never, never


def test_an_own_one_is_registered_and_its_continuous_actions_are_in_units_of_their_range(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(TORCH_ENVIRONMENTS, "Other-v0", Drift)
    with pytest.raises(ConfigError, match="exists already"):
        register_torch_environment("Other-v0", Drift)
    monkeypatch.delitem(TORCH_ENVIRONMENTS, "Other-v0")
    register_torch_environment("Other-v0", Drift)
    env = make_torch_env(EnvSpec(id="Other-v0", num_envs=3), CPU)
    assert isinstance(env, TorchActions)
    env.reset(0)
    observation, *_ = env.step(torch.tensor([[-1.0], [0.5], [9.0]]))
    assert observation.flatten().tolist() == [2.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EnvSpec(id="LunarLander-v3"), "LunarLander-v3 has no torch version"),
        (EnvSpec(id="CartPole-v1", kwargs={"colour": 1}), "CartPole-v1 cannot be made"),
        (EnvSpec(id="CartPole-v1", life_loss_terminates=True), "do not report lives"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(spec: EnvSpec, words: str):
    with pytest.raises(ConfigError, match=words):
        make_torch_env(spec, CPU)
