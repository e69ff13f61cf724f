"""Actor, store and learner of a network with memory agree: what the learner unrolls from stored
states is what the actor saw, as long as both have the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from engine.algorithms.q_network import QNetwork
from engine.algorithms.recurrent_dqn import RecurrentDqn
from engine.batch_shares import Sharing, share_of_replay
from engine.blueprint import Blueprint, make_blueprint
from engine.clock import ManualClock
from engine.executors.actor import ActorExecutor
from engine.executors.replay_buffer import ReplayExecutor, limiter_of
from engine.roles.commands import (
    CollectRollout,
    DrawSamples,
    InsertRollout,
    LoadWeights,
    SetPriorities,
)
from engine.rollout import Priorities, Rollout, Weights
from engine.spec import CoreSpec, EnvSpec, StalenessSpec
from engine.testing import make_experiment

STEPS, ENVS = 7, 4


def make(core: str, burn_in_steps: int) -> Blueprint:
    experiment = make_experiment(
        actors=1,
        env=EnvSpec(id="CartPole-v1", num_envs=ENVS),
        staleness=StalenessSpec(mode="unbounded"),
    )
    algorithm = {
        **{"name": "apex", "rollout_steps": STEPS, "burn_in_steps": burn_in_steps},
        **{"batch_size": 16, "updates_per_batch": 3, "replay_ratio": 2.0},
        **{"replay_capacity": 280, "min_replay_size": 100, "epsilon_initial": 1.0},
    }
    memory = CoreSpec(name=core, size=5)  # type: ignore[arg-type]
    network = replace(experiment.network, core=memory)
    return make_blueprint(replace(experiment, algorithm=algorithm, network=network))


def collect(blueprint: Blueprint, vector: torch.Tensor, count: int) -> list[Rollout]:
    executor = ActorExecutor(blueprint, 0, 0, ManualClock())
    executor.perform(LoadWeights(Weights(3, vector.numpy().view(np.uint8))))
    found = []
    for ticket in range(count):
        executor.perform(CollectRollout(ticket))
        while executor.is_busy:
            found += [event.rollout for event in executor.advance(0.0)]
    executor.close()
    return found


@pytest.mark.parametrize("burn_in_steps", [0, 3, STEPS])
@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_the_learner_unrolls_the_values_that_the_actor_saw(core: str, burn_in_steps: int):
    blueprint = make(core, burn_in_steps)
    algorithm = blueprint.algorithm
    assert isinstance(algorithm, RecurrentDqn)
    state = algorithm.init(0)
    assert isinstance(state.network, QNetwork)
    rollouts = collect(blueprint, state.weights.vector.detach().clone(), 14)
    views = [blueprint.layout.views(rollout.buffer) for rollout in rollouts]
    assert any(not view["valid"].all() for view in views), "some episode has ended"
    store = ReplayExecutor(blueprint, 0, ManualClock())
    for rollout in rollouts:
        store.perform(InsertRollout(rollout))
    (drawn,) = store.perform(DrawSamples(0))
    arrays = blueprint.samples.views(drawn.samples.buffer)
    samples = {
        name: torch.from_numpy(array.reshape(-1, *array.shape[2:]))
        for name, array in arrays.items()
    }
    with torch.no_grad():
        q = algorithm._unroll(state.network, samples)
    action = samples["action"][:, burn_in_steps:].t().unsqueeze(-1)
    taken = q[:-1].gather(-1, action).squeeze(-1)
    for i, key in enumerate(samples["key"].tolist()):
        number, env = divmod(key, ENVS)
        wanted = torch.from_numpy(np.asarray(views[number]["q_taken"][:, env]))
        torch.testing.assert_close(taken[:, i], wanted, rtol=0, atol=1e-5)
    # The ten newest are kept; of the oldest of them the one before is gone.
    has_burn_in = samples["key"] // ENVS > 4
    assert torch.equal(samples["has_burn_in"], has_burn_in & (burn_in_steps > 0))


def test_a_drawn_sequence_counts_as_all_of_its_steps():
    blueprint = make("gru", 3)
    limiter = limiter_of(blueprint)
    for _ in range(30):
        ticket = limiter.admit("actor-0")
        if ticket is None:
            break
        limiter.arrive(ticket, STEPS * ENVS)
    assert limiter.take_batch()
    assert limiter.sampled == 16 * 3 * STEPS
    assert blueprint.replay is not None
    part = share_of_replay(blueprint.replay, Sharing((ENVS, ENVS), 0, (9, 7)), 1)
    assert part.sequence == blueprint.replay.sequence
    assert part.samples_per_batch == 7 * 3 * STEPS


def test_a_sequence_with_a_large_error_is_drawn_more_often():
    blueprint = make("gru", 3)
    store = ReplayExecutor(blueprint, 0, ManualClock())
    vector = blueprint.algorithm.init(0).weights.vector.detach().clone()
    for rollout in collect(blueprint, vector, 4):
        store.perform(InsertRollout(rollout))
    layout = blueprint.priorities
    buffer = layout.allocate()
    views = layout.views(buffer)
    views["key"].reshape(-1)[:16] = np.arange(16)
    views["key"].reshape(-1)[16:] = 0
    views["error"][...] = 1e-9
    views["error"].reshape(-1)[5] = 1e3
    store.perform(SetPriorities(Priorities(buffer)))
    (drawn,) = store.perform(DrawSamples(0))
    keys = np.asarray(blueprint.samples.views(drawn.samples.buffer)["key"])
    assert (keys == 5).mean() > 0.8
