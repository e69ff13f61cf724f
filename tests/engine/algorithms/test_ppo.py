"""PPO against a second implementation in NumPy, and what it promises to roles."""

from __future__ import annotations

import copy

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.algorithms.base import EnvSlice, LearnerState, Spaces
from engine.algorithms.networks import PolicyValueNetwork
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import DIVERGENCE, PpoConfig
from engine.algorithms.replicas import SINGLE_REPLICA, minibatch_rows
from engine.algorithms.schedules import beside
from engine.errors import ConfigError
from engine.spec import NetworkSpec
from engine.testing import discrete_spaces
from tests.helpers.engine.policy_by_hand import forward, make_batch
from tests.helpers.engine.returns_by_hand import advantage_by_hand

NETWORK = NetworkSpec(hidden_sizes=(8, 8))
ONE_STEP = {"rollout_steps": 6, "batch_steps": 24, "minibatch_steps": 24, "num_epochs": 1}


def make_ppo(**hyperparameters: float) -> Ppo:
    return Ppo(PpoConfig(**{**ONE_STEP, **hyperparameters}), NETWORK, discrete_spaces())


def loss_by_hand(
    config: PpoConfig,
    network: PolicyValueNetwork,
    batch: dict[str, np.ndarray],
    **changing: float,
) -> dict[str, float]:
    """Equation 9 of the paper over the valid samples only, one sample after the other; `changing`
    are the hyperparameters that have other values now."""
    logits = forward(network, "policy", batch["observation"])
    value = forward(network, "value", batch["observation"])[:, 0]
    chosen = [i for i in range(len(value)) if batch["valid"][i]]
    advantage = batch["advantage"].astype(np.float64)
    if config.normalize_advantage:
        kept = advantage[chosen]
        advantage = (advantage - kept.mean()) / (kept.std() + 1e-8)
    policy, values, entropies, kls = [], [], [], []
    for i in chosen:
        shifted = logits[i] - logits[i].max()
        log_probs = shifted - np.log(np.exp(shifted).sum())
        log_ratio = log_probs[batch["action"][i]] - batch["log_prob"][i]
        ratio = np.exp(log_ratio)
        clip_range = changing.get("clip_range", config.clip_range)
        low, high = 1 - clip_range, 1 + clip_range
        policy.append(-min(ratio * advantage[i], min(max(ratio, low), high) * advantage[i]))
        losses = [(value[i] - batch["value_target"][i]) ** 2]
        if (limit := config.value_clip_range) is not None:
            before = batch["value"][i]
            near = before + min(max(value[i] - before, -limit), limit)
            losses.append((near - batch["value_target"][i]) ** 2)
        values.append(max(losses))
        entropies.append(-(np.exp(log_probs) * log_probs).sum())
        kls.append(ratio - 1 - log_ratio)
    means = [float(np.mean(terms)) for terms in (policy, values, entropies, kls)]
    names = ("policy_loss", "value_loss", "entropy", "approximate_kl")
    terms = dict(zip(names, means, strict=True))
    loss = terms["policy_loss"] + config.value_coefficient * terms["value_loss"]
    coefficient = changing.get("entropy_coefficient", config.entropy_coefficient)
    return {**terms, "loss": loss - coefficient * terms["entropy"]}


def make_minibatch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    return {
        "observation": random.normal(size=(50, 4)).astype(np.float32),
        "action": random.integers(3, size=50),
        "log_prob": -random.random(50) - 0.5,
        "valid": (random.random(50) < 0.8).astype(np.float64),
        "advantage": random.normal(size=50),
        "value_target": random.normal(size=50),
        "value": random.normal(size=50) * 0.3,
    }


def check_loss(hyperparameters: dict[str, float], **changing: float) -> dict[str, float]:
    """Compares a loss with that by hand, which is returned."""
    ppo, batch = make_ppo(**hyperparameters), make_minibatch()
    network = ppo.init(seed=3).network.double()
    assert isinstance(network, PolicyValueNetwork)
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    tensors["observation"] = tensors["observation"].double()
    tensors |= beside(tensors["advantage"], changing)
    loss, metrics = ppo.loss(network, tensors)
    wanted = loss_by_hand(PpoConfig(**ONE_STEP, **hyperparameters), network, batch, **changing)
    names = ("policy_loss", "value_loss", "entropy", "approximate_kl")
    assert loss.item() == pytest.approx(wanted["loss"], abs=1e-6)
    assert metrics.tolist() == pytest.approx([wanted[name] for name in names], abs=1e-6)
    return wanted


