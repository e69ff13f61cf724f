"""Distributions against textbook formulas in float64, and against their own samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from engine.layers.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    draw_noise,
    make_distribution,
)
from engine.spaces.action_parts import ActionParts

MEAN = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64)
LOG_STD = torch.tensor([0.3, -0.7], dtype=torch.float64)


def sample(policy: DiagonalGaussian, num_states: int, seed: int) -> torch.Tensor:
    return policy.sample(policy.draw(torch.Generator().manual_seed(seed), (num_states, 2)))


def test_the_gaussian_density_is_that_of_the_textbook():
    action = torch.tensor([[0.0, -0.5], [2.5, 1.0]], dtype=torch.float64)
    wanted = np.zeros(2)
    for i in range(2):
        for d in range(2):
            std = math.exp(LOG_STD[d].item())
            z = (action[i, d].item() - MEAN[i, d].item()) / std
            wanted[i] += math.log(math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi)))
    found = DiagonalGaussian(MEAN, LOG_STD).log_prob(action)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)


def test_the_gaussian_entropy_is_the_mean_surprise():
    policy = DiagonalGaussian(MEAN[:1].expand(200_000, 2), LOG_STD)
    action = sample(policy, 200_000, 0)
    surprise = -policy.log_prob(action).mean().item()
    assert policy.entropy()[0].item() == pytest.approx(surprise, abs=0.01)
    wanted = sum(0.5 * math.log(2 * math.pi * math.e * math.exp(2 * s)) for s in (0.3, -0.7))
    assert policy.entropy()[0].item() == pytest.approx(wanted, abs=1e-6)


def test_gaussian_samples_have_its_mean_and_deviation():
    action = sample(DiagonalGaussian(MEAN[:1].expand(200_000, 2), LOG_STD), 200_000, 1)
    torch.testing.assert_close(action.mean(0), MEAN[0], rtol=0, atol=0.02)
    torch.testing.assert_close(action.std(0), LOG_STD.exp(), rtol=0, atol=0.02)


def test_categorical_figures_are_those_of_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]], dtype=torch.float64)
    policy = Categorical(logits)
    odds = np.exp(logits.numpy())
    shares = odds / odds.sum(1, keepdims=True)
    found = policy.log_prob(torch.tensor([2, 1]))
    np.testing.assert_allclose(found.numpy(), np.log([shares[0, 2], shares[1, 1]]), atol=1e-6)
    wanted = -(shares * np.log(shares)).sum(1)
    np.testing.assert_allclose(policy.entropy().numpy(), wanted, atol=1e-6)
    assert policy.mode().tolist() == [2, 0]


def test_equal_generators_give_equal_actions():
    policy = DiagonalGaussian(MEAN, LOG_STD)
    one, other = (sample(policy, 2, 3) for _ in range(2))
    assert torch.equal(one, other)


# Several entries, masks and both kinds at once: hypothesis chooses their sizes.

NVECS = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)


@st.composite
def any_parts(draw: st.DrawFn) -> ActionParts:
    nvec = draw(st.one_of(st.just(()), NVECS))
    num_reals = draw(st.integers(0 if nvec else 1, 3))
    is_scalar = len(nvec) == 1 and not num_reals and draw(st.booleans())
    return ActionParts(nvec, num_reals, is_scalar=is_scalar)


def any_mask(nvec: tuple[int, ...], count: int) -> st.SearchStrategy[Tensor]:
    """[count, sum of nvec], with a valid action in each entry."""

    def with_one(values: tuple[np.ndarray, np.ndarray]) -> Tensor:
        mask, chosen = values
        starts = np.cumsum([0, *nvec[:-1]])
        for row in range(count):
            mask[row, starts + chosen[row] % np.array(nvec)] = True
        return torch.from_numpy(mask)

    masks = hnp.arrays(bool, (count, sum(nvec)))
    chosen = hnp.arrays(np.int64, (count, len(nvec)), elements=st.integers(0, 59))
    return st.tuples(masks, chosen).map(with_one)


def entries_of(flat: Tensor, nvec: tuple[int, ...]) -> list[Tensor]:
    return list(flat.split(list(nvec), dim=-1))


def oracle(
    parts: ActionParts, outputs: Tensor, log_std: Tensor, mask: Tensor, action: Tensor
) -> tuple[Tensor, Tensor]:
    """ln pi(a | s) and entropy by torch.distributions: those of the entries, added up. A masked
    entry is the softmax over its valid actions alone, as sb3-contrib has it."""
    log_prob = entropy = torch.zeros(len(outputs), dtype=torch.float64)
    logits = entries_of(outputs[:, : parts.num_logits], parts.nvec)
    for i, (values, valid) in enumerate(zip(logits, entries_of(mask, parts.nvec), strict=True)):
        chosen = action.reshape(len(action), -1)[:, i].long()
        for n in range(len(values)):
            allowed = valid[n].nonzero().squeeze(-1)
            few = torch.distributions.Categorical(logits=values[n, allowed])
            place = (allowed == chosen[n]).nonzero().squeeze()
            log_prob, entropy = log_prob.clone(), entropy.clone()
            log_prob[n] += few.log_prob(place)
            entropy[n] += few.entropy()
    if parts.num_reals:
        normal = torch.distributions.Normal(outputs[:, parts.num_logits :], log_std.exp())
        reals = torch.distributions.Independent(normal, 1)
        log_prob = log_prob + reals.log_prob(action[:, len(parts.nvec) :])
        entropy = entropy + reals.entropy()
    return log_prob, entropy


@given(st.data(), any_parts(), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.1, 30))
@settings(deadline=None)
def test_log_probabilities_and_entropies_add_up(data, parts, count: int, seed: int, spread: float):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, parts.num_outputs)
    outputs = spread * torch.randn(*shape, generator=generator, dtype=torch.float64)
    log_std = torch.randn(parts.num_reals, generator=generator, dtype=torch.float64)
    is_masked = bool(parts.nvec) and data.draw(st.booleans())
    mask = data.draw(any_mask(parts.nvec, count)) if is_masked else None
    policy = make_distribution(parts, outputs, log_std, mask)
    action = policy.sample(draw_noise(parts, generator, (count,)))
    valid = torch.ones(count, parts.num_logits, dtype=torch.bool) if mask is None else mask
    log_prob, entropy = oracle(parts, outputs, log_std, valid, action)
    torch.testing.assert_close(policy.log_prob(action), log_prob, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(policy.entropy(), entropy, rtol=1e-6, atol=1e-6)
    num_columns = len(parts.nvec) + parts.num_reals
    assert action.shape == ((count,) if parts.is_scalar else (count, num_columns))
    assert action.dtype == (torch.float64 if parts.num_reals else torch.int64)
    best = policy.mode()
    assert (policy.log_prob(best) >= policy.log_prob(action) - 1e-9).all()
    assert best.shape == action.shape
    assert best.dtype == action.dtype


@given(st.data(), NVECS, st.integers(1, 4))
@settings(deadline=None)
def test_no_gradient_reaches_masked_logits(data, nvec: tuple[int, ...], count: int):
    mask = data.draw(any_mask(nvec, count))
    elements = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
    values = data.draw(hnp.arrays(np.float32, mask.shape, elements=elements))
    logits = torch.from_numpy(values).requires_grad_()
    policy = MultiCategorical(logits, nvec, mask)
    (policy.entropy().sum() + policy.log_prob(policy.mode()).sum()).backward()
    assert logits.grad is not None
    assert (logits.grad[~mask] == 0).all()


def test_gradients_of_valid_logits_are_those_of_the_softmax_over_them():
    nvec = (2, 2, 3)
    mask = torch.tensor([[1, 0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 1, 1]], dtype=torch.bool)
    action = torch.tensor([[0, 1, 2], [1, 0, 1]])

    def loss(values: Tensor) -> Tensor:
        policy = MultiCategorical(values, nvec, mask)
        return (policy.log_prob(action) * policy.entropy()).sum()

    logits = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (logits,))


def extreme(count: int) -> st.SearchStrategy[np.ndarray]:
    values = st.sampled_from([-3e38, -1e9, -1e8, -200.0, -1.0, 0.0, 1.0, 200.0, 1e9, 3e38])
    return hnp.arrays(np.float32, (2, count), elements=values)


NOISE = st.sampled_from([0.0, 1e-45, 1e-30, 1e-3, 1.0, 20.0])


@given(st.data(), NVECS, st.booleans())
@settings(deadline=None)
def test_a_masked_action_is_never_taken(data, nvec: tuple[int, ...], is_scalar: bool):
    """Whatever the logits, also if every valid probability or its noise rounds to 0."""
    nvec = nvec[:1] if is_scalar else nvec
    mask = data.draw(any_mask(nvec, 2))
    logits = torch.from_numpy(data.draw(extreme(sum(nvec))))
    noise = torch.from_numpy(data.draw(hnp.arrays(np.float32, (2, sum(nvec)), elements=NOISE)))
    policy = make_distribution(ActionParts(nvec, 0, is_scalar), logits, None, mask)
    starts = torch.tensor([0, *itertools.accumulate(nvec[:-1])])
    for action in (policy.sample(noise), policy.mode()):
        action = action.reshape(2, -1)
        assert (action < torch.tensor(nvec)).all()
        assert mask.gather(1, action + starts).all()
        assert not policy.log_prob(action.reshape(policy.mode().shape)).isnan().any()


@pytest.mark.parametrize("nvec", [(2, 5, 3), (4, 1, 4)])
def test_padding_is_no_action(nvec: tuple[int, ...]):
    """Entries of several sizes are padded; with the lowest logits and noise it is not chosen."""
    noise = torch.full((1, sum(nvec)), 1e30)
    for low in (0.0, -1e9, -3e38):
        policy = MultiCategorical(torch.full((1, sum(nvec)), low), nvec)
        for action in (policy.sample(noise), policy.mode()):
            assert (action < torch.tensor(nvec)).all()
        wanted = sum(math.log(n) for n in nvec)
        assert policy.entropy().item() == pytest.approx(wanted, abs=1e-5)


def test_an_output_that_is_no_number_is_seen():
    for mask in (None, torch.tensor([[True, False, True, True, True]])):
        logits = torch.tensor([[math.nan, 0.0, 1.0, 2.0, 3.0]])
        policy = MultiCategorical(logits, (2, 3), mask)
        assert policy.log_prob(policy.sample(torch.ones(1, 5))).isnan().all()


def chi_square(counts: np.ndarray, shares: np.ndarray) -> float:
    """The statistic over its degrees of freedom."""
    wanted = shares[shares > 0] * counts.sum()
    assert not counts[shares == 0].any()
    return float(((counts[shares > 0] - wanted) ** 2 / wanted).sum() / max(1, len(wanted) - 1))


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("nvec", [(3, 3), (2, 5, 3)])
def test_samples_have_the_frequencies_of_the_policy(nvec: tuple[int, ...], is_masked: bool):
    num_samples, width = 100_000, sum(nvec)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, width, generator=generator)
    mask = torch.ones(1, width, dtype=torch.bool)
    if is_masked:
        mask[0, 1] = mask[0, -1] = False
    policy = MultiCategorical(
        logits.expand(num_samples, -1), nvec, mask.expand(num_samples, -1) if is_masked else None
    )
    noise = draw_noise(ActionParts(nvec, 0), generator, (num_samples,))
    actions = policy.sample(noise)
    shares = [
        torch.softmax(values.masked_fill(~valid, -math.inf), -1)[0].numpy()
        for values, valid in zip(entries_of(logits, nvec), entries_of(mask, nvec), strict=True)
    ]
    for i, n in enumerate(nvec):
        counts = np.bincount(actions[:, i].numpy(), minlength=n)
        assert chi_square(counts, shares[i]) < 5
    # Entries are independent: the frequencies of pairs are products.
    pairs = actions[:, 0] * nvec[1] + actions[:, 1]
    counts = np.bincount(pairs.numpy(), minlength=nvec[0] * nvec[1])
    assert chi_square(counts, np.outer(shares[0], shares[1]).ravel()) < 5


def test_noise_has_an_entry_for_each_output():
    generator = torch.Generator().manual_seed(0)
    noise = draw_noise(ActionParts((2, 3), 2), generator, (20_000, 1))
    assert noise.shape == (20_000, 1, 7)
    assert noise.dtype == torch.float32
    torch.testing.assert_close(
        noise.mean((0, 1)), torch.tensor([1.0] * 5 + [0, 0]), atol=0.05, rtol=0
    )
    assert (noise[..., :5] >= 0).all()


def test_lone_kinds_draw_the_noise_that_they_always_drew():
    for parts, kind in [
        (ActionParts((4,), 0, is_scalar=True), Categorical),
        (ActionParts((), 4), DiagonalGaussian),
    ]:
        one, other = (torch.Generator().manual_seed(5) for _ in range(2))
        assert torch.equal(draw_noise(parts, one, (3, 2)), kind.draw(other, (3, 2, 4)))


def steps_of(policy: Distribution, noise: Tensor) -> tuple[Tensor, ...]:
    action = policy.sample(noise)
    return action, policy.log_prob(action), policy.entropy(), policy.mode()


def act(parts: ActionParts, is_masked: bool):
    def function(outputs: Tensor, log_std: Tensor, mask: Tensor, noise: Tensor):
        policy = make_distribution(parts, outputs, log_std, mask if is_masked else None)
        return steps_of(policy, noise)

    return function


PARTS = [
    ActionParts((3,), 0, is_scalar=True),
    ActionParts((3, 3), 0),
    ActionParts((3, 3, 2, 5), 0),
    ActionParts((), 3),
    ActionParts((2, 4), 2),
]


def arguments(parts: ActionParts) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(6, parts.num_outputs, generator=generator)
    mask = torch.rand(6, parts.num_logits, generator=generator) < 0.5
    mask[:, list(itertools.accumulate((0, *parts.nvec)))[:-1]] = True
    return outputs, torch.zeros(parts.num_reals), mask, draw_noise(parts, generator, (6,))


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_a_trace_reads_no_tensor_beside_its_arguments(parts: ActionParts, is_masked: bool):
    """Otherwise acting and learning could not be compiled (engine.compilation.tracing)."""
    function, given_ = act(parts, is_masked), arguments(parts)
    graph = make_fx(function, tracing_mode="fake")(*given_)
    assert not [node for node in graph.graph.nodes if node.op == "get_attr"]
    for found, wanted in zip(graph(*given_), function(*given_), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (PARTS[0], "_log_softmax exp div argmax unsqueeze gather squeeze"),
        (PARTS[1], "view _log_softmax view exp div argmax unsqueeze gather squeeze sum"),
        (PARTS[3], "exp addcmul sub neg exp mul pow mul add add sum neg"),
    ],
    ids=["Discrete", "equal entries", "Box"],
)
def test_a_plain_policy_costs_no_more_operations(parts: ActionParts, wanted: str):
    """The hot path of an actor takes what it took before there were masks and several entries."""

    def sample(outputs: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        policy = make_distribution(parts, outputs, log_std)
        action = policy.sample(noise)
        return action, policy.log_prob(action)

    outputs, log_std, _, noise = arguments(parts)
    nodes = make_fx(sample)(outputs, log_std, noise).graph.nodes
    found = [node.target.__name__ for node in nodes if node.op == "call_function"]
    names = [name.partition(".")[0] for name in found if not name.startswith(("detach", "alias"))]
    assert " ".join(names) == wanted
