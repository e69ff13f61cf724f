"""DQN with a memory against a slow loop in float64; masks; and how it is put together."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.algorithms.base import EnvSlice, Spaces
from engine.algorithms.dqn import ApexConfig, Dqn, DqnConfig
from engine.algorithms.q_network import QNetwork, among_valid, random_action
from engine.algorithms.recurrent_dqn import RecurrentDqn, make_dqn
from engine.errors import ConfigError
from engine.replay.transitions import n_step_transitions
from engine.spec import CoreSpec, NetworkSpec
from engine.testing import discrete_spaces

SPACES = discrete_spaces()
OBSERVATION, ACTIONS, SIZE, STEPS = 4, 3, 6, 7


def network_spec(core: str = "gru") -> NetworkSpec:
    return NetworkSpec(
        hidden_sizes=(8,),
        activation="tanh",
        core=CoreSpec(name=core, size=SIZE),  # type: ignore[arg-type]
    )


def with_mask(spaces: Spaces = SPACES) -> Spaces:
    return Spaces(spaces.observation, spaces.action, has_action_mask=True)


def make(core: str = "gru", spaces: Spaces = SPACES, **hyperparameters: float) -> RecurrentDqn:
    sizes = {"batch_size": 5, "updates_per_batch": 2, "rollout_steps": STEPS, "n_step": 3}
    config = DqnConfig(**{**sizes, "burn_in_steps": 3, "discount": 0.9, **hyperparameters})
    made = make_dqn(config, network_spec(core), spaces)
    assert isinstance(made, RecurrentDqn)
    return made


def make_sequences(
    dqn: RecurrentDqn, count: int, *, masks: bool = False, n_step: int = 3, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Sequences as a store would draw them, and the plain history of their T steps, [T, count]:
    episodes end inside, and in the burn-in, and not every sequence has one."""
    random = np.random.default_rng(seed)
    request = dqn.samples().replay
    assert request is not None
    assert request.sequence is not None
    first, steps = request.sequence.burn_in_steps, request.sequence.num_steps
    rows = first + steps
    ends = random.random((2, rows, count)) < 0.15
    valid = np.ones((rows, count), bool)
    for t in range(1, rows):
        valid[t] = ~((ends[0, t - 1] | ends[1, t - 1]) & valid[t - 1])
    history = {
        "reward": random.normal(size=(rows, count)).astype(np.float32)[first:],
        "terminated": (ends[0] & valid)[first:],
        "truncated": (ends[1] & valid)[first:],
        "valid": valid[first:],
    }
    reward, discount, span = n_step_transitions(history, n_step, 0.9)
    sizes = {"gru": SIZE, "lstm": 2 * SIZE}
    core = dqn.network().core
    assert core is not None
    assert core.state_size in sizes.values()
    samples = {
        "observation": random.normal(size=(count, rows + 1, OBSERVATION)),
        "action": random.integers(0, ACTIONS, (count, rows)),
        "valid": valid.T,
        "state": np.tanh(random.normal(size=(count, core.state_size))),
        "has_burn_in": random.random(count) < 0.6,
        "reward": reward.T.astype(np.float64),
        "discount": discount.T.astype(np.float64),
        "span": span.T.astype(np.int64),
        "weight": random.random(count),
    }
    if masks:
        allowed = random.random((count, rows + 1, ACTIONS)) < 0.5
        np.put_along_axis(allowed, random.integers(0, ACTIONS, (count, rows + 1, 1)), True, -1)
        samples["action_mask"] = allowed
    assert 0 < samples["has_burn_in"].sum() < count or count < 3
    return {name: torch.from_numpy(values.copy()) for name, values in samples.items()}, history


def walk(network: QNetwork, samples: dict[str, Tensor], i: int, first: int) -> list[Tensor]:
    """q(s_0, .) to q(s_T, .) of one sequence, one step after the other."""
    state = samples["state"][i : i + 1]
    observation, valid = samples["observation"][i], samples["valid"][i]
    if samples["has_burn_in"][i]:
        with torch.no_grad():
            for t in range(first):
                _, state = network.step(observation[t : t + 1], state)
                state = state if valid[t] else torch.zeros_like(state)
    found = []
    for t in range(first, len(observation)):
        q, state = network.step(observation[t : t + 1], state)
        found.append(q[0])
        if t < len(valid) and not valid[t]:
            state = torch.zeros_like(state)
    return found


