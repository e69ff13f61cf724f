"""A team's tensors, agent by agent."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torch.fx.experimental.proxy_tensor import make_fx

from engine.algorithms.teams.agents import TeamView, of_agents, of_all
from engine.algorithms.teams.critic_input import numbers
from engine.algorithms.teams.identity import identified_space, identify
from engine.errors import ConfigError
from engine.layers.inputs import map_leaves
from engine.rollout import Layout
from engine.spaces.observations import observation_leaves
from engine.testing import discrete_spaces, team_spaces

EYES = Box(-1, 1, (3,), np.float32)
ARMS = Dict(grip=Discrete(3), reach=Box(-1, 1, (2,), np.float32))
OBSERVATIONS = {
    "zoe": EYES,
    "adam": Dict(camera=Box(0, 255, (4, 5), np.uint8), age=Discrete(9)),
    "bob": EYES,
}
ACTIONS = {"zoe": ARMS, "adam": MultiDiscrete([2, 4]), "bob": ARMS}
MEMBERS = {"hands": ("zoe", "bob"), "adam": ("adam",)}


def view(**options: object) -> TeamView:
    return TeamView("test", team_spaces(OBSERVATIONS, ACTIONS, MEMBERS, **options))  # type: ignore[arg-type]


def filled(of: TeamView, num_steps: int = 4, num_envs: int = 2) -> dict[str, torch.Tensor]:
    """Every field holds other numbers."""
    layout = Layout(of.fields, num_steps, num_envs)
    generator = np.random.default_rng(0)
    return {
        field.name: torch.from_numpy(
            generator.integers(0, 2, layout.shape(field)).astype(field.dtype)
            if field.dtype != "float32"
            else generator.normal(size=layout.shape(field)).astype(np.float32)
        )
        for field in of.fields
    }


def test_one_agent_is_no_team() -> None:
    with pytest.raises(ConfigError, match="several agents"):
        TeamView("qmix", discrete_spaces())


def test_agents_keep_the_order_of_the_environment() -> None:
    hands, adam = view().team.policies
    assert (hands.agents, adam.agents) == ((0, 2), (1,))
    assert view().fields[0].name == "observation.agents.zoe"


def test_observations_are_stacked_by_policy() -> None:
    of = view()
    batch = filled(of)
    hands, adam = of.team.policies
    seen = of.observations(batch, hands)
    assert isinstance(seen, torch.Tensor)
    assert seen.shape == (5, 2, 2, 3)
    assert torch.equal(seen[..., 1, :], batch["observation.agents.bob"])
    images = of.observations(batch, adam)
    assert isinstance(images, dict)
    assert images["camera"].shape == (5, 2, 1, 4, 5)
    assert torch.equal(images["camera"][:, :, 0], batch["observation.agents.adam.camera"])


def test_joint_actions_are_the_inverse_of_each_agents() -> None:
    of = view()
    action = torch.arange(16.0).view(2, 8)
    assert of.action_field.shape == (8,)
    own = {policy.name: of.actions(action, policy) for policy in of.team.policies}
    assert own["adam"].dtype == torch.int64
    assert own["hands"].shape == (2, 2, 3)
    assert torch.equal(of.joint_action(own), action)


def test_who_acts_elsewhere_is_left_out_of_a_joint_action() -> None:
    of = view()
    assert of.policies == of.team.policies
    joint = team_spaces(OBSERVATIONS, ACTIONS, MEMBERS)
    assert joint.team is not None
    here = replace(joint, team=replace(joint.team, own=frozenset({"adam"})))
    apart = TeamView("test", here)
    (adam,) = apart.policies
    assert adam.name == "adam"
    assert (apart.columns_of(adam), apart.columns_of(of.policies[0])) == (
        [1, 2],
        [0, 4, 5, 3, 6, 7],
    )
    chosen = {"adam": torch.tensor([[[1, 3]], [[0, 2]]])}
    assert apart.joint_action(chosen).tolist() == [
        [0, 1, 3, 0, 0, 0, 0, 0],
        [0, 0, 2, 0, 0, 0, 0, 0],
    ]


def test_an_agents_choice_comes_before_its_reals() -> None:
    of = view()
    # The choices of zoe, adam (two) and bob, then the reals of zoe and of bob.
    action = torch.tensor([[10.0, 20, 21, 30, 11, 12, 31, 32]])
    hands, adam = of.team.policies
    assert of.actions(action, hands).tolist() == [[[10, 11, 12], [30, 31, 32]]]
    assert of.actions(action, adam).tolist() == [[[20, 21]]]


def test_masks_are_cut_by_agent() -> None:
    of = view(has_action_mask=True)
    mask = torch.arange(12).view(1, 12)
    hands, adam = of.team.policies
    found = of.masks({"action_mask": mask}, hands)
    assert found is not None
    assert found.tolist() == [[[0, 1, 2], [9, 10, 11]]]
    assert of.masks({}, adam) is None


def test_a_lone_choice_has_no_axis() -> None:
    spaces = team_spaces({"a": EYES, "b": EYES}, {"a": Discrete(2), "b": Discrete(2)})
    of = TeamView("test", spaces)
    (policy,) = of.team.policies
    action = torch.tensor([[0, 1], [1, 1]])
    assert of.actions(action, policy).shape == (2, 2)
    assert torch.equal(of.joint_action({"shared": of.actions(action, policy)}), action)


def test_numbers_of_each_policys_agents_come_back_in_the_order_of_agents() -> None:
    team, values = view().team, torch.arange(6).view(2, 3)
    apart = {policy.name: of_agents(values, policy) for policy in team.policies}
    assert apart["hands"].tolist() == [[0, 2], [3, 5]]
    assert torch.equal(of_all(apart, team), values)


def test_what_a_central_critic_sees() -> None:
    of = view()
    assert of.state_size == 3 + (9 + 20) + 3
    batch = filled(of)
    assert of.state(batch).shape == (5, 2, 35)
    central = view(state=Box(0, 1, (2, 2), np.float32))
    given = torch.arange(4.0).view(1, 2, 2)
    assert central.state_size == 4
    assert central.state({"observation.state": given}).tolist() == [[0, 1, 2, 3]]


def test_who_leaves_ends_its_own_episode() -> None:
    spaces = team_spaces({"a": EYES, "b": EYES}, {"a": Discrete(2), "b": Discrete(2)})
    of = TeamView("test", spaces)
    (policy,) = of.team.policies
    # b is gone after step 0, by termination; a's episode is truncated with the team's in step 2.
    # Step 3 only resets; then both are there.
    present = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0], [1, 1], [1, 1]])[:, None]
    ended = torch.tensor([[0, 0], [0, 1], [0, 1], [0, 1], [0, 0], [0, 0]])[:, None]
    reward = torch.arange(12.0).view(6, 1, 2)
    steps = of.steps(
        {
            "observation.team.present": present,
            "observation.team.terminated": ended,
            "observation.team.reward": reward,
            "valid": torch.tensor([[True], [True], [True], [False], [True]]),
            "terminated": torch.zeros(5, 1, dtype=torch.bool),
            "truncated": torch.tensor([[False], [False], [True], [False], [False]]),
        },
        policy,
    )
    assert steps.valid[:, 0].int().tolist() == [[1, 1], [1, 0], [1, 0], [0, 0], [1, 1]]
    assert steps.terminated[:, 0].int().tolist() == [[0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert steps.truncated[:, 0].int().tolist() == [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]]
    assert steps.reward[:, 0].tolist() == [[2, 3], [4, 0], [6, 0], [0, 0], [10, 11]]


def test_a_critic_sees_choices_one_by_one_and_bytes_as_shares() -> None:
    age = numbers(torch.tensor([[3], [5]]), Discrete(3, start=3))
    assert age.tolist() == [[[1, 0, 0]], [[0, 0, 1]]]
    pixels = numbers(torch.tensor([[[0, 255]]], dtype=torch.uint8), Box(0, 255, (1, 2), np.uint8))
    assert pixels.tolist() == [[0, 1]]
    assert numbers(torch.tensor([2.0]), Box(0, 9, (), np.float32)).tolist() == [[2]]


@pytest.mark.parametrize(
    "space",
    [
        EYES,
        Box(0, 255, (4, 5, 3), np.uint8),
        Dict(camera=Box(0, 1, (2, 2), np.float32), speed=EYES),
    ],
)
def test_observations_with_the_number_of_their_agent(space: gymnasium.Space[object]) -> None:
    of = TeamView("test", team_spaces({"a": space, "b": space}, dict.fromkeys("ab", Discrete(2))))
    (policy,) = of.team.policies
    told = identify(of.observations(filled(of), policy), policy, (5, 2))
    leaves = observation_leaves(identified_space(space, 2))
    if isinstance(told, torch.Tensor):
        assert told.shape == (5, 2, 2, 5)
        assert told[0, 0, :, 3:].tolist() == [[1, 0], [0, 1]]
        return
    shapes = {name.removeprefix("observation."): leaf.space.shape for name, leaf in leaves.items()}
    assert {name: tuple(leaf.shape) for name, leaf in told.items()} == {
        name: (5, 2, 2, *(shape or ())) for name, shape in shapes.items()
    }
    assert map_leaves(lambda leaf: leaf[0, 0], told)["agent_id"].tolist() == [0, 1]  # type: ignore[index]


def test_a_compiled_function_can_take_a_team_apart() -> None:
    of = view(has_action_mask=True)
    batch = filled(of)

    def use(*arguments: torch.Tensor) -> torch.Tensor:
        values = dict(zip(batch, arguments, strict=True))
        lead = (5, 2)
        used = [of.state(values)]
        for policy in of.team.policies:
            map_leaves(used.append, identify(of.observations(values, policy), policy, lead))  # type: ignore[arg-type]
            mask = of.masks(values, policy)
            assert mask is not None
            used.append(mask)
        own = {policy.name: of.actions(values["action"], policy) for policy in of.team.policies}
        return torch.cat([part.flatten().float() for part in (*used, of.joint_action(own))])

    graph = make_fx(use, tracing_mode="fake")(*batch.values())
    assert not [node.target for node in graph.graph.nodes if node.op == "get_attr"]


def test_a_leaf_with_the_name_of_the_number_is_not_replaced() -> None:
    with pytest.raises(ConfigError, match="agent_id"):
        identified_space(Dict(agent_id=EYES, speed=EYES), 2)
