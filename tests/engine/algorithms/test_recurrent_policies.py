"""PPO and IMPALA with a memory: unrolled over a batch they are what was stepped one by one.

Everything is in float64, on observations of several leaves with hybrid actions and masks.
"""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from engine.algorithms.actor_critic import evaluate_rollouts
from engine.algorithms.base import EnvSlice, LearnerState, Spaces
from engine.algorithms.impala import Impala, ImpalaConfig
from engine.algorithms.networks import PolicyValueNetwork
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.errors import ConfigError
from engine.layers.inputs import STATE, input_names
from engine.spec import CoreSpec, NetworkSpec

T, B = 7, 4
OBSERVATION = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Discrete(4, start=1)})
ACTION = spaces.Dict({"kind": spaces.MultiDiscrete([2, 3]), "size": spaces.Box(0, 1, (2,))})
SPACES = Spaces(OBSERVATION, ACTION, has_action_mask=True)
SIZES = {"rollout_steps": T, "batch_steps": T * B}


def network_spec(core: str) -> NetworkSpec:
    return NetworkSpec(hidden_sizes=(6,), core=CoreSpec(name=core, size=5))  # type: ignore[arg-type]


def make_ppo(core: str, **changes: float) -> Ppo:
    config = PpoConfig(**{**SIZES, "minibatch_steps": 2 * T, "num_epochs": 1, **changes})  # type: ignore[arg-type]
    return Ppo(config, network_spec(core), SPACES)


def make_algorithm(name: str, core: str) -> Ppo | Impala:
    if name == "ppo":
        return make_ppo(core)
    return Impala(ImpalaConfig(**SIZES), network_spec(core), SPACES)  # type: ignore[arg-type]


def in_doubles(state: LearnerState, scale: float = 30.0) -> PolicyValueNetwork:
    """A network in float64 whose outputs depend on its memory clearly."""
    network = state.network.double()
    assert isinstance(network, PolicyValueNetwork)
    with torch.no_grad():
        network.policy_head.weight.mul_(scale)
    return network


