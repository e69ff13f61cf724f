"""Learners of one update on several hosts: equal to one learner, closed to strangers, ended and
resumed when a host is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.engine.hostile_words import WORDS
from tests.helpers.fault_rows import Witness
from tests.helpers.ssh_kit import SHORT, Bench, Command, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

FOUR = ("-s", "actors=4", "-s", "algorithm.batch_steps=1600", "-s", "algorithm.minibatch_steps=800")
SHARED = (*SHORT, *FOUR, "-s", "staleness.max_lag=0", "-s", "algorithm.num_epochs=2")
TWENTY_UPDATES = ("-s", "stop.env_steps=32000")
TWO = (*SHORT, "-s", "actors=2", "-s", "env.step_latency_ms=2", "-s", "checkpoint.every_s=1")
STRANGER = """
import socket, sys
address, first, *words = sys.argv[1:]
answers = []
for port in range(int(first), int(first) + 8):
    for word in words:
        try:
            stranger = socket.create_connection((address, port), 2)
        except ConnectionRefusedError:
            continue
        stranger.settimeout(10)
        stranger.sendall(bytes.fromhex(word))
        said = b""
        try:
            while data := stranger.recv(4096):
                said += data
        except ConnectionError:
            pass
        answers.append(port)
        assert len(said) <= 64 + 200, said  # a greeting, at most an error
