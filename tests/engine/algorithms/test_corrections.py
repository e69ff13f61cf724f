"""Corrections for stale samples: none where nothing is stale, and what they do where it is."""

from __future__ import annotations

import copy
import math

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from engine.algorithms.base import EnvSlice, LearnerState, Spaces
from engine.algorithms.impala import Impala, ImpalaConfig
from engine.algorithms.networks import PolicyValueNetwork
from engine.algorithms.off_policy.corrections import (
    LAG_WEIGHT,
    PROXIMAL,
    effective_share,
    lag_weights,
)
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.registry import make_algorithm
from engine.algorithms.replicas import SINGLE_REPLICA, SingleReplica
from engine.algorithms.returns import generalized_advantages, vtrace, vtrace_of_actions
from engine.blueprint import Blueprint, make_blueprint
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.layers.inputs import STATE
from engine.spec import CoreSpec, Experiment, NetworkSpec, StalenessSpec
from engine.testing import discrete_spaces, make_experiment
from tests.helpers.engine.policy_by_hand import make_batch

T, B = 6, 4
SIZES = {"rollout_steps": T, "batch_steps": T * B}
NETWORK = NetworkSpec(hidden_sizes=(8, 8))
CONTINUOUS = Spaces(discrete_spaces().observation, gymnasium.spaces.Box(-1, 1, (2,)))
CORRECTIONS = {
    "decoupled": {"decoupled": True},
    "V-trace": {"advantages": "vtrace"},
    "learning rate": {"ess_learning_rate": 0.5},
    "weights": {"lag_weights": True},
    "all": {
        **{"decoupled": True, "advantages": "vtrace", "max_importance": 1.0},
        **{"ess_learning_rate": 0.5, "lag_weights": True},
    },
}
EACH = pytest.mark.parametrize("options", CORRECTIONS.values(), ids=list(CORRECTIONS))


def ppo(spaces: Spaces | None = None, network: NetworkSpec = NETWORK, **options: object) -> Ppo:
    config = PpoConfig(**{**SIZES, "minibatch_steps": 12, "num_epochs": 3, **options})  # type: ignore[arg-type]
    return Ppo(config, network, spaces or discrete_spaces())


def doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}