def loss_by_hand(
    network: QNetwork,
    target: QNetwork,
    samples: dict[str, Tensor],
    history: dict[str, np.ndarray],
    *,
    first: int,
    n_step: int,
    double: bool,
) -> tuple[Tensor, list[float]]:
    """The weighted loss, and the priority of each sequence."""
    loss, priorities = torch.zeros((), dtype=torch.float64), []
    for i in range(len(samples["weight"])):
        q = walk(network, samples, i, first)
        with torch.no_grad():
            q_target = walk(target, samples, i, first)
        errors = []
        for t in range(STEPS):
            if not history["valid"][t, i]:
                continue
            total, factor, later = 0.0, 1.0, t
            while True:
                total += factor * float(history["reward"][later, i])
                factor *= 0.9
                ends = history["terminated"][later, i] or history["truncated"][later, i]
                factor = 0.0 if history["terminated"][later, i] else factor
                later += 1
                if ends or later - t == n_step or later == STEPS:
                    break
            ranking = (q if double else q_target)[later].detach().clone()
            if "action_mask" in samples:
                ranking[~samples["action_mask"][i, first + later]] = -np.inf
            wanted = total + factor * q_target[later][int(ranking.argmax())]
            delta = wanted.detach() - q[t][samples["action"][i, first + t]]
            size = delta.abs()
            huber = size**2 / 2 if size < 1 else size - 0.5
            loss = loss + samples["weight"][i] * huber / STEPS
            errors.append(size.item())
        priorities.append(0.9 * max(errors) + 0.1 * sum(errors) / len(errors) if errors else 0.0)
    return loss / len(samples["weight"]), priorities


@pytest.mark.parametrize("core", ["gru", "lstm"])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("first", [0, 3, STEPS])
def test_loss_and_gradient_are_those_of_a_slow_loop(
    core: str, masks: bool, double: bool, first: int
):
    dqn = make(core, with_mask() if masks else SPACES, double=double, burn_in_steps=first)
    samples, history = make_sequences(dqn, 6, masks=masks)
    assert history["terminated"].any()
    assert history["truncated"].any()
    assert not history["valid"].all()
    network = dqn.init(seed=1).network.double()
    state = dqn.init(seed=2)
    assert state.target is not None
    target = state.target.network.double()
    assert isinstance(network, QNetwork)
    assert isinstance(target, QNetwork)
    batch = {name: values.unsqueeze(0) for name, values in samples.items()}
    prepared = dqn._prepare(state, batch)
    loss, told = dqn._loss(network, prepared)
    wanted, priorities = loss_by_hand(
        network, target, samples, history, first=first, n_step=3, double=double
    )
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-7)
    np.testing.assert_allclose(told[3:].numpy(), priorities, rtol=0, atol=1e-6)
    learning = [p for p in network.parameters() if p.requires_grad]
    for found, other in zip(
        torch.autograd.grad(loss, learning), torch.autograd.grad(wanted, learning), strict=True
    ):
        torch.testing.assert_close(found, other, rtol=0, atol=1e-7)


def test_the_burn_in_matters_and_has_no_gradient():
    dqn = make()
    samples, _ = make_sequences(dqn, 6)
    samples["has_burn_in"][...] = True
    samples["valid"][...] = True
    state = dqn.init(seed=1)
    assert state.target is not None
    network = state.network.double()
    state.target.network.double()
    samples["observation"].requires_grad_()
    samples["state"].requires_grad_()
    batch = {name: values.unsqueeze(0) for name, values in samples.items()}
    loss, _ = dqn._loss(network, dqn._prepare(state, batch))
    of_observation, of_state = torch.autograd.grad(
        loss, [samples["observation"], samples["state"]], allow_unused=True
    )
    assert not of_observation[:, :3].any()
    assert of_observation[:, 3:].any()
    assert of_state is None or not of_state.any()
    other = {name: values.detach().clone() for name, values in batch.items()}
    other["observation"][:, :, 0] += 1
    changed, _ = dqn._loss(network, dqn._prepare(state, other))
    assert abs(changed.item() - loss.item()) > 1e-6


