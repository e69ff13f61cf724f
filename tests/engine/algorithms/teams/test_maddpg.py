"""MADDPG against an implementation of its equations in float64, agent by agent, from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from msgspec.structs import replace
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from engine.algorithms.base import EnvSlice
from engine.algorithms.teams.maddpg import CHOSEN_AMONG, Maddpg
from engine.errors import ConfigError
from engine.layers.inputs import input_names
from engine.spec import EncoderSpec
from engine.testing import discrete_spaces, team_spaces
from tests.helpers.engine.continuous import of_state
from tests.helpers.engine.functional_steps import FunctionalTaker
from tests.helpers.engine.maddpg_by_hand import (
    CASES,
    CONFIG,
    MEMBERS,
    NETWORK,
    OBSERVATIONS,
    Case,
    Reference,
    algorithm_of,
    random_batch,
)


@pytest.mark.parametrize("taker", [None, FunctionalTaker()], ids=["eager", "functional"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_steps_are_those_of_the_paper(case: Case, taker: FunctionalTaker | None) -> None:
    algorithm = algorithm_of(case)
    state = algorithm.init(0)
    if taker is not None:
        state.steps = taker
    reference = Reference(case, *of_state(state))
    batch = random_batch(algorithm, case, 1)
    noise = algorithm.noise_of_losses(algorithm.init(0), 3, 16)
    drawn = {} if noise is None else {"noise": noise}
    samples = [
        {
            name: values[number] if values.dtype == torch.bool else values[number].double()
            for name, values in (batch | drawn).items()
        }
        for number in range(3)
    ]
    losses = np.mean([reference.step(sample) for sample in samples], 0)
    result = algorithm.update(state, batch)
    assert list(result.metrics) == ["critic_loss", "q_mean", "policy_loss"]
    assert list(result.metrics.values()) == pytest.approx(list(losses), rel=2e-5)
    found, followed = of_state(state)
    for key, values in reference.parameters.items():
        assert (found[key] - values).abs().max() < 2e-5, (key, (found[key] - values).abs().max())
    for key, values in reference.target.items():
        torch.testing.assert_close(followed[key], values, atol=1e-6, rtol=0, msg=key)
    assert state.num_updates == 3
    assert result.samples_trained == 48


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_actions_are_valid_and_greedy_ones_have_no_noise(case: Case) -> None:
    algorithm = algorithm_of(case, replace(CONFIG, exploration_noise=0.5))
    network = algorithm.network()
    network.acts_uniformly.data.zero_()
    noise = algorithm.noise(torch.Generator().manual_seed(0), 6, EnvSlice(0, 8, 8)).flatten(0, 1)
    batch = {name: v.flatten(0, 1) for name, v in random_batch(algorithm, case, 2).items()}
    inputs = {name: batch[name] for name in input_names(algorithm.fields) if name in batch}
    if case.has_masks:
        inputs["action_mask"] = batch["next_action_mask"]
    with torch.no_grad():
        chosen = algorithm.act(network, inputs, noise)
        greedy = algorithm.act_greedily(network, inputs)
    declared = {field.name: field for field in algorithm.fields if not field.extra_rows}
    assert {name: str(v.dtype)[6:] for name, v in chosen.items()} == {
        name: field.dtype for name, field in declared.items()
    }
    assert greedy.shape == chosen["action"].shape == (48, *declared["action"].shape)
    for agent in case.agents.values():
        for action in (greedy, chosen["action"]):
            assert (action[:, agent.reals].abs() <= 1).all()
            if agent.choice is not None:
                row = action[:, agent.choice, None].long()
                assert inputs["action_mask"][:, agent.mask].gather(1, row).all()
    assert not torch.equal(greedy, chosen["action"])
    if case.has_masks:
        assert torch.equal(chosen[CHOSEN_AMONG], inputs["action_mask"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_compiled_step_has_no_tensors_to_capture(case: Case) -> None:
    algorithm = algorithm_of(case)
    state = algorithm.init(0)
    batch = random_batch(algorithm, case, 1)
    noise = algorithm.noise_of_losses(state, 3, 16)
    drawn = {} if noise is None else {"noise": noise}
    names = [name for name in batch | drawn if name not in ("key", "version", "weight")]
    step = algorithm.step.functional(state)
    changed = algorithm.step.changed(state)

    def write(*values: Tensor) -> tuple[Tensor, Tensor]:
        own, (rate, *rest) = values[: len(changed)], values[len(changed) :]
        metrics, norm = step.write(own, rate, dict(zip(names, rest, strict=True)))
        return metrics, norm

    rows = [(batch | drawn)[name][0] for name in names]
    graph = make_fx(write, tracing_mode="fake")(*changed, torch.tensor(0.1), *rows)
    assert not [node for node in graph.graph.nodes if node.op == "get_attr"]


def test_statistics_are_of_the_agents_that_are_there() -> None:
    case = CASES["reals"]
    spaces = team_spaces(OBSERVATIONS, case.actions, MEMBERS)
    algorithm = Maddpg(CONFIG, replace(NETWORK, normalize_observation=True), spaces)
    state = algorithm.init(0)
    batch = random_batch(algorithm, case, 3)
    batch["observation.agents.adam"] += 3.0
    algorithm.update(state, batch)
    assert isinstance(state.network, torch.nn.Module)
    mean = state.network.get_parameter("inputs.1.statistics.mean")
    is_there = batch["observation.team.present"][..., 1] != 0
    wanted = batch["observation.agents.adam"][is_there].mean(0)
    torch.testing.assert_close(mean.detach(), wanted)
    assert state.network.get_parameter("state_input.statistics.count") == 48


def test_an_encoder_is_for_the_policies_that_observe_its_leaf() -> None:
    camera = Dict(camera=Box(0, 255, (5, 5, 3), np.uint8), age=Discrete(9))
    spaces = team_spaces({**OBSERVATIONS, "adam": camera}, CASES["reals"].actions, MEMBERS)
    encoders = {"camera": EncoderSpec(name="flatten"), "age": EncoderSpec(name="embedding", size=2)}
    algorithm = Maddpg(CONFIG, replace(NETWORK, encoders=encoders), spaces)
    hands, adam = (actor.trunk for actor in algorithm.network().actors)  # type: ignore[union-attr]
    assert hands[1].in_features == 3 + 2
    assert adam.trunk[1].in_features == 75 + 2
    algorithm = Maddpg(CONFIG, replace(NETWORK, encoders={"cam": EncoderSpec()}), spaces)
    with pytest.raises(ConfigError, match="no leaf 'cam'"):
        algorithm.network()


def test_it_is_for_teams_with_bounded_actions() -> None:
    with pytest.raises(ConfigError, match="several agents"):
        Maddpg(CONFIG, NETWORK, discrete_spaces())
    endless = dict.fromkeys(OBSERVATIONS, Box(-np.inf, np.inf, (2,), np.float32))
    with pytest.raises(ConfigError, match="maddpg needs actions with two bounds"):
        Maddpg(CONFIG, NETWORK, team_spaces(OBSERVATIONS, endless, MEMBERS))