def chosen_by(algorithm: Ppo, state: LearnerState, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch with what this policy does in its states."""
    noise = algorithm.noise(torch.Generator().manual_seed(5), T, EnvSlice(0, B, B))
    memory = torch.randn((1, B, 6), generator=torch.Generator().manual_seed(6)) * 0.3
    steps, s_t = [], memory[0]
    for t in range(T):
        inputs = batch["observation"][t]
        with torch.no_grad():
            if algorithm._state_size:
                step = algorithm.act(state.network, {"observation": inputs, STATE: s_t}, noise[t])
                s_t = step.pop(STATE) * batch["valid"][t].float()[:, None]
            else:
                step = algorithm.act(state.network, inputs, noise[t])
        steps.append(step)
    chosen = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
    return {**batch, **chosen, **({STATE: memory} if algorithm._state_size else {})}


# The effective sample size.


def test_of_equal_ratios_every_sample_counts():
    for log_ratio in (0.0, -3.0, 7.5):
        ratios = torch.full((5, 3), log_ratio, dtype=torch.float64)
        share = effective_share(ratios, torch.ones(5, 3, dtype=torch.bool), SINGLE_REPLICA)
        assert share == pytest.approx(1.0, abs=1e-12)


def test_of_one_large_ratio_one_sample_counts():
    log_ratio = torch.full((40,), -30.0, dtype=torch.float64)
    log_ratio[7] = 3.0
    assert effective_share(log_ratio, torch.ones(40), SINGLE_REPLICA) == pytest.approx(1 / 40)
    log_ratio[7] = 1e4  # whose square is infinite in any precision
    assert effective_share(log_ratio, torch.ones(40), SINGLE_REPLICA) == pytest.approx(1 / 40)


def test_the_effective_sample_size_is_that_of_the_valid_steps():
    random = np.random.default_rng(1)
    log_ratio, valid = random.normal(size=(6, 4)), random.random((6, 4)) < 0.7
    ratio = np.exp(log_ratio[valid])
    wanted = ratio.sum() ** 2 / (ratio**2).sum() / valid.sum()
    log_ratio[~valid] = 1e300
    found = effective_share(torch.from_numpy(log_ratio), torch.from_numpy(valid), SINGLE_REPLICA)
    assert found == pytest.approx(wanted, abs=1e-12)
    assert effective_share(torch.zeros(3), torch.zeros(3), SINGLE_REPLICA) == 1.0


def test_learners_with_shares_of_a_batch_count_it_together():
    class Twice(SingleReplica):
        def sum(self, values: Tensor) -> Tensor:
            return values + torch.tensor([2.0, 2 * 3.0, 2 * 9.0], dtype=values.dtype)

    found = effective_share(torch.zeros(4, dtype=torch.float64), torch.ones(4), Twice())
    assert found == pytest.approx((4 + 6) ** 2 / (4 + 18) / 6)


# V-trace for PPO.


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    discount=st.floats(0, 1),
    trace_lambda=st.floats(0, 1),
    end_share=st.sampled_from((0.0, 0.1, 0.5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_with_ratios_of_one_targets_and_advantages_are_generalised_ones(
    discount: float, trace_lambda: float, end_share: float, seed: int
):
    random = np.random.default_rng(seed)
    reward, value = random.normal(size=(T, B)), random.normal(size=(T + 1, B))
    ends = [torch.from_numpy(random.random((T, B)) < end_share) for _ in range(2)]
    sample = torch.from_numpy(reward), torch.from_numpy(value), *ends
    wanted = generalized_advantages(*sample, discount=discount, gae_lambda=trace_lambda)
    ones = torch.zeros(T, B, dtype=torch.float64)
    found = vtrace_of_actions(ones, *sample, discount=discount, trace_lambda=trace_lambda)
    torch.testing.assert_close(found.advantage, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.value_target, wanted + sample[1][:-1], rtol=0, atol=1e-12)


def test_with_lambda_of_one_the_advantages_are_those_of_the_paper_but_for_rho():
    random = np.random.default_rng(3)
    log_ratio, reward = (torch.from_numpy(random.normal(size=(T, B))) for _ in range(2))
    value = torch.from_numpy(random.normal(size=(T + 1, B)))
    ends = [torch.from_numpy(random.random((T, B)) < 0.1) for _ in range(2)]
    levels = {"discount": 0.9, "trace_lambda": 1.0, "max_rho": 1.3, "max_c": 1.1}
    paper = vtrace(log_ratio, reward, value, *ends, **levels)
    found = vtrace_of_actions(log_ratio, reward, value, *ends, **levels)
    rho = log_ratio.exp().clamp(max=1.3)
    torch.testing.assert_close(rho * found.advantage, paper.advantage, rtol=0, atol=1e-12)
    assert torch.equal(found.value_target, paper.value_target)


def test_a_truncated_ratio_looks_ahead_by_lambda_as_a_double_sum_does():
    """The advantage of a step, from the definition of its target, step by step."""
    random = np.random.default_rng(4)
    log_ratio, reward = random.normal(size=T), random.normal(size=T)
    value = random.normal(size=T + 1)
    discount, trace_lambda, max_rho, max_c = 0.9, 0.7, 1.4, 1.2
    ratio = np.exp(log_ratio)
    targets = value.copy()  # vs_T = v(s_T)
    for t in reversed(range(T)):
        delta = min(max_rho, ratio[t]) * (reward[t] + discount * value[t + 1] - value[t])
        trace = discount * trace_lambda * min(max_c, ratio[t])
        targets[t] = value[t] + delta + trace * (targets[t + 1] - value[t + 1])
    ahead = trace_lambda * targets[1:] + (1 - trace_lambda) * value[1:]
    never = torch.zeros(T, 1, dtype=torch.bool)
    column = (torch.from_numpy(v).unsqueeze(1) for v in (log_ratio, reward, value))
    found = vtrace_of_actions(
        *column,
        *(never, never),
        discount=discount,
        trace_lambda=trace_lambda,
        max_rho=max_rho,
        max_c=max_c,
    )
    np.testing.assert_allclose(found.value_target[:, 0].numpy(), targets[:-1], atol=1e-12)
    wanted = reward + discount * ahead - value[:-1]
    np.testing.assert_allclose(found.advantage[:, 0].numpy(), wanted, atol=1e-12)


# At lag 0 nothing is corrected.


@EACH
@pytest.mark.parametrize("core", [None, CoreSpec(name="gru", size=6)], ids=["", "gru"])
@pytest.mark.parametrize("spaces", [discrete_spaces(), CONTINUOUS], ids=["discrete", "continuous"])
def test_what_the_policy_did_itself_is_learnt_as_without_corrections(
    options: dict[str, object], core: CoreSpec | None, spaces: Spaces
):
    network = replace(NETWORK, core=core)
    plain, corrected = ppo(spaces, network), ppo(spaces, network, **options)
    states = plain.init(3), corrected.init(3)
    batch = chosen_by(plain, states[0], make_batch(is_discrete=spaces is not CONTINUOUS))
    states[1].version = 7
    results = [
        plain.update(states[0], batch),
        corrected.update(states[1], {**batch, "version": torch.full((B,), 7)}),
    ]
    start = plain.init(3).weights.vector
    assert (states[0].weights.vector - start).abs().max() > 1e-4, "something was learnt"
    torch.testing.assert_close(
        states[1].weights.vector, states[0].weights.vector, rtol=0, atol=1e-6
    )
    for name, value in results[0].metrics.items():
        assert results[1].metrics[name] == pytest.approx(value, abs=1e-6)


@EACH
def test_what_older_policies_did_is_learnt_differently(options: dict[str, object]):
    plain, corrected, batch = ppo(), ppo(**options), make_batch()
    states = plain.init(3), corrected.init(3)
    states[1].version = 7
    plain.update(states[0], batch)
    corrected.update(states[1], {**batch, "version": torch.tensor([7, 4, 0, 6])})
    assert (states[0].weights.vector - states[1].weights.vector).abs().max() > 1e-5


# The decoupled loss.


def decoupled_scene(spaces: Spaces) -> tuple[Ppo, LearnerState, dict[str, Tensor]]:
    """In double precision, with a policy that has moved since it became the proximal one."""
    algorithm = ppo(spaces, decoupled=True, max_importance=1.5, normalize_advantage=False)
    state = algorithm.init(3)
    network = state.network.double()
    random = torch.Generator().manual_seed(8)
    batch = chosen_by(ppo(spaces), ppo(spaces).init(3), make_batch())
    batch["log_prob"] += 0.5 * torch.randn(T, B, generator=random)
    samples = doubled(algorithm.prepare(network, doubled(batch)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=random).double()
    return algorithm, state, samples


@pytest.mark.parametrize("spaces", [discrete_spaces(), CONTINUOUS], ids=["discrete", "continuous"])
def test_the_gradient_of_the_decoupled_loss_is_that_of_the_paper(spaces: Spaces):
    """Of equation 3 of Hilton et al. (2021), from gradients of ln pi of single samples:

    - 1/N sum_i min(w_i, limit) [the minimum is not the clipped term] ratio_i A_i grad ln pi_i
    """
    algorithm, state, samples = decoupled_scene(spaces)
    network = state.network
    assert isinstance(network, PolicyValueNetwork)
    config = algorithm._config
    parameters = [p for n, p in network.named_parameters() if n.startswith(("policy", "log_std"))]
    policy, _ = network.evaluate(samples["observation"])
    log_prob = policy.log_prob(samples["action"])
    anchor, advantage = samples[PROXIMAL], samples["advantage"]
    importance = (anchor - samples["log_prob"]).exp()
    ratio = (log_prob - anchor).exp()
    assert (importance > 1.5).any(), "some weights are truncated"
    assert (importance < 1.5).any(), "not all"
    wanted = [torch.zeros_like(p) for p in parameters]
    count, num_clipped = int(samples["valid"].sum()), 0
    for i in range(len(log_prob)):
        if not samples["valid"][i]:
            continue
        is_above = bool(advantage[i] > 0 and ratio[i] > 1 + config.clip_range)
        is_below = bool(advantage[i] < 0 and ratio[i] < 1 - config.clip_range)
        if is_above or is_below:
            num_clipped += 1
            continue
        factor = importance[i].clamp(max=1.5) * ratio[i] * advantage[i] / count
        slopes = torch.autograd.grad(log_prob[i], parameters, retain_graph=True)
        for total, slope in zip(wanted, slopes, strict=True):
            total -= factor.detach() * slope
    assert num_clipped > 0
    only_policy = replace(config, value_coefficient=0.0, entropy_coefficient=0.0)
    algorithm._config = only_policy
    loss, _ = algorithm.loss(network, samples)
    found = torch.autograd.grad(loss, parameters)
    for gradient, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=1e-12)
        assert right.abs().max() > 1e-4


def test_the_gradient_of_the_decoupled_loss_is_its_slope():
    """By finite differences of all of the loss, in double precision."""
    algorithm, state, samples = decoupled_scene(discrete_spaces())
    named = dict(state.network.named_parameters())

    def loss(*values: Tensor) -> Tensor:
        network = copy.deepcopy(state.network)
        given = dict(zip(named, values, strict=True))
        bound = torch.func.functional_call(
            _Bound(algorithm, network), {f"network.{n}": v for n, v in given.items()}, (samples,)
        )
        assert isinstance(bound, Tensor)
        return bound

    values = tuple(p.detach().clone().requires_grad_() for p in named.values())
    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


class _Bound(torch.nn.Module):
    def __init__(self, algorithm: Ppo, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self._algorithm = network, algorithm

    def forward(self, samples: dict[str, Tensor]) -> Tensor:
        return self._algorithm.loss(self.network, samples)[0]


def test_the_ratio_of_a_decoupled_loss_is_clipped_around_the_proximal_policy():
    """At arrival nothing is clipped, however far away the policy was that acted."""
    algorithm, batch = ppo(decoupled=True, max_importance=9.0), make_batch()
    batch["log_prob"] -= 1.0
    state = algorithm.init(3)
    samples = algorithm.prepare(state.network, batch)
    log_ratio = samples[PROXIMAL] - samples["log_prob"]
    assert (log_ratio > math.log(1 + algorithm._config.clip_range)).all()
    _, metrics = algorithm.loss(state.network, samples)
    assert float(metrics[-1]) == pytest.approx(0.0, abs=1e-6)
    samples["advantage"] = torch.ones_like(samples["advantage"])
    options = {"value_coefficient": 0.0, "entropy_coefficient": 0.0, "normalize_advantage": False}
    for is_decoupled in (False, True):
        loss, _ = ppo(decoupled=is_decoupled, **options).loss(state.network, samples)
        (gradient,) = torch.autograd.grad(loss, [*state.network.parameters()][:1])
        assert bool(gradient.any()) is is_decoupled


# The learning rate.


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_the_learning_rate_follows_the_effective_sample_size(name: str, exponent: float):
    def algorithm(**options: float) -> Ppo | Impala:
        if name == "ppo":
            return ppo(num_epochs=1, minibatch_steps=24, **options)
        return Impala(ImpalaConfig(**SIZES, **options), NETWORK, discrete_spaces())  # type: ignore[arg-type]

    batch = make_batch()
    plain, scaled = algorithm(), algorithm(ess_learning_rate=exponent)
    states = plain.init(3), scaled.init(3)
    start = states[0].weights.vector.detach().clone()
    plain.update(states[0], batch)
    metrics = scaled.update(states[1], batch).metrics
    network = plain.init(3).network
    assert isinstance(network, PolicyValueNetwork)
    policy = network.distribution(batch["observation"][:-1].flatten(0, 1))
    log_ratio = policy.log_prob(batch["action"].flatten()) - batch["log_prob"].flatten()
    ratio = log_ratio.detach().double().numpy()[batch["valid"].flatten().numpy()]
    ratio = np.exp(ratio)
    wanted = (ratio.sum() ** 2 / (ratio**2).sum() / len(ratio)) ** exponent
    assert wanted < 0.99
    assert metrics["rate_factor"] == pytest.approx(wanted, rel=1e-5)
    moved = [state.weights.vector - start for state in states]
    torch.testing.assert_close(moved[1], moved[0] * wanted, rtol=1e-3, atol=1e-7)


# Weights by lag.


def test_weights_are_those_of_the_lag_of_each_environment():
    batch = {**make_batch(), "version": torch.tensor([7, 6, 4, 0])}
    wanted = torch.tensor([1, 1 / 2, 1 / 4, 1 / 8]).expand(T, B)
    torch.testing.assert_close(lag_weights(batch, 7), wanted)
    assert lag_weights(batch, 7).is_contiguous(), "as compiled steps expect"
    assert torch.equal(lag_weights(make_batch(), 7), torch.ones(T, B)), "without versions"


def test_a_step_with_half_the_weight_counts_half_as_often():
    """As if each other one was there twice."""
    weighted = ppo(lag_weights=True, normalize_advantage=True)
    state = weighted.init(3)
    batch = {**make_batch(), "version": torch.tensor([7, 6, 7, 6])}
    samples = weighted.prepare(state.network, batch, version=7)
    rows = torch.arange(T * B).view(T, B)
    twice = torch.cat((rows[:, 0::2].flatten(), rows[:, 0::2].flatten(), rows[:, 1::2].flatten()))
    repeated = {name: values[twice] for name, values in samples.items() if name != LAG_WEIGHT}
    found, wanted = weighted.loss(state.network, samples), ppo().loss(state.network, repeated)
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-6)


def test_impala_weights_steps_as_ppo_does():
    config = ImpalaConfig(**SIZES)  # type: ignore[arg-type]
    plain = Impala(config, NETWORK, discrete_spaces())
    weighted = Impala(replace(config, lag_weights=True), NETWORK, discrete_spaces())
    batch = make_batch()
    states = [plain.init(3) for _ in range(3)]
    versions = torch.tensor([0, 10**6, 10**6, 10**6])
    states[0].version = 10**6
    weighted.update(states[0], {**batch, "version": versions})
    young = {name: values[:, 1:] for name, values in batch.items()}
    plain.update(states[1], young)
    torch.testing.assert_close(
        states[0].weights.vector, states[1].weights.vector, rtol=0, atol=2e-6
    )
    states[2].version = 10**6
    weighted.update(states[2], {**batch, "version": torch.full((4,), 3)})
    one_age = plain.init(3)
    plain.update(one_age, batch)
    torch.testing.assert_close(states[2].weights.vector, one_age.weights.vector, rtol=0, atol=2e-6)


# What they allow.


def experiment(mode: str, policy: str = "tianji", **options: object) -> Experiment:
    made = make_experiment(staleness=StalenessSpec(mode=mode), **options)  # type: ignore[arg-type]
    return replace(made, policy=policy)


def planned(made: Experiment) -> Blueprint:
    graph = build_graph(read_policy(made.policy), made)
    return make_blueprint(replace(made, staleness=graph.cut.staleness), graph.cut)


@pytest.mark.parametrize("name", ["decoupled", "V-trace", "all"])
def test_with_those_that_correct_ppo_needs_no_bound(name: str):
    options = CORRECTIONS[name]
    assert make_algorithm(experiment("correct", **options), discrete_spaces())
    assert planned(experiment("block", "impala", **options)).algorithm.samples().corrects_staleness


@pytest.mark.parametrize(
    "options", [{}, {"ess_learning_rate": 0.5}, {"lag_weights": True}], ids=str
)
def test_without_them_the_error_says_what_to_set(options: dict[str, object]):
    with pytest.raises(ConfigError, match="ppo does not correct") as error:
        make_algorithm(experiment("correct", **options), discrete_spaces())
    assert error.value.where == "staleness.mode"
    wanted = "set algorithm.decoupled=true or algorithm.advantages=vtrace, or another mode"
    assert error.value.fix == wanted
    with pytest.raises(ConfigError, match="impala does not suit ppo") as error:
        planned(experiment("block", "impala", **options))
    assert str(error.value.fix).endswith(
        "or set algorithm.decoupled=true or algorithm.advantages=vtrace"
    )


def test_truncation_levels_are_in_order():
    with pytest.raises(ConfigError, match="max_rho") as error:
        ppo(max_rho=0.5)
    assert error.value.where == "algorithm.max_rho"