@pytest.mark.parametrize("normalize_advantage", [False, True])
@pytest.mark.parametrize("clip_range", [0.05, 0.2])
def test_the_loss_is_that_of_the_paper(normalize_advantage: bool, clip_range: float):
    check_loss({"normalize_advantage": normalize_advantage, "clip_range": clip_range})


def test_the_loss_of_a_clipped_value_is_the_larger_one():
    plain = check_loss({})
    losses = [check_loss({"value_clip_range": limit})["value_loss"] for limit in (0.01, 0.2, 9.0)]
    assert losses[0] > losses[1] > losses[2] == pytest.approx(plain["value_loss"])


def test_without_options_the_loss_is_to_the_last_bit_what_it_was_before_there_were_any():
    ppo, batch = make_ppo(), make_batch()
    state = ppo.init(seed=3)
    network, config = state.network, PpoConfig(**ONE_STEP)
    assert isinstance(network, PolicyValueNetwork)
    samples = ppo.prepare(state.network, batch)
    names = {"observation", "action", "log_prob", "valid", "advantage", "value_target"}
    assert samples.keys() == names, "nothing more is gathered"
    policy, value = network.evaluate(samples["observation"])
    weight = samples["valid"] / samples["valid"].sum()
    ratio = (policy.log_prob(samples["action"]) - samples["log_prob"]).exp()
    centred = samples["advantage"] - weight @ samples["advantage"]
    advantage = centred / ((weight @ centred.square()).sqrt() + 1e-8)
    clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    wanted = (
        -(weight @ torch.minimum(ratio * advantage, clipped * advantage))
        + config.value_coefficient * (weight @ (value - samples["value_target"]).square())
        - config.entropy_coefficient * (weight @ policy.entropy())
    )
    assert torch.equal(ppo.loss(network, samples)[0], wanted)


def test_what_changes_in_the_loss_comes_with_the_samples():
    hyperparameters = {"clip_range_final": 0.1, "entropy_coefficient_final": 0.5}
    changing = {"clip_range": 0.1, "entropy_coefficient": 0.5}
    wanted = check_loss(hyperparameters, **changing)
    assert wanted == loss_by_hand(
        PpoConfig(**ONE_STEP, clip_range=0.1, entropy_coefficient=0.5),
        make_ppo().init(seed=3).network.double(),
        make_minibatch(),
    )


def test_the_value_before_the_update_comes_with_the_samples():
    ppo, batch = make_ppo(value_clip_range=0.2), make_batch()
    state = ppo.init(seed=3)
    assert isinstance(state.network, PolicyValueNetwork)
    samples = ppo.prepare(state.network, batch)
    value = forward(state.network, "value", batch["observation"][:-1].numpy().reshape(-1, 4))
    np.testing.assert_allclose(samples["value"].numpy(), value[:, 0], atol=1e-6)


def taught(ppo: Ppo, progress: float = 0.0) -> LearnerState:
    state = ppo.init(seed=3)
    state.progress = progress
    for seed in range(3):
        ppo.update(state, make_batch(seed))
    return state


@pytest.mark.parametrize(
    ("key", "final", "there"),
    [
        ("learning_rate", 1e-4, 2e-4),
        ("clip_range", 0.02, 0.11),
        ("entropy_coefficient", 0.5, 0.255),
    ],
)
def test_a_schedule_is_at_half_progress_where_its_mean_is(key: str, final: float, there: float):
    """At the start it is what it would be without."""
    ppo = make_ppo(**{f"{key}_final": final}, num_epochs=4, minibatch_steps=8)
    for progress, hyperparameters in ((0.0, {}), (0.5, {key: there}), (1.0, {key: final})):
        wanted = taught(make_ppo(num_epochs=4, minibatch_steps=8, **hyperparameters))
        found = taught(ppo, progress)
        torch.testing.assert_close(found.weights.vector, wanted.weights.vector, rtol=0, atol=1e-6)


def test_an_update_reports_what_has_changed():
    ppo = make_ppo(clip_range_final=0.1, entropy_coefficient_final=0.03)
    state = ppo.init(seed=3)
    state.progress = 0.5
    metrics = ppo.update(state, make_batch()).metrics
    assert metrics["clip_range"] == pytest.approx(0.15)
    assert metrics["entropy_coefficient"] == pytest.approx(0.02)


