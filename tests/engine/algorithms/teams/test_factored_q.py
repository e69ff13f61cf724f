"""VDN and QMIX: known values, monotonicity, losses against slow loops in float64, and acting."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from engine.algorithms.base import EnvSlice
from engine.algorithms.replicas import SingleReplica
from engine.algorithms.teams.factored_q import FactoredQ
from engine.algorithms.teams.mixing import MonotoneMixer
from engine.algorithms.teams.qmix import Qmix, QmixConfig
from engine.algorithms.teams.team_q_network import TeamQNetwork
from engine.algorithms.teams.vdn import Vdn, VdnConfig
from engine.blueprint import make_blueprint
from engine.compilation.library import Kind
from engine.compilation.traces import TRACE
from engine.errors import ConfigError
from engine.spec import CoreSpec, EnvSpec, NetworkSpec, StalenessSpec
from engine.testing import discrete_spaces, make_experiment, team_spaces
from tests.helpers.engine import factored_by_hand as by_hand
from tests.helpers.engine.factored_by_hand import AGENTS, CHOICES
from tests.helpers.engine.two_step import every_transition, two_step_spaces

STEPS, BURN_IN, SIZE, COUNT = 6, 2, 5, 7
PLAIN = NetworkSpec(hidden_sizes=(8,), activation="tanh")
RECURRENT = NetworkSpec(hidden_sizes=(8,), activation="tanh", core=CoreSpec(name="gru", size=SIZE))


def make(
    name: str, network: NetworkSpec = PLAIN, *, masks: bool = True, **changes: object
) -> FactoredQ:
    sizes = {"batch_size": COUNT, "updates_per_batch": 1, "discount": 0.9, "loss": "huber"}
    rows = {"rollout_steps": STEPS, "burn_in_steps": BURN_IN}
    settings = {**sizes, **rows, **changes}
    spaces = by_hand.spaces(masks=masks)
    if name == "vdn":
        return Vdn(VdnConfig(**settings), network, spaces)  # type: ignore[arg-type]
    return Qmix(QmixConfig(mixing_size=4, **settings), network, spaces)  # type: ignore[arg-type]


def in_double(algorithm: FactoredQ, seed: int) -> TeamQNetwork:
    network = algorithm.init(seed).network.double()
    assert isinstance(network, TeamQNetwork)
    return network


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_the_two_step_game_has_the_values_of_the_paper(name: str) -> None:
    """Rashid et al. (2018), table 2: QMIX has the true values, the sum cannot."""
    sizes = {"batch_size": 12, "updates_per_batch": 25, "target_update_period": 25}
    settings = {**sizes, "learning_rate": 3e-3, "loss": "squared"}
    network = NetworkSpec(hidden_sizes=(32,), activation="relu")
    algorithm: FactoredQ = (
        Vdn(VdnConfig(**settings), network, two_step_spaces())  # type: ignore[arg-type]
        if name == "vdn"
        else Qmix(QmixConfig(mixing_size=8, **settings), network, two_step_spaces())  # type: ignore[arg-type]
    )
    samples = every_transition()
    batch = {field: values.expand(25, *values.shape) for field, values in samples.items()}
    state = algorithm.init(seed=0)
    for _ in range(32):
        algorithm.update(state, batch)
    assert isinstance(state.network, TeamQNetwork)
    with torch.no_grad():
        taken = algorithm._choices.taken(state.network(samples), samples["action"])
        weights = state.network.mixer.weights(algorithm._view.state(samples))
        total = state.network.total(taken, weights, torch.ones(12, 2, dtype=torch.bool))
    # The sum's are those of least squares, [0 1; 1 8] by [-1.5 2.5; 2.5 6.5].
    risky = [-1.5, 2.5, 2.5, 6.5] if name == "vdn" else [0.0, 1.0, 1.0, 8.0]
    first = [0.99 * 7, 0.99 * 7, 0.99 * risky[-1], 0.99 * risky[-1]]
    assert total.tolist() == pytest.approx([*first, 7, 7, 7, 7, *risky], abs=0.05)
    action = algorithm.act_greedily(state.network, samples)
    assert isinstance(action, Tensor)
    assert action[0, 0] == (0 if name == "vdn" else 1)
    assert action[8].tolist() == [1, 1]


@pytest.mark.parametrize("hypernetwork_size", [None, 6])
def test_the_value_of_a_team_never_falls_with_that_of_an_agent(
    hypernetwork_size: int | None,
) -> None:
    torch.manual_seed(0)
    mixer = MonotoneMixer(3, 5, 4, hypernetwork_size, PLAIN).double()
    values = (torch.randn(500, 3, dtype=torch.float64) * 5).requires_grad_()
    weights = mixer.weights(torch.randn(500, 5, dtype=torch.float64) * 3)
    (slope,) = torch.autograd.grad(mixer.mix(values, weights).sum(), values)
    assert (slope >= 0).all()
    assert (slope > 1e-6).double().mean() > 0.9
    bias = mixer.weights(torch.randn(500, 5, dtype=torch.float64))[:, [-1, 12]]
    assert (bias < 0).any(), "biases are free"


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_loss_and_gradient_of_transitions_are_those_of_a_slow_loop(
    name: str, double: bool, masks: bool
) -> None:
    algorithm = make(name, double=double, masks=masks)
    random = np.random.default_rng(0)
    arrays = {
        **by_hand.observed(random, (COUNT,)),
        **by_hand.observed(random, (COUNT,), "next_observation"),
        "action": by_hand.actions(random, (COUNT,)),
        "reward": random.normal(size=COUNT),
        "discount": np.where(random.random(COUNT) < 0.3, 0.0, 0.9),
        "weight": random.random(COUNT),
    }
    del arrays["action_mask"]
    if not masks:
        del arrays["next_action_mask"]
    samples = {field: torch.from_numpy(values) for field, values in arrays.items()}
    network, state = in_double(algorithm, 1), algorithm.init(2)
    assert state.target is not None
    target = state.target.network.double()
    assert isinstance(target, TeamQNetwork)
    batch = {field: values[None] for field, values in samples.items()}
    loss, told = algorithm._loss(network, algorithm._prepare(state, batch))
    wanted = torch.zeros((), dtype=torch.float64)
    for i in range(COUNT):
        now, later = [], []
        for number, agent in enumerate(AGENTS):
            q = by_hand.network_of(agent, network)(by_hand.seen_by(agent, samples)[i][None])[0]
            is_there = samples["observation.team.present"][i, number]
            now.append(q[samples["action"][i, number]] * is_there)
            seen = by_hand.seen_by(agent, samples, "next_observation")[i][None]
            of_target = by_hand.network_of(agent, target)(seen)[0].detach()
            ranking = by_hand.network_of(agent, network)(seen)[0] if double else of_target
            mask = samples["next_action_mask"][i] if masks else torch.ones(10, dtype=torch.bool)
            best = by_hand.best_of(agent, ranking, mask)
            later.append(of_target[best] * samples["next_observation.team.present"][i, number])
        q_tot = by_hand.mixed(network, now, by_hand.whole_state(samples)[i])
        next_state = by_hand.whole_state(samples, "next_observation")[i]
        value = by_hand.mixed(target, later, next_state).detach()
        delta = samples["reward"][i] + samples["discount"][i] * value - q_tot
        assert told[3 + i].item() == pytest.approx(delta.abs().item(), abs=1e-6)
        wanted = wanted + samples["weight"][i] * by_hand.huber(delta) / COUNT
    agree(network, loss, wanted)


def agree(network: TeamQNetwork, loss: Tensor, wanted: Tensor) -> None:
    """Loss and gradient of everything that learns."""
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-7)
    learning = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, learning)
    for one, other in zip(found, torch.autograd.grad(wanted, learning), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
        assert one.any()


def sequences(random: np.random.Generator) -> dict[str, Tensor]:
    """Random sequences with resets inside, [COUNT, rows, ...]."""
    rows = BURN_IN + STEPS
    valid = random.random((COUNT, rows)) < 0.8
    span = np.minimum(valid[:, BURN_IN:] * random.integers(1, 3, (COUNT, STEPS)), STEPS)
    span = np.minimum(span, STEPS - np.arange(STEPS))
    arrays = {
        **by_hand.observed(random, (COUNT, rows + 1)),
        "action": by_hand.actions(random, (COUNT, rows)),
        "valid": valid,
        "state": np.tanh(random.normal(size=(COUNT, 3 * SIZE))),
        "has_burn_in": np.arange(COUNT) % 2 == 0,
        "reward": random.normal(size=(COUNT, STEPS)),
        "discount": np.where(random.random((COUNT, STEPS)) < 0.3, 0.0, 0.9),
        "span": span.astype(np.int64),
        "weight": random.random(COUNT),
    }
    return {field: torch.from_numpy(values) for field, values in arrays.items()}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_loss_and_gradient_of_sequences_are_those_of_a_slow_loop(name: str, double: bool) -> None:
    algorithm = make(name, RECURRENT, double=double)
    samples = sequences(np.random.default_rng(0))
    assert 0 < samples["has_burn_in"].sum() < COUNT
    network, state = in_double(algorithm, 1), algorithm.init(2)
    assert state.target is not None
    target = state.target.network.double()
    assert isinstance(target, TeamQNetwork)
    batch = {field: values[None] for field, values in samples.items()}
    loss, _ = algorithm._loss(network, algorithm._prepare(state, batch))
    wanted = torch.zeros((), dtype=torch.float64)
    for i in range(COUNT):
        q = [by_hand.walk(network, agent, samples, i, BURN_IN, SIZE) for agent in AGENTS]
        with torch.no_grad():
            of_target = [by_hand.walk(target, a, samples, i, BURN_IN, SIZE) for a in AGENTS]
        for t in range(STEPS):
            span = int(samples["span"][i, t])
            if not span:
                continue
            now, later = [], []
            here, there = BURN_IN + t, BURN_IN + t + span
            for number, agent in enumerate(AGENTS):
                present = samples["observation.team.present"][i, :, number]
                now.append(q[number][t][samples["action"][i, here, number]] * present[here])
                ranking = (q if double else of_target)[number][t + span]
                best = by_hand.best_of(agent, ranking, samples["action_mask"][i, there])
                later.append(of_target[number][t + span][best] * present[there])
            whole = by_hand.whole_state(samples)[i]
            value = by_hand.mixed(target, later, whole[there]).detach()
            target_of_step = samples["reward"][i, t] + samples["discount"][i, t] * value
            delta = target_of_step - by_hand.mixed(network, now, whole[here])
            wanted = wanted + samples["weight"][i] * by_hand.huber(delta) / STEPS / COUNT
    agree(network, loss, wanted)


@pytest.mark.parametrize("network", [PLAIN, RECURRENT], ids=["plain", "recurrent"])
@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_acting_takes_only_valid_choices_and_each_agent_explores_for_itself(
    name: str, network: NetworkSpec
) -> None:
    algorithm, random = make(name, network), np.random.default_rng(0)
    state = algorithm.init(1)
    assert isinstance(state.network, TeamQNetwork)
    state.network.epsilon.fill_(0.5)
    inputs = as_fields(by_hand.observed(random, (300,)))
    inputs["action_mask"][0] = False  # nobody is there, so nothing is valid
    inputs["state"] = torch.zeros(300, 3 * SIZE)
    generator = torch.Generator().manual_seed(0)
    noise = algorithm.noise(generator, 80, EnvSlice(0, 300, 300))
    assert noise.shape == (80, 300, 2, 3)
    greedy = algorithm.act_greedily(state.network, inputs)
    greedy = greedy if isinstance(greedy, Tensor) else greedy["action"]
    tried = torch.zeros(300, 10, dtype=torch.bool)
    for step in noise:
        action = algorithm.act(state.network, inputs, step)["action"]
        assert action.dtype == torch.int64
        for number, (agent, first) in enumerate(by_hand.FIRSTS.items()):
            own = action[:, number]
            assert ((own >= 0) & (own < CHOICES[agent])).all()
            tried.scatter_(1, first + own[:, None], True)
            agrees = own[step[:, 0, number] >= 0.5] == greedy[step[:, 0, number] >= 0.5, number]
            assert agrees.all()
    assert torch.equal(tried[1:], inputs["action_mask"][1:]), "every valid choice is explored"


def as_fields(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(v.astype(np.float32) if v.dtype == np.float64 else v)
        for name, v in arrays.items()
    }


def test_acting_step_by_step_sees_the_values_that_the_learner_unrolls() -> None:
    algorithm, random = make("qmix", RECURRENT, burn_in_steps=0), np.random.default_rng(0)
    network = algorithm.init(1).network
    assert isinstance(network, TeamQNetwork)
    samples = as_fields(by_hand.observed(random, (4, STEPS + 1)))
    state, found = torch.zeros(4, 3 * SIZE), []
    samples |= {
        "state": state,
        "valid": torch.ones(4, STEPS, dtype=torch.bool),
        "has_burn_in": torch.zeros(4, dtype=torch.bool),
    }
    for t in range(STEPS + 1):
        row = {name: v[:, t] for name, v in samples.items() if name.startswith("observation")}
        values, state = network.step({**row, "state": state})
        found.append(values)
        gone = row["observation.team.present"] == 0
        assert not state.view(4, 3, SIZE)[gone[:, [0, 2, 1]]].any(), "who leaves forgets"
    for name, values in network.unroll(samples, 0).items():
        torch.testing.assert_close(values, torch.stack([row[name] for row in found]))


@pytest.mark.parametrize("network", [PLAIN, RECURRENT], ids=["plain", "recurrent"])
def test_what_absent_agents_observe_and_choose_changes_nothing(network: NetworkSpec) -> None:
    """Only a central state that has it would."""
    algorithm = make("vdn", network, burn_in_steps=0)
    state = algorithm.init(1)
    samples = as_fields({k: v.numpy() for k, v in sequences(np.random.default_rng(0)).items()})
    samples = {
        name: v[:, BURN_IN:] if name != "state" and v.ndim > 1 and v.shape[1] > STEPS + 1 else v
        for name, v in samples.items()
    }
    samples["has_burn_in"][...] = False
    if network is PLAIN:
        samples = transitions_of(samples)
    results = []
    for change in (0.0, 5.0):
        changed = {name: values.clone() for name, values in samples.items()}
        for number, agent in enumerate(AGENTS):
            for prefix in ("observation", "next_observation"):
                if (name := f"{prefix}.agents.{agent}") in changed:
                    gone = changed[f"{prefix}.team.present"][..., number] == 0
                    changed[name][gone] += change
        batch = {name: values[None] for name, values in changed.items()}
        assert state.target is not None
        results.append(algorithm._loss(state.network, algorithm._prepare(state, batch))[0])
    assert results[0].item() == pytest.approx(results[1].item(), abs=1e-6)


def transitions_of(sequences: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first step of each."""
    found = {name: v[:, 0] for name, v in sequences.items() if v.ndim > 1 and name != "state"}
    later = {f"next_{name}": v[:, 1] for name, v in sequences.items() if name[:11] == "observation"}
    mask = sequences["action_mask"][:, 1]
    return {**found, **later, "next_action_mask": mask, "weight": sequences["weight"]}


