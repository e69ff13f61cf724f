"""Updates on a GPU are those of the processor; graphs are eager steps; what each costs."""

from __future__ import annotations

import gymnasium
import msgspec
import numpy as np
import torch

from engine.algorithms.base import LearnerState
from engine.blueprint import Blueprint, make_blueprint
from engine.compilation.graphed import GraphedSteps
from engine.devices.interface import Device
from engine.devices.tensors import BOOKKEEPING, state_on
from engine.rollout import Layout
from engine.spec import EnvSpec, Experiment, NetworkSpec, Scalar, StalenessSpec
from engine.testing import make_experiment
from tests.gpu.proof import Check, Setting, seconds_of

APART = 0.01
"""How far two updates may be apart, relative to how far one moves the parameters: sums are added up
in another order, and Adam divides by their size."""
FRAMES = "TianJiGpuProof/Frames-v0"
UPDATES = 5


class Frames(gymnasium.Env[np.ndarray, int]):
    """Stacks of frames, of which only the shape matters."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        return np.zeros((4, 84, 84), np.uint8), {}

    def step(self, action):
        return np.zeros((4, 84, 84), np.uint8), 0.0, False, False, {}


def _experiment(env: EnvSpec, network: NetworkSpec, **algorithm: Scalar) -> Experiment:
    base = make_experiment(env=env, staleness=StalenessSpec(mode="unbounded"))
    if algorithm["name"] == "ppo":
        base = make_experiment(env=env)
    return msgspec.structs.replace(base, algorithm=algorithm, network=network)


def small(name: str) -> Experiment:
    """PPO, IMPALA, DQN or SAC on vectors."""
    network = NetworkSpec(hidden_sizes=(64, 64))
    replayed = {"min_replay_size": 64, "updates_per_batch": 8, "batch_size": 64}
    queued = {"rollout_steps": 32, "batch_steps": 1024}
    settings: dict[str, dict[str, Scalar]] = {
        "ppo": {**queued, "minibatch_steps": 256, "num_epochs": 2},
        "impala": queued,
        "dqn": replayed,
        "sac": replayed,
    }
    env = EnvSpec(id="Pendulum-v1" if name == "sac" else "CartPole-v1", num_envs=8)
    return _experiment(env, network, name=name, **settings[name])


def images(precision: str) -> Experiment:
    """IMPALA on frames with the Nature CNN, batches of 640."""
    if FRAMES not in gymnasium.registry:
        gymnasium.register(FRAMES, entry_point=Frames)
    assert precision in ("float32", "bfloat16")
    network = NetworkSpec(name="nature_cnn", precision=precision)  # type: ignore[arg-type]
    sizes = {"rollout_steps": 20, "batch_steps": 640}
    return _experiment(EnvSpec(id=FRAMES, num_envs=8), network, name="impala", **sizes)


def batch_of(blueprint: Blueprint, seed: int) -> dict[str, torch.Tensor]:
    """A batch of random numbers in main memory."""
    layout = blueprint.samples
    if blueprint.replay is None:
        of_one = blueprint.layout
        width = of_one.num_envs * blueprint.rollouts_per_batch
        layout = Layout(of_one.fields, of_one.num_steps, width)
    random, batch = np.random.default_rng(seed), {}
    for name, array in layout.views(layout.allocate()).items():
        if name in ("valid", "weight"):
            array[...] = 1
        elif array.dtype == np.uint8:
            array[...] = random.integers(0, 256, array.shape)
        elif array.dtype.kind == "f":
            array[...] = random.normal(size=array.shape)
        elif name in ("terminated", "truncated"):
            array[...] = random.random(array.shape) < 0.02
        else:
            array[...] = random.integers(0, 2, array.shape)
        if name == "log_prob":
            array[...] = -0.7
        batch[name] = torch.from_numpy(array)
    return batch


def moved(batch: dict[str, torch.Tensor], device: Device) -> dict[str, torch.Tensor]:
    return {
        name: values if name in BOOKKEEPING else values.to(device.place)
        for name, values in batch.items()
    }


def _states(blueprint: Blueprint, device: Device, *, graphs: bool) -> LearnerState:
    state = state_on(device.place, blueprint.algorithm.init(1))
    if graphs:
        words: list[str] = []
        state.steps = GraphedSteps(device, words.append)
    return state


def _distance(one: LearnerState, other: LearnerState, first: torch.Tensor) -> float:
    """How far two states are apart, relative to how far the second has moved."""
    here, there = (state.weights.vector.detach().cpu() for state in (one, other))
    return float(torch.linalg.vector_norm(here - there) / torch.linalg.vector_norm(there - first))


def equality(name: str, setting: Setting, *, graphs: bool) -> dict[str, float]:
    """A few updates of one seed there and here."""
    blueprint = make_blueprint(small(name))
    here = blueprint.algorithm.init(1)
    first = here.weights.vector.detach().clone()
    there = _states(blueprint, setting.device, graphs=graphs)
    for number in range(UPDATES):
        batch = batch_of(blueprint, number)
        wanted = blueprint.algorithm.update(here, batch).metrics
        found = blueprint.algorithm.update(there, moved(batch, setting.device)).metrics
        for key, value in wanted.items():
            assert abs(found[key] - value) <= 0.02 * abs(value) + 0.005, f"{key}: {found} {wanted}"
    apart = _distance(there, here, first)
    assert apart < APART, f"{apart:.3g} of the way apart"
    return {"apart": apart}


def graph_against_eager(name: str, setting: Setting) -> dict[str, float]:
    """The same on the device itself, and the time of an update either way."""
    blueprint, device = make_blueprint(small(name)), setting.device
    eager, graphed = (_states(blueprint, device, graphs=graphs) for graphs in (False, True))
    first = eager.weights.vector.detach().cpu().clone()
    batches = [moved(batch_of(blueprint, number), device) for number in range(UPDATES)]
    for batch in batches:
        for state in (eager, graphed):
            blueprint.algorithm.update(state, batch)
    apart = _distance(graphed, eager, first)
    assert apart < APART, f"{apart:.3g} of the way apart"
    assert isinstance(graphed.steps, GraphedSteps)
    assert graphed.steps.has_graph, "it was not recorded"
    times = {
        f"{kind} ms": 1e3
        * seconds_of(
            device,
            lambda state=state: blueprint.algorithm.update(state, batches[0]) and None,
            max(3, int(30 * setting.scale)),
        )
        for kind, state in (("eager", eager), ("graph", graphed))
    }
    if not setting.is_rehearsal:
        assert times["graph ms"] < times["eager ms"], f"a graph is not faster: {times}"
    return {"apart": apart, **times}


def precisions(setting: Setting) -> dict[str, float]:
    """The time of an update on images in both precisions, and that both go the same way."""
    device, figures, metrics = setting.device, {}, []
    for precision in ("float32", "bfloat16"):
        blueprint = make_blueprint(images(precision))
        state, batch = _states(blueprint, device, graphs=True), batch_of(blueprint, 1)
        there = moved(batch, device)
        metrics.append(blueprint.algorithm.update(state, there).metrics)
        seconds = seconds_of(
            device,
            lambda state=state, there=there, run=blueprint: (
                run.algorithm.update(state, there) and None
            ),
            max(1, int(20 * setting.scale)),
        )
        figures[f"{precision} ms"] = 1e3 * seconds
        figures[f"{precision} samples/s"] = 640 / seconds
    for key, value in metrics[0].items():
        assert abs(metrics[1][key] - value) <= 0.1 * abs(value) + 0.05, f"{key}: {metrics}"
    return figures


def falls_back(setting: Setting) -> dict[str, float]:
    """A loss that reads a value cannot be recorded; training goes on eagerly, and is the same."""
    blueprint, device = make_blueprint(small("impala")), setting.device
    eager, other = (_states(blueprint, device, graphs=graphs) for graphs in (False, True))
    sound = blueprint.algorithm._step  # type: ignore[attr-defined]

    def reads(loss):
        def changed(network, minibatch):
            value, told = loss(network, minibatch)
            assert float(minibatch["reward"].sum()) < float("inf")
            return value, told

        return changed

    blueprint.algorithm._step = sound.with_losses(reads)  # type: ignore[attr-defined]
    for number in range(3):
        batch = moved(batch_of(blueprint, number), device)
        for state in (eager, other):
            blueprint.algorithm.update(state, batch)
    assert isinstance(other.steps, GraphedSteps)
    assert setting.is_rehearsal or not other.steps.has_graph
    torch.testing.assert_close(other.weights.vector, eager.weights.vector, rtol=1e-3, atol=1e-5)
    return {}


NAMES = ("ppo", "impala", "dqn", "sac")
CHECKS = (
    *(
        Check(
            f"{name}: updates as on the processor, {'graphs' if graphs else 'eager'}",
            lambda setting, name=name, graphs=graphs: equality(name, setting, graphs=graphs),
            20,
        )
        for name in NAMES
        for graphs in (False, True)
    ),
    *(
        Check(
            f"{name}: graphs as eager steps",
            lambda setting, name=name: graph_against_eager(name, setting),
            20,
        )
        for name in NAMES
    ),
    Check("a loss that reads a value falls back to eager", falls_back, 20),
    Check("impala on images, float32 and bfloat16", precisions, 40),
)