def test_an_update_ends_after_an_epoch_in_which_the_policy_moved_too_far():
    sizes = {"num_epochs": 5, "minibatch_steps": 8, "learning_rate": 3e-3}
    batch, free = make_batch(), make_ppo(**sizes)
    state = free.init(seed=3)
    samples, step = free.prepare(state.network, batch), free._step
    order = minibatch_rows((6, 4), 5, 8, state.generator, SINGLE_REPLICA)
    epochs = order.view(5, 3, 8)
    kls = [float(state.steps.take(state, step, samples, rows)[-1, DIVERGENCE]) for rows in epochs]
    limits = [0.9999 * kl for kl in kls] + [10.0]
    ends = [next((1 + i for i in range(5) if kls[i] > limit), 5) for limit in limits]
    assert len(set(ends)) > 2
    for limit, num_epochs in zip(limits, ends, strict=True):
        bound = make_ppo(**sizes, target_kl=limit)
        state = bound.init(seed=3)
        result = bound.update(state, batch)
        assert state.num_updates == 3 * num_epochs
        assert result.samples_trained == num_epochs * int(batch["valid"].sum())
    unbound = free.init(seed=3)
    free.update(unbound, batch)
    assert same(state, unbound)


def test_a_normalised_reward_is_clipped():
    batch = make_batch()
    batch["reward"][0, 0] = 50.0
    limited = make_ppo(normalize_reward=True, normalized_reward_limit=10.0)
    samples = limited.prepare(limited.init(seed=3).network, batch)
    batch["reward"][0, 0] = 10.0
    wanted = make_ppo().prepare(limited.init(seed=3).network, batch)
    torch.testing.assert_close(samples["advantage"], wanted["advantage"], rtol=0, atol=0)
    with pytest.raises(ConfigError, match="not normalised") as error:
        make_ppo(normalized_reward_limit=10.0)
    assert error.value.where == "algorithm.normalized_reward_limit"


def test_update_reports_the_losses_of_the_samples_that_it_was_given():
    ppo, batch = make_ppo(normalize_advantage=False), make_batch()
    state = ppo.init(seed=3)
    assert isinstance(state.network, PolicyValueNetwork)
    before = copy.deepcopy(state.network)
    samples = {name: values.numpy() for name, values in ppo.prepare(state.network, batch).items()}
    result = ppo.update(state, batch)
    wanted = loss_by_hand(PpoConfig(**ONE_STEP, normalize_advantage=False), before, samples)
    for name, value in result.metrics.items():
        assert value == pytest.approx(wanted[name], abs=1e-5), name
    assert result.samples_trained == int(batch["valid"].sum())


def test_the_value_is_pulled_towards_the_advantage_over_the_value_that_it_was():
    ppo, batch = make_ppo(), make_batch()
    network = ppo.init(seed=3).network
    assert isinstance(network, PolicyValueNetwork)
    samples = ppo.prepare(network, batch)
    observation = batch["observation"].numpy()
    value = forward(network, "value", observation.reshape(-1, 4)).reshape(7, 4)
    ends = batch["terminated"].numpy(), batch["truncated"].numpy()
    wanted = advantage_by_hand(batch["reward"].numpy(), value, *ends, 0.99, 0.95)
    found = samples["advantage"].view(6, 4).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    target = samples["value_target"].view(6, 4).numpy()
    np.testing.assert_allclose(target, wanted + value[:-1], atol=1e-5)


def test_samples_are_counted_as_often_as_they_are_used():
    ppo = make_ppo(num_epochs=3, minibatch_steps=8)
    state, batch = ppo.init(seed=0), make_batch()
    assert ppo.update(state, batch).samples_trained == 3 * int(batch["valid"].sum())
    assert state.num_updates == 9


def test_a_minibatch_without_a_valid_step_does_no_harm():
    ppo, batch = make_ppo(), make_batch()
    batch["valid"][:] = False
    state = ppo.init(seed=0)
    assert ppo.update(state, batch).samples_trained == 0
    assert state.weights.vector.isfinite().all()


def same(one: LearnerState, other: LearnerState) -> bool:
    tensors = zip(
        (one.weights.vector, *one.optimizer.named_tensors().values(), one.generator.get_state()),
        (
            other.weights.vector,
            *other.optimizer.named_tensors().values(),
            other.generator.get_state(),
        ),
        strict=True,
    )
    return all(torch.equal(a, b) for a, b in tensors)


