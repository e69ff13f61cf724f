"""With a fixed lag, hosts that are frozen at any time learn the bits that one thread learns."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers.ssh_kit import SHORT, Bench
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

FIXED = (*SHORT, "-s", "staleness.mode=fixed", "-s", "algorithm.num_epochs=2")


def tensors(run: Path) -> dict[str, bytes]:
    """All of the newest checkpoint."""
    loaded = load_file(max((run / "checkpoints").rglob("*.safetensors")))
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


def train(bench: Bench, name: str, frozen: int, *settings: str) -> dict[str, bytes]:
    """Trains on all hosts, of which so many, other than the first, stand still now and then."""
    command = bench.tianji("up", *FIXED, *settings, run=name)
    command.wait_for_training(1)
    times = 0
    while command.process.poll() is None:
        for host in random.sample(bench.hosts[1:], frozen):
            bench.lab.freeze(host)
            time.sleep(random.uniform(0, 0.3))
            bench.lab.thaw(host)
            times += 1
        time.sleep(random.uniform(0, 0.1))
    assert command.wait(1) == 0, command.said
    assert times >= 3 * bool(frozen), "the hosts were disturbed"
    run = load_run(RunPaths(command.run_dir))
    assert rebuild_counters(run) == []
    assert len({row.actor for row in run.production}) == 3
    return tensors(command.run_dir)


def train_here(bench: Bench, *settings: str) -> dict[str, bytes]:
    """The same in one thread of this host."""
    here = bench.results / "here.yaml"
    here.write_text("hosts:\n  here: {connection: local}\n")
    local = ("--policy", "local", *settings)
    command = bench.tianji("up", *FIXED, *local, run="alone", inventory=here)
    assert command.wait(120) == 0, command.said
    return tensors(command.run_dir)


def test_three_hosts_that_are_frozen_now_and_then_learn_equal_bits(bench: Bench) -> None:
    settings = ("-s", "actors=3", "-s", "staleness.lag=1", "-s", "stop.env_steps=12000")
    slowed = ("-s", "env.step_latency_ms=4")
    assert train(bench, "disturbed", 3, *settings, *slowed) == train_here(bench, *settings)


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_any_lag_gives_equal_bits_on_hosts_that_are_frozen_now_and_then(
    bench: Bench, lag: int
) -> None:
    sizes = ("-s", "algorithm.batch_steps=800", "-s", "algorithm.minibatch_steps=400")
    settings = (*sizes, "-s", "actors=3", "-s", f"staleness.lag={lag}")
    ended = (*settings, "-s", "stop.env_steps=16000")
    slowed = ("-s", "env.step_latency_ms=4")
    once, again = (train(bench, f"of-{n}", n, *ended, *slowed) for n in (1, 3))
    assert once == again == train_here(bench, *ended)
