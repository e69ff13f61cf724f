"""DQN's loss against a second implementation in NumPy, and what it promises to roles."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.algorithms.base import EnvSlice, Spaces
from engine.algorithms.dqn import ApexConfig, Dqn, DqnConfig
from engine.algorithms.q_network import QNetwork
from engine.algorithms.registry import make_algorithm
from engine.errors import ConfigError
from engine.spec import NetworkSpec, StalenessSpec
from engine.testing import discrete_spaces, make_experiment

NETWORK = NetworkSpec(hidden_sizes=(8, 8), activation="relu")


def make_dqn(**hyperparameters: float) -> Dqn:
    return Dqn(DqnConfig(batch_size=5, updates_per_batch=3, **hyperparameters), NETWORK, SPACES)


SPACES = discrete_spaces()


def make_batch(num_updates: int = 3, batch_size: int = 5) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shape = (num_updates, batch_size)
    return {
        "observation": torch.randn((*shape, 4), generator=random),
        "next_observation": torch.randn((*shape, 4), generator=random),
        "action": torch.randint(3, shape, generator=random),
        "reward": torch.randn(shape, generator=random) * 2,
        "discount": torch.where(torch.rand(shape, generator=random) < 0.3, 0.0, 0.97),
        "weight": torch.rand(shape, generator=random),
    }


def q_by_hand(network: torch.nn.Module, observation: np.ndarray, dueling: bool) -> np.ndarray:
    """The network, by hand, in float64."""
    named = {n: p.detach().double().numpy() for n, p in network.named_parameters()}
    hidden = observation.astype(np.float64)
    for layer in (1, 3):
        weight, bias = named[f"trunk.{layer}.weight"], named[f"trunk.{layer}.bias"]
        hidden = np.maximum(hidden @ weight.T + bias, 0)
    advantage = hidden @ named["advantage.weight"].T + named["advantage.bias"]
    if not dueling:
        return advantage
    value = hidden @ named["value.weight"].T + named["value.bias"]
    return value + advantage - advantage.mean(1, keepdims=True)


@pytest.mark.parametrize("kind", ["huber", "squared"])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_the_loss_is_that_of_the_papers(double: bool, dueling: bool, kind: str):
    dqn = make_dqn(double=double, dueling=dueling, loss=kind)
    state, other = dqn.init(seed=1), dqn.init(seed=2)
    assert state.target is not None
    state.target.weights.load(other.weights.vector)
    sample = {name: values[0] for name, values in make_batch().items()}
    arrays = {name: values.numpy() for name, values in sample.items()}
    q = q_by_hand(state.network, arrays["observation"], dueling)
    next_q = q_by_hand(state.network, arrays["next_observation"], dueling)
    next_target = q_by_hand(other.network, arrays["next_observation"], dueling)
    losses, errors = [], []
    for i in range(5):
        best = int(np.argmax(next_q[i] if double else next_target[i]))
        target = arrays["reward"][i] + arrays["discount"][i] * next_target[i, best]
        error = target - q[i, arrays["action"][i]]
        huber = error**2 / 2 if abs(error) < 1 else abs(error) - 0.5
        losses.append(arrays["weight"][i] * (huber if kind == "huber" else error**2))
        errors.append(error)
    doubled = {n: t.double() if t.is_floating_point() else t for n, t in sample.items()}
    with torch.no_grad():
        doubled["next_q"] = state.target.network.double()(doubled["next_observation"])
    loss, told = dqn._loss(state.network.double(), doubled)
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-6)
    assert told[0].item() == pytest.approx(np.mean(losses), abs=1e-6)
    np.testing.assert_allclose(told[3:].numpy(), np.abs(errors), rtol=0, atol=1e-6)


def test_an_update_makes_one_step_for_each_minibatch_and_reports_its_errors():
    dqn = make_dqn(prioritized=True)
    state = dqn.init(seed=1)
    result = dqn.update(state, make_batch())
    assert state.num_updates == 3
    assert result.samples_trained == 15
    assert result.errors is not None
    assert result.errors.shape == (3, 5)
    assert (result.errors >= 0).all()
    uniform = make_dqn()
    assert uniform.update(uniform.init(seed=1), make_batch()).errors is None


def test_the_target_network_follows_at_its_own_pace():
    dqn = make_dqn(target_update_period=6)
    state = dqn.init(seed=1)
    assert state.target is not None
    first = state.weights.vector.detach().clone()  # its first entry is epsilon
    assert torch.equal(state.target.weights.vector, first)
    dqn.update(state, make_batch())
    assert torch.equal(state.target.weights.vector, first)
    dqn.update(state, make_batch())
    assert torch.equal(state.target.weights.vector[1:], state.weights.vector[1:])
    soft = make_dqn(target_update_period=3, target_update_rate=0.25)
    state = soft.init(seed=1)
    assert state.target is not None
    soft.update(state, make_batch())
    wanted = 0.75 * first[1:] + 0.25 * state.weights.vector.detach()[1:]
    torch.testing.assert_close(state.target.weights.vector.detach()[1:], wanted)


def test_epsilon_falls_with_env_steps_and_travels_with_the_weights():
    dqn = make_dqn(
        epsilon_initial=1.0, epsilon_final=0.2, epsilon_decay_env_steps=30, replay_ratio=1.0
    )
    state = dqn.init(seed=1)
    assert isinstance(state.network, QNetwork)
    assert state.network.epsilon.item() == 1.0
    found = []
    for _ in range(3):
        dqn.update(state, make_batch())  # 15 samples stand for 15 env steps
        found.append(state.network.epsilon.item())
        assert found[-1] in state.weights.vector.detach()
    assert found == pytest.approx([0.6, 0.2, 0.2])


def test_epsilon_can_fall_over_a_fraction_of_the_run():
    dqn = make_dqn(epsilon_initial=1.0, epsilon_final=0.2, epsilon_decay_fraction=0.5)
    state = dqn.init(seed=1)
    assert isinstance(state.network, QNetwork)
    found = []
    for state.progress in (0.0, 0.25, 0.5, 1.0):
        dqn.update(state, make_batch())
        found.append(state.network.epsilon.item())
    assert found == pytest.approx([1.0, 0.6, 0.2, 0.2])
    with pytest.raises(ConfigError, match="not both") as error:
        make_dqn(epsilon_decay_fraction=0.5, epsilon_decay_env_steps=5000)
    assert error.value.where == "algorithm.epsilon_decay_fraction"


def test_importance_weights_get_their_exponent_from_progress():
    """The store gives those of exponent 1; powers of it are the weights of any other."""
    probability = np.array([0.1, 0.02, 0.3])
    to_one = (3 * probability) ** -1.0
    dqn = make_dqn(prioritized=True, importance_exponent=0.4, importance_exponent_final=1.0)
    request = dqn.samples().replay
    assert request is not None
    assert request.importance_exponent == 1.0
    for progress, beta in ((0.0, 0.4), (0.5, 0.7), (1.0, 1.0)):
        weights = (3 * probability) ** -beta
        samples = {"weight": torch.from_numpy(to_one / to_one.max())}
        found = dqn._with_beta(samples, progress)["weight"].numpy()
        np.testing.assert_allclose(found, weights / weights.max(), rtol=1e-12)
    plain = make_dqn(prioritized=True, importance_exponent=0.4)
    assert plain.samples().replay.importance_exponent == 0.4
    assert plain._with_beta(samples, 0.5) is samples


def test_an_update_trains_with_the_weights_of_its_progress():
    batch = make_batch()
    dqn = make_dqn(prioritized=True, importance_exponent=0.4, importance_exponent_final=0.8)
    state = dqn.init(seed=1)
    state.progress = 0.5
    dqn.update(state, batch)
    plain = make_dqn(prioritized=True)
    wanted = plain.init(seed=1)
    plain.update(wanted, {**batch, "weight": batch["weight"] ** 0.6})
    torch.testing.assert_close(state.weights.vector, wanted.weights.vector, rtol=0, atol=1e-6)


def test_exploration_is_as_likely_as_epsilon_says_in_each_lane():
    """Horgan et al.: epsilon_i = epsilon^(1 + alpha i / (N - 1))."""
    config = ApexConfig(epsilon_initial=0.4, epsilon_spread=7.0)
    dqn = Dqn(config, NETWORK, SPACES)
    network = dqn.init(seed=1).network
    observation, draws = torch.zeros(4, 4), 1500
    noise = dqn.noise(torch.Generator().manual_seed(3), draws, EnvSlice(4, 4, 8))
    greedy = int(dqn.act_greedily(network, observation)[0])
    others = torch.zeros(4)
    with torch.no_grad():
        for noise_t in noise:
            chosen = dqn.act(network, observation, noise_t)["action"]
            others += (chosen != greedy).float()
    wanted = [0.4 ** (1 + 7 * i / 7) * 2 / 3 for i in range(4, 8)]
    np.testing.assert_allclose((others / draws).numpy(), wanted, atol=0.015)


def test_it_learns_which_action_is_rewarded():
    dqn = make_dqn(learning_rate=1e-2)
    state = dqn.init(seed=0)
    for seed in range(60):
        batch = make_batch()
        action = torch.randint(3, (3, 5), generator=torch.Generator().manual_seed(seed))
        batch |= {"action": action, "reward": (action == 2).float(), "weight": torch.ones(3, 5)}
        dqn.update(state, batch | {"discount": torch.zeros(3, 5)})
    q = state.network(batch["observation"].flatten(0, 1))
    assert (q.argmax(-1) == 2).all()


def test_what_it_cannot_use_is_refused():
    continuous = Spaces(SPACES.observation, gymnasium.spaces.Box(-1, 1, (2,)))
    with pytest.raises(ConfigError, match="discrete actions") as error:
        Dqn(DqnConfig(), NETWORK, continuous)
    assert error.value.where == "env.id"
    with pytest.raises(ConfigError, match="never fit") as error:
        make_dqn(replay_capacity=10, min_replay_size=11)
    assert error.value.where == "algorithm.min_replay_size"


def test_a_bound_on_lag_is_refused_because_it_could_not_be_kept():
    spec = make_experiment()
    with pytest.raises(ConfigError, match="old on purpose") as error:
        make_algorithm(
            type(spec)(
                name="t", env=spec.env, algorithm={"name": "dqn"}, staleness=StalenessSpec()
            ),
            SPACES,
        )
    assert error.value.where == "staleness.mode"


def test_actors_of_apex_send_the_values_that_priorities_begin_with():
    apex = Dqn(ApexConfig(), NETWORK, SPACES)
    network = apex.init(seed=1).network
    observation = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    noise = apex.noise(torch.Generator().manual_seed(1), 1, EnvSlice(0, 6, 6))
    chosen = apex.act(network, observation, noise[0])
    q = network(observation).detach()
    torch.testing.assert_close(chosen["q_best"].detach(), q.max(-1).values)
    taken = q[torch.arange(6), chosen["action"]]
    torch.testing.assert_close(chosen["q_taken"].detach(), taken)
    request = apex.samples()
    assert {f.name for f in request.fields} == {"observation", *chosen}
    assert not {"q_best", "q_taken"} & {f.name for f in request.sample_fields}