def float32(samples: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: v.float() if v.is_floating_point() else v for n, v in samples.items()}


def test_an_update_takes_a_step_for_each_minibatch_and_counts_every_step_of_a_sequence():
    dqn = make(prioritized=True, replay_ratio=1.0, epsilon_decay_env_steps=140)
    state = dqn.init(seed=1)
    samples, _ = make_sequences(dqn, 10)
    batch = {n: v.view(2, 5, *v.shape[1:]) for n, v in float32(samples).items()}
    before = state.weights.vector.detach().clone()
    result = dqn.update(state, batch)
    assert state.num_updates == 2
    assert result.samples_trained == 2 * 5 * STEPS
    assert result.errors is not None
    assert result.errors.shape == (2, 5)
    assert not torch.equal(state.weights.vector[1:], before[1:])
    assert result.metrics["epsilon"] == pytest.approx(1 - 0.95 * 70 / 140)


def test_it_asks_for_sequences_and_for_the_state_before_each_step():
    dqn = make("lstm", with_mask())
    request = dqn.samples()
    assert request.replay is not None
    assert request.replay.sequence is not None
    assert request.replay.samples_per_draw == STEPS
    assert request.replay.samples_per_batch == 2 * 5 * STEPS
    fields = {item.name: item for item in request.fields}
    assert fields["state"].shape == (2 * SIZE,)
    assert (fields["state"].num_rows, fields["state"].extra_rows) == (None, 0)
    drawn = {item.name: item.shape for item in request.sample_fields}
    assert drawn == {
        "observation": (3 + STEPS + 1, OBSERVATION),
        "action_mask": (3 + STEPS + 1, ACTIONS),
        "action": (3 + STEPS,),
        "valid": (3 + STEPS,),
        "state": (2 * SIZE,),
        "has_burn_in": (),
        "reward": (STEPS,),
        "discount": (STEPS,),
        "span": (STEPS,),
        "weight": (),
        "key": (),
        "version": (),
    }


def test_a_burn_in_is_at_most_a_rollout():
    assert make(burn_in_steps=STEPS)._burn_in_steps == STEPS
    long = make(burn_in_steps=STEPS + 1)
    assert long._burn_in_steps == STEPS
    assert long._sequence.burn_in_steps == STEPS


def test_a_network_without_core_makes_plain_dqn():
    made = make_dqn(DqnConfig(), NetworkSpec(), SPACES)
    assert type(made) is Dqn
    assert not isinstance(made, RecurrentDqn)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_acting_step_by_step_sees_the_values_that_the_learner_unrolls(core: str):
    config = ApexConfig(rollout_steps=STEPS, burn_in_steps=3)
    apex = make_dqn(config, network_spec(core), SPACES)
    network = apex.init(seed=1).network
    assert isinstance(network, QNetwork)
    assert network.core is not None
    random = torch.Generator().manual_seed(0)
    observation = torch.randn(STEPS, 6, OBSERVATION, generator=random)
    noise = apex.noise(random, STEPS, EnvSlice(0, 6, 6))
    state = network.core.initial_state(6)
    taken, best = [], []
    for t in range(STEPS):
        greedy = apex.act_greedily(network, {"observation": observation[t], "state": state})
        chosen = apex.act(network, {"observation": observation[t], "state": state}, noise[t])
        assert not isinstance(greedy, Tensor)
        assert torch.equal(greedy["state"], chosen["state"])
        state = chosen["state"]
        taken.append(chosen["q_taken"])
        best.append(chosen["q_best"])
    first = network.core.initial_state(6)
    q, last = network.unroll(observation, first, torch.ones(STEPS, 6))
    torch.testing.assert_close(torch.stack(best), q.amax(-1))
    torch.testing.assert_close(last, state)


MASK = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])


