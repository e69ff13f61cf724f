"""Diagnostics of importance ratios: by hand in float64, and in the places where they belong."""

from __future__ import annotations

import itertools
import math

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from engine.algorithms.base import EnvSlice, Spaces
from engine.algorithms.dqn import Dqn, DqnConfig
from engine.algorithms.impala import Impala, ImpalaConfig
from engine.algorithms.off_policy.ratios import (
    EVERY_STEPS,
    EVERY_UPDATES,
    WINDOW,
    LogRatios,
    is_due,
    lag_bins,
    summarise,
)
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.teams.ippo import Ippo, IppoConfig
from engine.spec import CoreSpec, NetworkSpec
from engine.testing import discrete_spaces
from tests.helpers.engine.policy_by_hand import make_batch
from tests.helpers.engine.replica_learners import learn_together, one_thread
from tests.helpers.engine.team_batches import B as TEAM_B
from tests.helpers.engine.team_batches import T as TEAM_T
from tests.helpers.engine.team_batches import collect, unlike

T, B = 6, 4
NETWORK = NetworkSpec(hidden_sizes=(8, 8))
SIZES = {"rollout_steps": T, "batch_steps": T * B}
PPO = {**SIZES, "minibatch_steps": 12, "num_epochs": 3}
CONTINUOUS = Spaces(discrete_spaces().observation, gymnasium.spaces.Box(-1, 1, (2,)))

_one_thread = pytest.fixture(autouse=True)(one_thread)


def by_hand(log_ratio: np.ndarray, limits: tuple[float, float] | None) -> dict[str, float]:
    ratio = np.exp(log_ratio)
    found = {
        "ess": ratio.sum() ** 2 / (ratio**2).sum() / len(ratio),
        "ratio_max": ratio.max(),
        "behaviour_kl": (ratio - 1 - log_ratio).mean(),
    }
    if limits is not None:
        out = (log_ratio < limits[0] - 1e-3) | (log_ratio > limits[1] + 1e-3)
        found["clip_fraction"] = out.mean()
    return found


@settings(deadline=None, max_examples=40, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), has_agents=st.booleans(), is_clipped=st.booleans())
def test_statistics_are_those_of_the_samples_of_each_lag(
    seed: int, has_agents: bool, is_clipped: bool
):
    random = np.random.default_rng(seed)
    shape = (T, B, 3) if has_agents else (T, B)
    last, first = (random.normal(size=shape) * 0.5 for _ in range(2))
    last[random.random(shape) < 0.2] = np.nan
    first[random.random(shape) < 0.6] = np.nan
    lag = random.choice([0, 1, 2, 9, 12, 40], size=B)
    limits = (math.log(0.8), math.log(1.2)) if is_clipped else None
    ratios = LogRatios(torch.from_numpy(first), torch.from_numpy(last), limits)
    found = summarise(ratios, lag)
    assert found is not None
    wanted = by_hand(last[~np.isnan(last)], limits)
    there = np.abs(first[~np.isnan(first)])
    if len(there):
        wanted["log_ratio_first"] = there.mean()
    assert found.metrics == pytest.approx(wanted, abs=1e-6)
    bins = {lag_: {0: 0, 1: 1, 2: 2, 9: 8, 12: 8, 40: 32}[lag_] for lag_ in lag.tolist()}
    for least in set(bins.values()):
        columns = [i for i, own in enumerate(lag.tolist()) if bins[own] == least]
        own, before = last[:, columns], first[:, columns]
        own, before = own[~np.isnan(own)], before[~np.isnan(before)]
        if len(own):
            assert found.by_lag["ratios_by_lag"][least] == len(own)
            for name, value in by_hand(own, limits).items():
                assert found.by_lag[f"{name}_by_lag"][least] == pytest.approx(value, abs=1e-6)
        if len(before):
            of_bin = found.by_lag["log_ratio_first_by_lag"][least]
            assert of_bin == pytest.approx(np.abs(before).max(), abs=1e-6)


def test_of_ratios_of_one_every_sample_counts():
    zeros = torch.zeros(T, B, dtype=torch.float64)
    found = summarise(LogRatios(zeros, zeros, (-0.1, 0.1)), np.zeros(B, dtype=np.int64))
    assert found is not None
    assert found.metrics == {
        **{"ess": 1.0, "ratio_max": 1.0, "behaviour_kl": 0.0, "clip_fraction": 0.0},
        "log_ratio_first": 0.0,
    }
    assert found.by_lag["ess_by_lag"] == {0: 1.0}
    assert found.by_lag["ratios_by_lag"] == {0: T * B}