print(*sorted(set(answers)))
"""


def final_weights(run: Path) -> torch.Tensor:
    """All parameters of the newest checkpoint, in one vector."""
    tensors = load_file(max((run / "checkpoints").rglob("*.safetensors")))
    return torch.cat([tensors[name].flatten() for name in sorted(tensors) if "network." in name])


def inventory_of(bench: Bench, network: str) -> Path:
    """All hosts of the lab."""
    hosts = bench.results / "hosts.yaml"
    hosts.write_text(f"network: {network}\n" + bench.lab.inventory.read_text())
    return hosts


def names_the_end(command: Command, host: str) -> bool:
    """Whether the failure of the run is reported, and this host named in it."""
    lines = [line for line in command.said.splitlines() if host in line]
    return any(" is gone" in line or "failed" in line or "lost" in line for line in lines)


def assert_books_balance(command: Command) -> None:
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))


@pytest.mark.parametrize("network", ["encrypted", pytest.param("trusted", marks=pytest.mark.slow)])
def test_four_hosts_learn_what_one_learner_learns_on_the_whole(bench: Bench, network: str) -> None:
    hosts = inventory_of(bench, network)
    here = bench.results / "here.yaml"
    here.write_text("version: 1\nhosts: {localhost: {}}\n")
    settings = ("up", *SHARED, *TWENTY_UPDATES, "--policy")
    cut = bench.tianji(*settings, "multi-learner", run="cut", inventory=hosts)
    assert cut.wait(120) == 0, cut.said
    whole = bench.tianji(*settings, "local", run="whole", inventory=here)
    assert whole.wait(120) == 0, whole.said
    assert cut.summary["weights_version"] == whole.summary["weights_version"] >= 20
    assert cut.summary["env_steps_consumed"] == whole.summary["env_steps_consumed"]
    processes = json.loads((cut.run_dir / "manifest.json").read_text())["processes"]
    assert {processes[f"worker-{n}"]["host"] for n in range(4)} == set(bench.hosts)
    torch.testing.assert_close(
        final_weights(cut.run_dir), final_weights(whole.run_dir), rtol=0, atol=1e-5
    )
    assert_books_balance(cut)
    bench.assert_nothing_left()


@pytest.mark.slow
def test_replicas_on_devices_learn_the_same_on_two_hosts_as_on_one(bench: Bench) -> None:
    settings = (*SHORT, "-s", "actors=2", "-s", "algorithm.batch_steps=800", "--policy", "gpu-only")
    size = ("-s", "algorithm.minibatch_steps=800", "-s", "stop.env_steps=8000")
    for name, hosts in (("alone", bench.hosts[:1]), ("apart", bench.hosts[:2])):
        command = bench.tianji("up", *settings, *size, *limits(*hosts), run=name)
        assert command.wait(120) == 0, command.said
        assert command.summary["num_hosts"] == len(hosts)
    torch.testing.assert_close(
        final_weights(bench.results / "apart"),
        final_weights(bench.results / "alone"),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.slow
def test_what_listens_in_a_trusted_network_is_at_the_hosts_own_address(bench: Bench) -> None:
    hosts = inventory_of(bench, "trusted")
    endless = (*TWO, "-s", "stop.env_steps=null", "-s", "stop.seconds=300")
    names = limits(*bench.hosts[:2])
    command = bench.tianji(
        "up", *endless, "--policy", "multi-learner", *names, run="open", inventory=hosts
    )
    command.wait_for_training()
    for host in bench.hosts[:2]:
        done = bench.lab.exec(host, ["ss", "-ltnHp"])
        of_run = [line.split()[3] for line in done.stdout.splitlines() if '"tj-' in line]
        assert of_run, done.stdout
        own = (bench.address(host), f"[::ffff:{bench.address(host)}]")
        assert all(place.rpartition(":")[0] in own for place in of_run), of_run
    command.process.send_signal(2)
    assert command.wait(60) == 130, command.said


@pytest.mark.slow
def test_more_hosts_collect_and_train_more_in_the_same_time(bench: Bench) -> None:
    """Two learners on each host and the same batch for all; environments take their time as those
    of a simulator do, so that the cores that all lab hosts share are not the limit."""
    settings = (*SHORT, "-s", "algorithm.batch_steps=3200", "-s", "algorithm.minibatch_steps=3200")
    slow_env = ("-s", "env.step_latency_ms=20", "-s", "algorithm.num_epochs=1")
    rates = {}
    for count in (1, 2, 4):
        size = ("-s", f"actors={2 * count}", "-s", f"stop.env_steps={count * 9600}")
        some = limits(*bench.hosts[:count])
        command = bench.tianji(
            "up", *settings, *slow_env, *size, *some, "--policy", "multi-learner", run=f"on-{count}"
        )
        assert command.wait(120) == 0, command.said
        assert command.summary["num_hosts"] == count
        rates[count] = command.summary["consume_per_s"]
    print("env steps trained per second, by hosts:", rates)
    assert rates[2] > 1.6 * rates[1]
    assert rates[4] > 2.8 * rates[1]


@pytest.mark.parametrize("lost", ["killed", pytest.param("without power", marks=pytest.mark.slow)])
def test_a_stranger_reaches_nothing_and_a_lost_host_ends_the_run_by_name(
    bench: Bench, witness: Witness, lost: str
) -> None:
    """A host that dies closes its connections; of one without power only heartbeats tell."""
    one, two, three, _ = bench.hosts
    endless = ("-s", "stop.env_steps=null", "-s", "stop.seconds=300", "--policy", "multi-learner")
    command = bench.tianji("up", *TWO, *endless, *limits(one, two), run="before")
    command.wait_for_training()
    words = [word.hex() for word in WORDS.values()]
    for host in (one, two):
        python = ["python3", "-c", STRANGER, bench.address(host), "29500", *words]
        done = bench.lab.exec(three, python)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split(), "something listens there"
    number = len(command.rows("consumption"))
    wait_until(lambda: len(command.rows("consumption")) > number + 4, 20, "it trains on")
    checkpoints = command.run_dir / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("v*.json")), 30, "a checkpoint came here")

    began_s = time.monotonic()
    (bench.lab.kill if lost == "killed" else bench.lab.crash)(two)
    wait_until(lambda: names_the_end(command, two), 10, f"{two} is named\n{command.said}")
    report_s = time.monotonic() - began_s
    assert command.wait(120) != 0
    assert two in command.summary["error"]
    assert "tianji up --resume before" in command.said
    steps = command.summary["env_steps_consumed"]
    more = ("-s", f"stop.env_steps={steps + 4000}", "-s", "stop.seconds=null")
    again = bench.tianji("up", "--resume", "before", *more, *limits(one), run="after")
    assert again.wait(120) == 0, again.said
    assert again.summary["env_steps_consumed"] >= steps + 4000
    assert_books_balance(again)
    witness(
        "a host of several lost, learners update together",
        f"{lost}: failed by name, resumed on one host instead of two",
        report_s=report_s,
        summary=command.summary,
    )