def test_random_actions_are_uniform_among_the_valid_ones():
    number = torch.arange(3000) / 3000
    for mask, wanted in zip(MASK, ([1500, 0, 1500], [0, 3000, 0], [1000] * 3), strict=True):
        found = random_action(number, 3, mask.expand(3000, 3))
        assert torch.bincount(found, minlength=3).tolist() == pytest.approx(wanted, abs=1)
    last = torch.full((3,), 1 - 2**-24)
    assert random_action(last, 3, MASK).tolist() == [2, 1, 2]
    assert random_action(torch.zeros(3), 3, MASK).tolist() == [0, 1, 0]
    full = torch.ones(3000, 3, dtype=torch.bool)
    assert torch.equal(random_action(number, 3, full), random_action(number, 3, None))


def test_an_invalid_action_is_never_the_best_however_large_its_value():
    q = torch.tensor([[1.0, 1e30, 2.0], [-1e30, -1e38, 0.0], [3.0, 2.0, 1.0]])
    assert among_valid(q, MASK).argmax(-1).tolist() == [2, 1, 0]
    assert among_valid(q, None) is q


@pytest.mark.parametrize("with_core", [False, True])
def test_acting_takes_only_valid_actions(with_core: bool):
    network_of = network_spec() if with_core else NetworkSpec(hidden_sizes=(8,))
    dqn = make_dqn(ApexConfig(epsilon_initial=0.5, epsilon_spread=0.0), network_of, with_mask())
    network = dqn.init(seed=1).network
    random = torch.Generator().manual_seed(0)
    inputs = {"observation": torch.randn(300, OBSERVATION, generator=random)}
    inputs["action_mask"] = MASK.repeat(100, 1)
    if with_core:
        inputs["state"] = torch.randn(300, SIZE, generator=random)
    everywhere = torch.zeros(300, 3, dtype=torch.bool)
    for noise in dqn.noise(random, 200, EnvSlice(0, 300, 300)):
        chosen = dqn.act(network, inputs, noise)
        assert inputs["action_mask"].gather(1, chosen["action"][:, None]).all()
        everywhere.scatter_(1, chosen["action"][:, None], True)
        assert (chosen["q_best"] >= chosen["q_taken"]).all()
    assert torch.equal(everywhere, inputs["action_mask"]), "every valid action is explored"
    greedy = dqn.act_greedily(network, inputs)
    greedy = greedy if isinstance(greedy, Tensor) else greedy["action"]
    assert inputs["action_mask"].gather(1, greedy[:, None]).all()


@pytest.mark.parametrize("double", [False, True])
def test_the_best_next_action_is_a_valid_one(double: bool):
    config = DqnConfig(batch_size=5, updates_per_batch=3, double=double)
    dqn = make_dqn(config, NetworkSpec(hidden_sizes=(8,)), with_mask())
    assert isinstance(dqn, Dqn)
    names = [item.name for item in dqn.samples().sample_fields]
    assert "next_action_mask" in names
    assert "action_mask" not in names
    random = torch.Generator().manual_seed(0)
    state = dqn.init(seed=1)
    assert state.target is not None
    state.target.weights.load(dqn.init(seed=2).weights.vector)
    network, target = state.network.double(), state.target.network.double()
    batch = {
        "observation": torch.randn(1, 9, OBSERVATION, generator=random).double(),
        "next_observation": torch.randn(1, 9, OBSERVATION, generator=random).double(),
        "next_action_mask": MASK.repeat(3, 1)[None],
        "action": torch.randint(3, (1, 9), generator=random),
        "reward": torch.randn(1, 9, generator=random).double(),
        "discount": torch.full((1, 9), 0.9).double(),
        "weight": torch.ones(1, 9).double(),
    }
    _, told = dqn._loss(network, dqn._prepare(state, batch))
    q, next_q = network(batch["observation"][0]), network(batch["next_observation"][0])
    next_target = target(batch["next_observation"][0])
    for i in range(9):
        valid = batch["next_action_mask"][0, i].nonzero().flatten().tolist()
        ranking = (next_q if double else next_target)[i]
        best = max(valid, key=lambda a: ranking[a].item())
        wanted = batch["reward"][0, i] + 0.9 * next_target[i, best]
        error = (wanted - q[i, batch["action"][0, i]]).abs()
        assert told[3 + i].item() == pytest.approx(error.item(), abs=1e-7)