def test_acting_and_learning_are_compared_by_the_mean_over_samples_of_lag_0():
    first = torch.zeros(T, B, dtype=torch.float64)
    first[0, 0] = -0.9
    first[:, 1] = 5.0
    lag = np.array([0, 1, 0, 0])
    found = summarise(LogRatios(first, first), lag)
    assert found is not None
    assert found.by_lag["log_ratio_first_by_lag"][0] == 0.9, "the largest"
    assert found.mismatch == pytest.approx(0.9 / (3 * T))
    found = summarise(LogRatios(first, first), lag + 1)
    assert found is not None
    assert found.mismatch is None


def test_where_no_sample_counts_there_is_nothing_to_say():
    nothing = torch.full((T, B), math.nan)
    assert summarise(LogRatios(nothing, nothing), np.zeros(B, dtype=np.int64)) is None


def test_ratios_beyond_any_number_stay_finite():
    huge = torch.full((T, B), 0.0)
    huge[0, 0] = 1e30
    found = summarise(LogRatios(huge, huge), np.zeros(B, dtype=np.int64))
    assert found is not None
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert found.metrics["ess"] == pytest.approx(1 / (T * B), rel=1e-3)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_does_not_count(value: float):
    last = torch.full((T, B), 0.5)
    last[0, 0] = value
    found = summarise(LogRatios(last, last, (-0.1, 0.1)), np.zeros(B, dtype=np.int64))
    assert found is not None
    assert found.by_lag["ratios_by_lag"] == {0: T * B - 1}
    assert found.by_lag["behaviour_kl_by_lag"] == pytest.approx({0: math.exp(0.5) - 1.5})
    assert found.mismatch == 0.5


def test_bins_are_exact_for_small_lags_and_double_then():
    lags = [0, 1, 7, 8, 15, 16, 31, 32, 1023, 1024]
    assert lag_bins(np.array(lags)).tolist() == [0, 1, 7, 8, 8, 16, 16, 32, 512, 1024]