@pytest.mark.parametrize("kind", ["act", "steps"])
@pytest.mark.parametrize("network", [PLAIN, RECURRENT], ids=["plain", "recurrent"])
def test_what_is_compiled_reads_its_arguments_only(network: NetworkSpec, kind: Kind) -> None:
    sizes = {"batch_size": 8, "updates_per_batch": 2, "rollout_steps": 4}
    base = make_experiment(
        env=EnvSpec(id="TwoStep-v0", num_envs=4), staleness=StalenessSpec(mode="unbounded")
    )
    algorithm = {"name": "qmix", "min_replay_size": 64, **sizes}
    experiment = replace(base, agents="separate", network=network, algorithm=algorithm)
    graph = TRACE[kind](make_blueprint(experiment)).graph
    assert all(node.op != "get_attr" for node in graph.graph.nodes)


def test_an_update_learns_the_statistics_of_those_who_are_there() -> None:
    normalized = NetworkSpec(hidden_sizes=(8,), normalize_observation=True)
    algorithm = make("qmix", normalized)
    state = algorithm.init(1)
    flat = transitions_of(sequences(np.random.default_rng(0)))
    batch = {
        name: v[None] for name, v in as_fields({k: v.numpy() for k, v in flat.items()}).items()
    }
    result = algorithm.update(state, batch)
    assert result.samples_trained == COUNT
    assert result.metrics["epsilon"] < 1
    assert isinstance(state.network, TeamQNetwork)
    pair = by_hand.network_of("zoe", state.network).input.statistics
    present = flat["observation.team.present"] != 0
    zoe, bob = (by_hand.seen_by(a, flat)[present[:, AGENTS.index(a)]] for a in ("zoe", "bob"))
    torch.testing.assert_close(pair.mean, torch.cat((zoe, bob)).mean(0).float())
    assert isinstance(state.network.mixer, MonotoneMixer)
    of_state = state.network.mixer.input.statistics
    assert of_state is not None
    torch.testing.assert_close(of_state.mean, by_hand.whole_state(flat).mean(0).float())