def collected(algorithm: Ppo | Impala, network: PolicyValueNetwork, seed: int) -> dict[str, Tensor]:
    """A batch as actors make it: step by step, with resets inside, from states other than zero."""
    generator = torch.Generator().manual_seed(seed)

    def reals(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    terminated, truncated = torch.zeros(T, B, dtype=torch.bool), torch.zeros(T, B, dtype=torch.bool)
    terminated[2, 0] = truncated[4, 1] = terminated[T - 1, 2] = truncated[0, 3] = True
    ended = terminated | truncated
    valid = torch.cat((torch.ones(1, B, dtype=torch.bool), ~ended[:-1]))
    mask = torch.rand(T + 1, B, 5, generator=generator) < 0.6
    mask[..., 0] = mask[..., 2] = True
    batch = {
        "observation.a": reals(T + 1, B, 3),
        "observation.b": torch.randint(1, 5, (T + 1, B), generator=generator),
        "action_mask": mask,
        "reward": reals(T, B),
        "terminated": terminated,
        "truncated": truncated,
        "valid": valid,
    }
    state = 0.5 * reals(B, algorithm.fields[-1].shape[0])
    batch[STATE] = state.unsqueeze(0)
    noise = algorithm.noise(generator, T, EnvSlice(0, B, B)).double()
    names = input_names(algorithm.fields)
    steps = []
    for t in range(T):
        inputs = {name: state if name == STATE else batch[name][t] for name in names}
        with torch.no_grad():
            chosen = algorithm.act(network, inputs, noise[t])
        steps.append(chosen)
        state = chosen[STATE] * valid[t].unsqueeze(1)
    for name in ("action", "log_prob"):
        batch[name] = torch.stack([step[name] for step in steps])
    return batch


def stepped(network: PolicyValueNetwork, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """ln pi(a_t | s_t) [T, B], entropies [T, B] and values [T+1, B], environment by environment."""
    assert network.core is not None
    log_probs, entropies, values = (torch.zeros(T + i, B, dtype=torch.float64) for i in (0, 0, 1))
    log_prob_rows, entropy_rows, value_rows = [], [], []
    for b in range(B):
        state = batch[STATE][0, b : b + 1]
        of_log_prob, of_entropy, of_value = [], [], []
        for t in range(T + 1):
            observation = {key: batch[f"observation.{key}"][t, b : b + 1] for key in ("a", "b")}
            mask = batch["action_mask"][t, b : b + 1]
            policy, state = network.step(observation, state, mask)
            of_value.append(network._value(state[:, : network.core.size]))
            if t < T:
                of_log_prob.append(policy.log_prob(batch["action"][t, b : b + 1]))
                of_entropy.append(policy.entropy())
                if not batch["valid"][t, b]:
                    state = torch.zeros_like(state)
        log_prob_rows.append(torch.cat(of_log_prob))
        entropy_rows.append(torch.cat(of_entropy))
        value_rows.append(torch.cat(of_value))
    log_probs, entropies = torch.stack(log_prob_rows, 1), torch.stack(entropy_rows, 1)
    values = torch.stack(value_rows, 1)
    return log_probs, entropies, values


@pytest.mark.parametrize("core", ["gru", "lstm"])
@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_what_an_actor_did_is_what_the_learner_computes(name: str, core: str):
    algorithm = make_algorithm(name, core)
    network = in_doubles(algorithm.init(0))
    batch = collected(algorithm, network, seed=1)
    log_prob, entropy, value = evaluate_rollouts(network, batch)
    wanted = stepped(network, batch)
    for found, right in zip((log_prob, entropy, value), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_prob.detach(), batch["log_prob"], rtol=0, atol=1e-12)
    without = {**batch, STATE: torch.zeros_like(batch[STATE])}
    other = evaluate_rollouts(network, without)[0]
    assert (other - log_prob).abs().max() > 1e-3, "the memory matters"


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_gradients_through_time_are_those_of_stepping(core: str):
    algorithm = make_algorithm("impala", core)
    network = in_doubles(algorithm.init(0))
    batch = collected(algorithm, network, seed=2)

    def gradients(terms: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        log_prob, entropy, value = terms
        network.zero_grad()
        weight = batch["valid"].double()
        ((weight * (log_prob * batch["reward"] + entropy)).sum() + value.square().sum()).backward()
        return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    found, wanted = gradients(evaluate_rollouts(network, batch)), gradients(stepped(network, batch))
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_a_minibatch_of_sequences_has_the_loss_of_its_steps(core: str):
    """Equation 9 over the valid steps of two of the environments, stepped one by one."""
    ppo = make_ppo(core)
    state = ppo.init(0)
    network = in_doubles(state)
    batch = collected(ppo, network, seed=3)
    batch["log_prob"] = batch["log_prob"] + 0.1 * torch.randn(T, B, dtype=torch.float64)
    prepared = ppo.prepare(state.network, batch)
    samples = {n: v.double() if v.is_floating_point() else v for n, v in prepared.items()}
    assert samples["advantage"].shape == (B, T)
    rows = torch.tensor([3, 0])
    loss, metrics = ppo.loss(network, {name: v[rows] for name, v in samples.items()})
    log_prob, entropy, value = (terms[:, rows] for terms in stepped(network, batch))
    weight = batch["valid"][:, rows].double() / batch["valid"][:, rows].sum()
    advantage, target = (samples[name][rows].t() for name in ("advantage", "value_target"))
    centred = advantage - (weight * advantage).sum()
    advantage = centred / ((weight * centred.square()).sum().sqrt() + 1e-8)
    ratio = (log_prob - batch["log_prob"][:, rows]).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    wanted = (
        -(weight * surrogate).sum()
        + 0.5 * (weight * (value[:-1] - target).square()).sum()
        - 0.01 * (weight * entropy).sum()
    )
    torch.testing.assert_close(loss, wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(metrics[2], (weight * entropy).sum().detach(), rtol=0, atol=1e-10)


def test_advantages_are_computed_from_values_with_memory():
    ppo = make_ppo("gru", discount=0.5, gae_lambda=0.0)
    state = ppo.init(0)
    network = in_doubles(state)
    batch = collected(ppo, network, seed=4)
    value = stepped(network, batch)[2].detach()
    delta = batch["reward"] + 0.5 * (~batch["terminated"]) * value[1:] - value[:-1]
    torch.testing.assert_close(ppo.prepare(state.network, batch)["advantage"].t(), delta)


def test_an_update_learns_and_every_sequence_is_used():
    ppo = make_ppo("gru", num_epochs=3)
    state = ppo.init(0)
    network = in_doubles(state)
    batch = {
        name: v.float() if v.is_floating_point() else v
        for name, v in collected(ppo, network, seed=5).items()
    }
    state = ppo.init(0)
    before = state.weights.vector.detach().clone()
    result = ppo.update(state, batch)
    assert result.samples_trained == 3 * int(batch["valid"].sum())
    assert state.num_updates == 3 * 2
    assert not torch.equal(before, state.weights.vector.detach())


def test_minibatches_are_whole_sequences():
    with pytest.raises(
        ConfigError, match="whole sequences of rollout_steps 7, of which 4"
    ) as error:
        make_ppo("gru", minibatch_steps=4)
    assert error.value.where == "algorithm.minibatch_steps"


def test_a_rollout_has_the_state_before_its_first_step_only():
    field = make_ppo("lstm").fields[-1]
    assert (field.name, field.shape, field.num_rows) == (STATE, (10,), 1)
    plain = Ppo(PpoConfig(), NetworkSpec(), Spaces(spaces.Box(-1, 1, (2,)), spaces.Discrete(2)))
    assert [f.name for f in plain.fields] == ["observation", "action", "log_prob"]


def test_greedy_actions_come_with_the_next_state():
    ppo = make_ppo("gru")
    network = ppo.init(0).network
    inputs = {
        "observation.a": torch.zeros(2, 3),
        "observation.b": torch.ones(2, dtype=torch.int64),
        "action_mask": torch.tensor([[False, True, False, False, True]] * 2),
        STATE: torch.zeros(2, 5),
    }
    chosen = ppo.act_greedily(network, inputs)
    assert not isinstance(chosen, Tensor)
    assert chosen["action"][:, :2].tolist() == [[1, 2], [1, 2]]
    assert chosen[STATE].shape == (2, 5)
    assert chosen[STATE].abs().max() > 0