def test_the_first_batches_and_one_in_so_many_optimiser_steps_then_are_summed_up():
    for size, period in ((1, EVERY_UPDATES), (7, 1024), (16, 1024), (1024, 1024), (1300, 1024)):
        state = Ppo(PpoConfig(**PPO), NETWORK, discrete_spaces()).init(3)
        state.num_updates = 10_000  # as of a resumed run: what it judges by begins anew
        due = []
        for number in range(WINDOW + 10 * EVERY_STEPS // size + 10 * EVERY_UPDATES):
            if is_due(state, size):
                state.num_diagnosed += 1
                due.append(number * size)
            state.num_updates += size
        assert due[:WINDOW] == [number * size for number in range(WINDOW)]
        gaps = {after - before for before, after in itertools.pairwise(due[WINDOW:])}
        assert max(gaps) < period + size
        assert min(gaps) >= max(size, period - size)


# What algorithms report.


def acted(algorithm: Ppo | Impala, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    state = algorithm.init(3)
    noise = algorithm.noise(torch.Generator().manual_seed(5), T, EnvSlice(0, B, B))
    with torch.no_grad():
        steps = [algorithm.act(state.network, batch["observation"][t], noise[t]) for t in range(T)]
    return {**batch, **{name: torch.stack([step[name] for step in steps]) for name in steps[0]}}


@pytest.mark.parametrize("spaces", [discrete_spaces(), CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", ["ppo", "impala"])
def test_before_the_first_step_a_policy_is_the_one_that_acted(name: str, spaces: Spaces):
    algorithm = (
        Ppo(PpoConfig(**PPO), NETWORK, spaces)
        if name == "ppo"
        else Impala(ImpalaConfig(**SIZES), NETWORK, spaces)
    )
    batch = acted(algorithm, make_batch(is_discrete=spaces is not CONTINUOUS))
    state = algorithm.init(3)
    ratios = algorithm.update(state, batch).ratios
    assert ratios is not None
    valid = batch["valid"]
    for of_steps in (ratios.first, ratios.last):
        assert torch.equal(of_steps.isnan(), ~valid)
    assert ratios.first[valid].abs().max() <= 1e-6
    assert ratios.last[valid].abs().max() > 1e-4, "the policy has moved since"


def test_in_bfloat16_acting_and_learning_disagree_by_little():
    """The last parameters are rounded for each batch size alike, the sums of products are not."""
    network = NetworkSpec(hidden_sizes=(64, 64), precision="bfloat16", policy_gain=1.0)
    algorithm = Ppo(PpoConfig(**PPO), network, discrete_spaces())
    ratios = algorithm.update(algorithm.init(3), acted(algorithm, make_batch())).ratios
    assert ratios is not None
    assert float(ratios.first.nan_to_num().abs().max()) < 0.05


@pytest.mark.parametrize("decoupled", [False, True])
def test_ratios_are_those_to_the_policy_that_acted(decoupled: bool):
    algorithm = Ppo(PpoConfig(**PPO, decoupled=decoupled), NETWORK, discrete_spaces())
    batch = make_batch()
    state = algorithm.init(3)

    def wanted() -> Tensor:
        with torch.no_grad():
            policy, _ = state.network.evaluate(batch["observation"][:-1].flatten(0, 1))
            log_prob = policy.log_prob(batch["action"].flatten()).view(T, B)
        return (log_prob - batch["log_prob"]).where(batch["valid"], math.nan)

    before = wanted()
    ratios = algorithm.update(state, batch).ratios
    assert ratios is not None
    torch.testing.assert_close(ratios.first, before, equal_nan=True)
    torch.testing.assert_close(ratios.last, wanted(), equal_nan=True)


@pytest.mark.parametrize("decoupled", [False, True])
def test_of_a_decoupled_loss_the_ratios_to_the_proximal_policy_are_clipped(decoupled: bool):
    """Samples of another policy, and steps next to nothing."""
    config = PpoConfig(**PPO, decoupled=decoupled, learning_rate=1e-30)
    algorithm = Ppo(config, NETWORK, discrete_spaces())
    batch = make_batch()
    batch = {**batch, "log_prob": batch["log_prob"] - 1}
    told = [algorithm.update(algorithm.init(3), batch).ratios]
    team = {"rollout_steps": TEAM_T, "batch_steps": TEAM_T * TEAM_B, "minibatch_steps": TEAM_T * 2}
    ippo = Ippo(IppoConfig(**team, decoupled=decoupled, learning_rate=1e-30), NETWORK, unlike())
    batch = collect(ippo)
    told.append(ippo.update(ippo.init(3), {**batch, "log_prob": batch["log_prob"] - 1}).ratios)
    for ratios in told:
        assert ratios is not None
        found = summarise(ratios, np.zeros(ratios.last.shape[1], dtype=np.int64))
        assert found is not None
        assert found.metrics["ratio_max"] > 2, "rho is told all the same"
        clipped = found.metrics["clip_fraction"]
        assert clipped == 0.0 if decoupled else clipped > 0.9
        assert found.by_lag["clip_fraction_by_lag"] == {0: clipped}


def test_clipped_is_what_a_schedule_clips():
    config = PpoConfig(**PPO, clip_range=0.4, clip_range_final=0.2)
    algorithm = Ppo(config, NETWORK, discrete_spaces())
    state = algorithm.init(3)
    state.progress = 0.5
    ratios = algorithm.update(state, make_batch()).ratios
    assert ratios is not None
    assert ratios.limits == pytest.approx((math.log(0.7), math.log(1.3)))


@pytest.mark.parametrize("core", [None, CoreSpec(name="gru", size=6)], ids=["", "gru"])
def test_a_team_reports_the_ratios_of_all_its_agents(core: CoreSpec | None):
    sizes = {"rollout_steps": TEAM_T, "batch_steps": TEAM_T * TEAM_B, "num_epochs": 2}
    config = IppoConfig(**sizes, minibatch_steps=TEAM_T * 2, learning_rate=1e-30)
    algorithm = Ippo(config, replace(NETWORK, core=core), unlike())
    batch = collect(algorithm)
    ratios = algorithm.update(algorithm.init(3), batch).ratios
    assert ratios is not None
    assert ratios.last.shape == (TEAM_T, TEAM_B, 3)
    there = ~ratios.last.isnan()
    assert 0 < int(there.sum()) < there.numel()
    assert ratios.last[there].abs().max() < 1e-6
    moved = {**batch, "log_prob": batch["log_prob"] - torch.arange(3.0)}
    ratios = algorithm.update(algorithm.init(3), moved).ratios
    assert ratios is not None
    order = [agent for policy in algorithm._view.policies for agent in policy.agents]
    for place, agent in enumerate(order):
        of_agent = ratios.last[..., place]
        torch.testing.assert_close(
            of_agent[~of_agent.isnan()],
            torch.full_like(of_agent[~of_agent.isnan()], float(agent)),
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("target_kl", [None, 1e-3])
def test_learners_with_unequal_shares_report_their_own_samples(target_kl: float | None):
    algorithm = Ppo(PpoConfig(**PPO, target_kl=target_kl), NETWORK, discrete_spaces())
    found = []
    update = algorithm.update

    def recording(state: object, batch: object) -> object:
        result = update(state, batch)  # type: ignore[arg-type]
        assert result.ratios is not None
        found.append((batch["valid"], result.ratios.last))  # type: ignore[index]
        return result

    algorithm.update = recording  # type: ignore[assignment, method-assign]
    learn_together(algorithm, [make_batch(1), make_batch(2)], (3, 1))
    assert len(found) == 4
    for valid, last in found:
        assert torch.equal(~last.isnan(), valid)


def test_without_diagnostics_nothing_is_reported():
    ppo = Ppo(PpoConfig(**PPO, diagnostics=False), NETWORK, discrete_spaces())
    impala = Impala(ImpalaConfig(**SIZES, diagnostics=False), NETWORK, discrete_spaces())
    states = ppo.init(3), impala.init(3)
    assert ppo.update(states[0], make_batch()).ratios is None
    assert impala.update(states[1], make_batch()).ratios is None
    reporting = Ppo(PpoConfig(**PPO), NETWORK, discrete_spaces())
    other = reporting.init(3)
    reporting.update(other, make_batch())
    assert torch.equal(other.weights.vector, states[0].weights.vector), "nor learnt differently"
    quiet = Dqn(DqnConfig(diagnostics=False), NETWORK, discrete_spaces())
    assert "log_prob" not in {field.name for field in quiet.fields}


# DQN.


def test_dqn_says_how_probable_an_action_was():
    dqn = Dqn(DqnConfig(), NETWORK, discrete_spaces())
    network = dqn.init(3).network
    network.epsilon.fill_(0.3)
    observation = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1))
    noise = dqn.noise(torch.Generator().manual_seed(2), 1, EnvSlice(0, 4000, 4000))[0]
    with torch.no_grad():
        chosen = dqn.act(network, observation, noise)
        greedy = network(observation).argmax(-1)
    probability, is_greedy = chosen["log_prob"].exp(), chosen["action"] == greedy
    torch.testing.assert_close(probability[is_greedy], torch.full((int(is_greedy.sum()),), 0.8))
    torch.testing.assert_close(probability[~is_greedy], torch.full((int((~is_greedy).sum()),), 0.1))
    assert float(is_greedy.float().mean()) == pytest.approx(0.8, abs=0.03)


def test_dqn_compares_the_epsilon_greedy_policies_of_then_and_now():
    config = DqnConfig(batch_size=5, updates_per_batch=2, learning_rate=1e-30)
    dqn = Dqn(config, NETWORK, discrete_spaces())
    state = dqn.init(3)
    state.network.epsilon.fill_(0.3)
    random = torch.Generator().manual_seed(1)
    observation = torch.randn((2, 5, 4), generator=random)
    action = torch.randint(3, (2, 5), generator=random)
    batch = {
        "observation": observation,
        "next_observation": torch.randn((2, 5, 4), generator=random),
        "action": action,
        "log_prob": torch.full((2, 5), math.log(0.5)),
        **{name: torch.rand((2, 5), generator=random) for name in ("reward", "discount", "weight")},
        "version": torch.arange(10).view(2, 5),
    }
    with torch.no_grad():
        greedy = state.network(observation.flatten(0, 1)).argmax(-1).view(2, 5)
    ratios = dqn.update(state, batch).ratios
    assert ratios is not None
    wanted = torch.where(greedy == action, math.log(0.8 / 0.5), math.log(0.1 / 0.5))
    torch.testing.assert_close(ratios.first, wanted[:1], msg="of the first optimiser step")
    torch.testing.assert_close(ratios.last, wanted[:1], msg="the rate is next to zero")
    found = summarise(ratios, 10 - batch["version"][:1].numpy())
    assert found is not None
    assert set(found.by_lag["ratios_by_lag"]) == {6, 7, 8}
    assert "clip_fraction" not in found.metrics