@dataclass(frozen=True)
class OneOfTwo(SingleReplica):
    """A learner with a part of each batch; nothing is summed."""

    count: int = 2

    @property
    def shares(self) -> tuple[int, ...]:
        return (4, 3)


@pytest.mark.parametrize("network", [PLAIN, RECURRENT], ids=["plain", "recurrent"])
def test_losses_of_two_learners_add_up_to_that_of_one(network: NetworkSpec) -> None:
    """And so do their gradients, which is what moves the network; metrics of transitions too."""
    algorithm = make("qmix", network, burn_in_steps=BURN_IN)
    state, samples = algorithm.init(1), sequences(np.random.default_rng(0))
    samples = transitions_of(samples) if network is PLAIN else samples
    given = as_fields({name: values.numpy() for name, values in samples.items()})
    assert state.target is not None
    whole = algorithm._prepare(state, {name: v[None] for name, v in given.items()})
    loss, told = algorithm._loss(state.network, whole)
    shares = [
        algorithm._loss(state.network, {n: v[rows] for n, v in whole.items()}, OneOfTwo(rank))
        for rank, rows in enumerate((slice(0, 4), slice(4, 7)))
    ]
    losses, parts = zip(*shares, strict=True)
    learnt = [one for one in state.network.parameters() if one.requires_grad]
    gradients, *of_shares = (torch.autograd.grad(one, learnt) for one in (loss, *losses))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert not torch.allclose(losses[0], losses[1], rtol=0.01), "the shares are not alike"
    torch.testing.assert_close(losses[0] + losses[1], loss)
    for ours, first, second in zip(gradients, *of_shares, strict=True):
        torch.testing.assert_close(first + second, ours)
    num_summed = 3 if network is PLAIN else 1  # means over steps weigh sequences by their length
    sums = parts[0][:num_summed] + parts[1][:num_summed]
    torch.testing.assert_close(sums, told[:num_summed])
    torch.testing.assert_close(torch.cat([errors[3:] for errors in parts]), told[3:])


def test_who_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="several agents"):
        Vdn(VdnConfig(), PLAIN, discrete_spaces())
    seen = gymnasium.spaces.Box(-1, 1, (2,))
    acts = {"a": gymnasium.spaces.Discrete(2), "b": gymnasium.spaces.MultiBinary(2)}
    members = {name: (name,) for name in "ab"}
    with pytest.raises(ConfigError, match="agent b has MultiBinary") as error:
        Qmix(QmixConfig(), PLAIN, team_spaces(dict.fromkeys("ab", seen), acts, members))
    assert error.value.where == "env.id"
    assert "mappo" in (error.value.fix or "")
