"""MADDPG in float64, agent by agent, from the paper; and samples of a team to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor
from torch.nn.functional import one_hot

from engine.algorithms.teams.maddpg import CHOSEN_AMONG, Maddpg, MaddpgConfig
from engine.spaces.leaves import AnySpace
from engine.spec import NetworkSpec
from engine.testing import team_spaces
from tests.helpers.engine.continuous import Adam64, Parameters

NETWORK = NetworkSpec(hidden_sizes=(8, 6), activation="relu", policy_gain=1.0)
CONFIG = MaddpgConfig(
    batch_size=16,
    updates_per_batch=3,
    num_critics=2,
    learning_rate=3e-3,
    discount=0.9,
    min_replay_size=0,
    gumbel_temperature=0.8,
    output_penalty=0.1,
    max_gradient_norm=None,
)
EYES: AnySpace = Box(-1, 1, (3,), np.float32)
ARMS: AnySpace = Dict(grip=Discrete(3), reach=Box(-1, 1, (2,), np.float32))
OBSERVATIONS: dict[str, AnySpace] = {"zoe": EYES, "adam": Box(-1, 1, (2,), np.float32), "bob": EYES}
MEMBERS = {"hands": ("zoe", "bob"), "adam": ("adam",)}


@dataclass(frozen=True)
class Agent:
    """Where to find what belongs to an agent: its number in the team, its policy, its number there,
    the column of its choice, the number of choices, the columns of its reals, its valid choices in
    the mask and its noise."""

    number: int
    policy: int
    own_number: int | None
    choice: int | None
    num_choices: int
    reals: slice
    mask: slice
    noise: slice


@dataclass(frozen=True)
class Case:
    actions: dict[str, AnySpace]
    agents: dict[str, Agent]
    has_masks: bool


NOTHING = slice(0)
CASES = {
    "choices and reals": Case(
        {"zoe": ARMS, "adam": Discrete(4), "bob": ARMS},
        {
            "zoe": Agent(0, 0, 0, 0, 3, slice(3, 5), slice(0, 3), slice(0, 5)),
            "adam": Agent(1, 1, None, 1, 4, NOTHING, slice(3, 7), slice(10, 14)),
            "bob": Agent(2, 0, 1, 2, 3, slice(5, 7), slice(7, 10), slice(5, 10)),
        },
        has_masks=True,
    ),
    "reals": Case(
        dict.fromkeys(("zoe", "adam", "bob"), Box(-2, 2, (2,), np.float32)),
        {
            "zoe": Agent(0, 0, 0, None, 0, slice(0, 2), NOTHING, NOTHING),
            "adam": Agent(1, 1, None, None, 0, slice(2, 4), NOTHING, NOTHING),
            "bob": Agent(2, 0, 1, None, 0, slice(4, 6), NOTHING, NOTHING),
        },
        has_masks=False,
    ),
}


def algorithm_of(case: Case, config: MaddpgConfig = CONFIG) -> Maddpg:
    spaces = team_spaces(OBSERVATIONS, case.actions, MEMBERS, has_action_mask=case.has_masks)
    return Maddpg(config, NETWORK, spaces)


def random_batch(algorithm: Maddpg, case: Case, seed: int) -> dict[str, Tensor]:
    """Samples as a store gives them: some agents are not there, some end, and so do some teams."""
    request = algorithm.samples().replay
    assert request is not None
    shape = (request.updates_per_batch, request.batch_size)
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for field in algorithm.samples().sample_fields:
        drawn = torch.rand(*shape, *field.shape, generator=generator)
        batch[field.name] = drawn > 0.3 if field.dtype == "bool" else 2 * drawn - 1
        if field.dtype == "int8":
            batch[field.name] = (drawn < 0.7).to(torch.int8)
    for agent in case.agents.values():
        if agent.choice is not None:
            chosen = torch.randint(agent.num_choices, shape, generator=generator)
            batch["action"][..., agent.choice] = chosen.to(torch.float32)
            for name in ("next_action_mask", CHOSEN_AMONG):
                batch[name][..., agent.mask.start] = True
    batch["discount"] = torch.full(shape, 0.9)
    batch["discount"][:, ::5] = 0.0
    return batch


def layers64(parameters: Parameters, module: str, x: Tensor) -> Tensor:
    for number in (1, 3):
        name = f"{module}.trunk.{number}"
        x = torch.relu(x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"])
    return x @ parameters[f"{module}.head.weight"].T + parameters[f"{module}.head.bias"]


def noise_of(sample: Mapping[str, Tensor], state: int) -> Tensor:
    """Of what is sampled in s_t (0) or s_tm1 (1); anything if nothing is."""
    return sample["noise"][:, state] if "noise" in sample else torch.ones(1)


class Reference:
    """Lowe et al. (2017), algorithm 1, with samples, parameters and all arithmetic in float64."""

    def __init__(self, case: Case, parameters: Parameters, target: Parameters) -> None:
        self.agents, self.parameters, self.target = case.agents, parameters, target
        self.adam = Adam64(CONFIG.learning_rate)

    def outputs(self, parameters: Parameters, name: str, seen: Tensor) -> Tensor:
        agent = self.agents[name]
        if agent.own_number is not None:
            seen = torch.cat((seen, torch.eye(2).double()[agent.own_number].expand(16, -1)), -1)
        return layers64(parameters, f"actors.{agent.policy}", seen)

    def q(
        self, parameters: Parameters, name: str, state: Tensor, joint: dict[str, Tensor]
    ) -> Tensor:
        """Of both critics, [2, N]."""
        agent, values = self.agents[name], []
        inputs = [state, joint["zoe"], joint["bob"], joint["adam"]]
        if agent.own_number is not None:
            inputs.append(torch.eye(2).double()[agent.own_number].expand(16, -1))
        module = f"critics.{agent.policy}"
        for critic in range(2):
            x = torch.cat(inputs, -1)
            for layer in ("hidden.0", "hidden.2"):
                weight = parameters[f"{module}.{layer}.weight"][critic]
                x = torch.relu(x @ weight + parameters[f"{module}.{layer}.bias"][critic])
            head = parameters[f"{module}.head.weight"][critic]
            values.append((x @ head + parameters[f"{module}.head.bias"][critic]).squeeze(-1))
        return torch.stack(values)

    def sampled(self, name: str, outputs: Tensor, noise: Tensor, mask: Tensor | None) -> Tensor:
        agent = self.agents[name]
        parts, split = [], agent.num_choices
        if split:
            assert mask is not None
            scores = outputs[:, :split] - noise[:, agent.noise][:, :split].log()
            scores = scores.masked_fill(~mask[:, agent.mask], -1e9)
            soft = torch.softmax(scores / CONFIG.gumbel_temperature, -1)
            hard = one_hot(scores.argmax(-1), split).double()
            parts.append(hard + soft - soft.detach())
        return torch.cat((*parts, torch.tanh(outputs[:, split:])), -1)

    def taken(self, name: str, sample: Mapping[str, Tensor]) -> Tensor:
        agent, action, parts = self.agents[name], sample["action"], []
        if agent.choice is not None:
            parts.append(one_hot(action[:, agent.choice].long(), agent.num_choices).double())
        is_there = sample["observation.team.present"][:, agent.number, None]
        return torch.cat((*parts, action[:, agent.reals]), -1) * is_there

    def critics_loss(self, policy: int, sample: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        after = {name: sample[f"next_observation.agents.{name}"] for name in OBSERVATIONS}
        present, there_then, ended = (
            sample[name].bool()
            for name in (
                "observation.team.present",
                "next_observation.team.present",
                "next_observation.team.terminated",
            )
        )
        future = {}
        for name, agent in self.agents.items():
            outputs = self.outputs(self.target, name, after[name])
            noise, mask = sample.get("noise"), sample.get("next_action_mask")
            action = self.sampled(
                name, outputs, torch.ones(1) if noise is None else noise[:, 0], mask
            )
            number = agent.number
            acts = there_then[:, number] | (present[:, number] & ~ended[:, number])
            future[name] = action * acts[:, None]
        losses, values, counts = [], [], []
        state = torch.cat([sample[f"observation.agents.{name}"] for name in OBSERVATIONS], -1)
        for name, agent in self.agents.items():
            if agent.policy != policy:
                continue
            with torch.no_grad():
                next_q = self.q(self.target, name, torch.cat(list(after.values()), -1), future)
                discount = sample["discount"] * ~ended[:, agent.number]
                reward = sample["next_observation.team.reward"][:, agent.number]
                y = reward + discount * next_q.min(0).values
            q = self.q(
                self.parameters, name, state, {n: self.taken(n, sample) for n in OBSERVATIONS}
            )
            acted = present[:, agent.number]
            losses.append((acted * (q - y) ** 2).sum())
            values.append((acted * q).sum() / len(q))
            counts.append(acted.sum())
        count = torch.stack(counts).sum().clamp(min=1)
        return torch.stack(losses).sum() / count, torch.stack(values).sum() / count

    def actors_loss(self, policy: int, sample: Mapping[str, Tensor]) -> Tensor:
        losses, counts = [], []
        state = torch.cat([sample[f"observation.agents.{name}"] for name in OBSERVATIONS], -1)
        for name, agent in self.agents.items():
            if agent.policy != policy:
                continue
            outputs = self.outputs(self.parameters, name, sample[f"observation.agents.{name}"])
            own = self.sampled(name, outputs, noise_of(sample, 1), sample.get(CHOSEN_AMONG))
            joint = {other: self.taken(other, sample) for other in OBSERVATIONS} | {name: own}
            q = self.q(self.parameters, name, state, joint)[0]
            penalty = CONFIG.output_penalty * (outputs**2).mean(-1)
            acted = sample["observation.team.present"][:, agent.number]
            losses.append((acted * (penalty - q)).sum())
            counts.append(acted.sum())
        return torch.stack(losses).sum() / torch.stack(counts).sum().clamp(min=1)

    def step(self, sample: Mapping[str, Tensor]) -> tuple[float, float, float]:
        """One update of all; the means over policies of their losses and values."""
        critics = [self.critics_loss(policy, sample) for policy in (0, 1)]
        for policy, (loss, _) in enumerate(critics):
            self.adam.step(loss, self.parameters, f"critics.{policy}.")
        actors = [self.actors_loss(policy, sample) for policy in (0, 1)]
        for policy, loss in enumerate(actors):
            self.adam.step(loss, self.parameters, f"actors.{policy}.")
        for name, values in self.target.items():
            values += CONFIG.target_update_rate * (self.parameters[name].detach() - values)
        told = [
            torch.stack(values).mean().item() for values in (*zip(*critics, strict=True), actors)
        ]
        return told[0], told[1], told[2]
