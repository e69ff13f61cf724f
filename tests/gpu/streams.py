"""Batches come and weights leave beside the work of the device, not instead of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from engine.blueprint import make_blueprint
from engine.clock import ManualClock
from engine.compilation.carried_inference import CarriedInference
from engine.devices.publishing import Publisher
from engine.devices.staging import AheadStaging
from engine.executors.actor import ActorExecutor
from engine.roles.commands import CollectRollout, LoadWeights
from engine.roles.events import RolloutCollected
from engine.rollout import Arrays, Field, Layout, Weights
from tests.gpu.proof import Check, Setting, seconds_of
from tests.gpu.updates import images, small

BATCH_BYTES = 64 << 20
NUM_FLOATS = 1 << 20


class _Batch:
    def __init__(self, number: int) -> None:
        self.number = number


def _load(setting: Setting) -> Callable[[], None]:
    """About ten milliseconds of products on a GPU."""
    size = 512 if setting.is_rehearsal else 4096
    values = torch.randn(size, size, device=setting.device.place)

    def work() -> None:
        for _ in range(3):
            torch.mm(values, values)

    return work


def staging(setting: Setting) -> dict[str, float]:
    """Copies of the next batch overlap with training, and every batch arrives whole."""
    device = setting.device
    layout = Layout((Field("observation", "uint8", (BATCH_BYTES // 64,)),), 8, 8)
    work = _load(setting)

    def pack(arrays: Arrays, batch: _Batch) -> None:
        arrays["observation"][0, 0, :8] = batch.number

    staged = AheadStaging(device, layout, pack)
    repeats = max(3, int(20 * setting.scale))

    def alone() -> None:
        work()
        device.main.record().wait()

    busy_s = seconds_of(device, alone, repeats)

    def in_turn() -> None:
        staged.fill(_Batch(1))
        work()
        device.main.record().wait()  # as an update does, which reads its metrics

    in_turn_s = seconds_of(device, in_turn, repeats)
    number, ahead = 0, _Batch(0)

    def beside_ahead() -> None:
        nonlocal number, ahead
        batch = staged.fill(ahead)
        work()
        checked.append(batch["observation"][0, 0, 0].clone())
        number += 1
        ahead = _Batch(number % 251)
        staged.stage(ahead)
        device.main.record().wait()

    checked: list[torch.Tensor] = []
    beside_s = seconds_of(device, beside_ahead, repeats)
    wanted = [n % 251 for n in range(len(checked))]
    assert [int(value) for value in checked] == wanted, "a batch was overwritten"
    copy_s = max(in_turn_s - busy_s, 1e-9)
    hidden = (in_turn_s - beside_s) / copy_s
    if not setting.is_rehearsal:
        assert hidden > 0.5, f"{hidden:.0%} of the copy is hidden"
    return {
        "update ms": 1e3 * busy_s,
        "copy first ms": 1e3 * in_turn_s,
        "copy beside ms": 1e3 * beside_s,
        "hidden %": 100 * hidden,
    }


def publishing(setting: Setting) -> dict[str, float]:
    """Weights leave while the device works on, and are those of their moment."""
    device, work = setting.device, _load(setting)
    publisher = Publisher(device, NUM_FLOATS)
    vector = torch.zeros(NUM_FLOATS, device=device.place)
    repeats = max(3, int(20 * setting.scale))
    latencies_s, calls_s = [], []

    def alone() -> None:
        work()
        vector.add_(1)

    def with_weights() -> None:
        alone()
        publisher.publish(0, vector)
        publisher.take()

    alone_s = seconds_of(device, alone, repeats)
    beside_s = seconds_of(device, with_weights, repeats)
    publisher.wait()
    while publisher.take() is not None:
        pass
    for version in range(repeats):
        vector.fill_(float(version))
        device.main.record().wait()
        began_s = time.perf_counter()
        publisher.publish(version, vector)
        calls_s.append(time.perf_counter() - began_s)
        for _ in range(4):
            work()  # the next update
        vector.fill_(-1.0)
        while (weights := publisher.take()) is None:
            assert time.perf_counter() - began_s < 10, "no weights come"
        latencies_s.append(time.perf_counter() - began_s)
        values = weights.buffer.view(np.float32)
        assert weights.version == version
        assert (values[0], values[-1]) == (version, version), "they are of another moment"
    if not setting.is_rehearsal:
        assert beside_s < 1.25 * alone_s, "publishing stops the device"
        assert min(latencies_s) < 3 * alone_s, "weights wait for the next update"
    return {
        "call us": 1e6 * float(np.median(calls_s)),
        "latency ms": 1e3 * float(np.median(latencies_s)),
        "update ms": 1e3 * alone_s,
        "update with publishing ms": 1e3 * beside_s,
    }


def acting(setting: Setting) -> dict[str, float]:
    """Actions are chosen on the device by the same probabilities; the time of a vector step."""
    figures: dict[str, float] = {}
    for name, experiment in (("vectors", small("ppo")), ("images", images("bfloat16"))):
        blueprint = make_blueprint(experiment)
        vector = blueprint.algorithm.init(1).weights.vector.detach().numpy().copy()
        for kind, device in (("processor", None), ("device", setting.device)):
            executor = ActorExecutor(
                blueprint, 0, 0, ManualClock(1.0), device=device, compiles=device is not None
            )
            executor.perform(LoadWeights(Weights(0, vector.view(np.uint8))))
            took_s = []
            for ticket in range(max(2, int(6 * setting.scale))):
                began_s = time.perf_counter()
                executor.perform(CollectRollout(ticket))
                (event,) = executor.advance(float("inf"))
                took_s.append(time.perf_counter() - began_s)
            assert isinstance(event, RolloutCollected)
            steps = blueprint.layout.num_steps
            figures[f"{name} on {kind} us/step"] = 1e6 * min(took_s) / steps
            views = blueprint.layout.views(event.rollout.buffer)
            _check_log_prob(blueprint, vector, views)
            if device is not None:
                assert isinstance(executor._inference, CarriedInference)
                assert executor._inference.has_graph, "it was not recorded"
            executor.close()
    return figures


def _check_log_prob(blueprint, vector: np.ndarray, views) -> None:
    """Each action's log-probability is that of the network on the processor."""
    network = blueprint.algorithm.network()
    from engine.layers.flat import flatten

    flatten(network).load(torch.from_numpy(vector))
    observation = torch.from_numpy(views["observation"][:-1]).flatten(0, 1)
    with torch.no_grad():
        policy = network.distribution(observation)
        wanted = policy.log_prob(torch.from_numpy(views["action"]).flatten(0, 1))
    found = torch.from_numpy(views["log_prob"]).flatten()
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


CHECKS = (
    Check("the next batch is copied beside an update", staging, 30),
    Check("weights are published beside an update", publishing, 30),
    Check("actions are chosen on the device", acting, 40),
)