@pytest.mark.parametrize(
    "action",
    [
        gymnasium.spaces.MultiDiscrete([2, 3]),
        gymnasium.spaces.MultiBinary(3),
        gymnasium.spaces.Box(-1, 1, (2,)),
        gymnasium.spaces.Dict(
            go=gymnasium.spaces.Discrete(3), how=gymnasium.spaces.Box(-1, 1, (1,))
        ),
    ],
    ids=str,
)
def test_several_choices_at_once_are_refused(action: gymnasium.Space):
    with pytest.raises(ConfigError, match="discrete actions") as error:
        make_dqn(DqnConfig(), NetworkSpec(), Spaces(SPACES.observation, action))
    assert error.value.where == "env.id"
    assert type(action).__name__ in error.value.what
    assert "ppo" in (error.value.fix or "")


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (gymnasium.spaces.Discrete(3, start=5), (4,)),
        (gymnasium.spaces.MultiDiscrete([3]), (4, 1)),
        (gymnasium.spaces.Dict(go=gymnasium.spaces.Discrete(3)), (4, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_core", [False, True])
def test_one_choice_is_enough_whatever_it_is_wrapped_in(
    action: gymnasium.Space, shape: tuple[int, ...], with_core: bool
):
    config = DqnConfig(rollout_steps=STEPS, batch_size=5, updates_per_batch=2, burn_in_steps=3)
    network_of = network_spec() if with_core else NetworkSpec(hidden_sizes=(8,))
    dqn = make_dqn(config, network_of, Spaces(SPACES.observation, action))
    state = dqn.init(seed=0)
    inputs: dict[str, Tensor] = {"observation": torch.zeros(4, OBSERVATION)}
    if with_core:
        inputs["state"] = torch.zeros(4, SIZE)
    noise = dqn.noise(torch.Generator(), 1, EnvSlice(0, 4, 4))[0]
    assert dqn.act(state.network, inputs, noise)["action"].shape == shape
    batch = {
        item.name: torch.zeros(2, 5, *item.shape, dtype=getattr(torch, item.dtype))
        for item in dqn.samples().sample_fields
    }
    assert dqn.update(state, batch).samples_trained == 10 * (STEPS if with_core else 1)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_it_learns_to_act_on_what_was_seen_at_the_beginning_only(core: str):
    """The last action must be the one that the first observation named."""
    steps, count = 4, 64
    sizes = {"rollout_steps": steps, "batch_size": count, "updates_per_batch": 1}
    dqn = make(core, **sizes, burn_in_steps=0, learning_rate=3e-3, target_update_period=5)
    state, random = dqn.init(seed=0), torch.Generator().manual_seed(0)
    assert isinstance(state.network, QNetwork)
    assert state.network.core is not None
    size = state.network.core.state_size
    cue = torch.arange(count) % ACTIONS
    observation = torch.zeros(count, steps + 1, OBSERVATION)
    observation[torch.arange(count), 0, cue] = 1
    for _ in range(500):
        action = torch.randint(ACTIONS, (count, steps), generator=random)
        reward = torch.zeros(count, steps)
        reward[:, -1] = (action[:, -1] == cue).float()
        batch = {
            "observation": observation,
            "action": action,
            "valid": torch.ones(count, steps, dtype=torch.bool),
            "state": torch.zeros(count, size),
            "has_burn_in": torch.zeros(count, dtype=torch.bool),
            "reward": reward,
            "discount": torch.tensor([0.9] * (steps - 1) + [0.0]).expand(count, steps),
            "span": torch.ones(count, steps, dtype=torch.int64),
            "weight": torch.ones(count),
        }
        dqn.update(state, {name: values.unsqueeze(0) for name, values in batch.items()})
    with torch.no_grad():
        first = state.network.core.initial_state(count)
        q, _ = state.network.unroll(
            observation.transpose(0, 1), first, torch.ones(steps + 1, count)
        )
    assert torch.equal(q[steps - 1].argmax(-1), cue)
    best, worst = q[steps - 1].amax(-1), q[steps - 1].amin(-1)
    torch.testing.assert_close(best, torch.ones(count), rtol=0, atol=0.3)
    torch.testing.assert_close(worst, torch.zeros(count), rtol=0, atol=0.3)