def test_equal_seeds_give_equal_states_and_stay_equal():
    ppo = make_ppo(num_epochs=2, minibatch_steps=8)
    one, other, different = (ppo.init(seed) for seed in (7, 7, 8))
    assert same(one, other)
    assert not same(one, different)
    for seed in range(3):
        assert ppo.update(one, make_batch(seed)) == ppo.update(other, make_batch(seed))
    assert same(one, other)


def test_init_leaves_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    make_ppo().init(seed=11)
    assert torch.equal(torch.get_rng_state(), before)


def undecided_network(ppo: Ppo) -> PolicyValueNetwork:
    """Probabilities that differ clearly: about 0.09, 0.24 and 0.67 for every observation."""
    network = ppo.init(seed=0).network
    assert isinstance(network, PolicyValueNetwork)
    with torch.no_grad():
        network.policy_head.weight.zero_()
        network.policy_head.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    return network


def noise_of(ppo: Ppo, num_states: int, seed: int) -> Tensor:
    lanes = EnvSlice(0, num_states, num_states)
    return ppo.noise(torch.Generator().manual_seed(seed), 1, lanes)[0]


def test_act_returns_the_log_probability_of_the_action_that_it_chose():
    ppo = make_ppo()
    network = ppo.init(seed=1).network
    assert isinstance(network, PolicyValueNetwork)
    observation = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        chosen = ppo.act(network, observation, noise_of(ppo, 64, 1))
        log_probs = network.distribution(observation).log_prob(chosen["action"])
    assert {f.name for f in ppo.samples().fields} == {"observation", *chosen}
    assert chosen["action"].dtype == torch.int64
    torch.testing.assert_close(chosen["log_prob"], log_probs, rtol=0, atol=0)


def test_actions_follow_the_policy():
    ppo, num_samples = make_ppo(), 20_000
    network = undecided_network(ppo)
    observation = torch.zeros(num_samples, 4)
    action = ppo.act(network, observation, noise_of(ppo, num_samples, 2))["action"]
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0).numpy() * num_samples
    found = np.bincount(action.numpy(), minlength=3)
    chi_square = float(((found - expected) ** 2 / expected).sum())
    assert chi_square < 13.8, "99.9 % of fair samples of three actions stay below"


def probabilities(network: PolicyValueNetwork, observation: Tensor) -> Tensor:
    """Of the three actions, for the first of equal observations."""
    policy = network.distribution(observation[:3])
    return policy.log_prob(torch.arange(3)).exp()


def test_a_rewarded_action_becomes_more_probable():
    ppo = make_ppo(num_epochs=8, learning_rate=1e-2)
    state = ppo.init(seed=0)
    assert isinstance(state.network, PolicyValueNetwork)
    observation = torch.ones(7, 4, 4)
    with torch.no_grad():
        before = probabilities(state.network, observation[0])
        chosen = ppo.act(state.network, observation[:-1].reshape(-1, 4), noise_of(ppo, 24, 3))
    batch = make_batch()
    batch["terminated"][:], batch["truncated"][:], batch["valid"][:] = True, False, True
    batch |= {name: values.view(6, 4) for name, values in chosen.items()}
    batch |= {"observation": observation, "reward": (batch["action"] == 2).float()}
    assert 0 < int(batch["reward"].sum()) < 24
    ppo.update(state, batch)
    with torch.no_grad():
        after = probabilities(state.network, observation[0])
    assert after[2] > before[2] + 0.02
    assert after.argmax() == 2


@pytest.mark.parametrize(
    "action",
    [gymnasium.spaces.Text(3), gymnasium.spaces.Tuple((gymnasium.spaces.Text(3),))],
    ids=["alone", "inside"],
)
def test_actions_that_it_cannot_take_are_refused(action: gymnasium.Space[object]):
    spaces = Spaces(discrete_spaces().observation, action)
    with pytest.raises(ConfigError, match=r"ppo cannot choose actions: .* a Text") as error:
        Ppo(PpoConfig(**ONE_STEP), NETWORK, spaces)
    assert error.value.where == "env.id"


def test_minibatches_must_divide_a_batch():
    with pytest.raises(ConfigError, match="7 does not divide batch_steps 24") as error:
        make_ppo(minibatch_steps=7)
    assert error.value.where == "algorithm.minibatch_steps"
