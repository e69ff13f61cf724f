"""With a fixed lag equal seeds give equal bits, however the processes of a run are disturbed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers.running import EAGER, ENDLESS, rows, wait_for
from tianji_cli.analysis.check import rebuild_counters, warnings_of
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.processes

UNEVEN = '''
"""Environments whose steps last as long as chance wants; what they give is that of the seed."""

import random
import time

import gymnasium

DICE = random.SystemRandom()


class Uneven(gymnasium.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self._share = 0.2 * DICE.random()

    def step(self, action):
        if DICE.random() < self._share:
            time.sleep(DICE.expovariate(500))
        return self.env.step(action)
'''
FIXED = ("-s", "staleness.mode=fixed", "-s", "stop.return_threshold=null")
SHORT = ("-s", "algorithm.num_epochs=2", "-s", 'env.wrappers=[{"name": "uneven:Uneven"}]')


def tensors(run: Path) -> dict[str, bytes]:
    """All of the newest checkpoint, with the optimiser and the state of chance."""
    loaded = load_file(max((run / "checkpoints").rglob("*.safetensors")))
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


def train(tianji, tmp_path: Path, name: str, *settings: str) -> dict[str, bytes]:
    """Trains in environments whose steps are of any length; none of two runs has the same."""
    (tmp_path / "uneven.py").write_text(UNEVEN)
    arguments = ("--json", "up", "--name", name, *FIXED, *SHORT, *settings)
    code, out, err = tianji(*arguments).end(500)
    assert code == 0, err
    assert json.loads(out)["env_steps_dropped"] == 0
    run = load_run(RunPaths(tmp_path / "results" / name))
    assert rebuild_counters(run) == [], "the lag of every batch is checked, too"
    return tensors(tmp_path / "results" / name)


def check_equal(tianji, tmp_path: Path, *settings: str) -> None:
    """Twice with processes, once in one thread; all of them are disturbed."""
    alone = train(tianji, tmp_path, "alone", "--policy", "local", *settings)
    for name in ("first", "second"):
        assert train(tianji, tmp_path, name, *settings) == alone


def test_three_disturbed_actors_learn_the_bits_that_one_thread_learns(tianji, tmp_path):
    three = ("-s", "actors=3", "-s", "staleness.lag=1", "-s", "stop.env_steps=4000")
    alone = train(tianji, tmp_path, "alone", "--policy", "local", *EAGER, *three)
    assert train(tianji, tmp_path, "disturbed", *EAGER, *three) == alone


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("actors", [1, 3])
def test_any_lag_and_number_of_actors_gives_equal_bits(tianji, tmp_path, lag, actors):
    sizes = ("-s", f"actors={actors}", "-s", f"staleness.lag={lag}", "-s", "stop.env_steps=8000")
    batch = ("-s", "algorithm.batch_steps=800", "-s", "algorithm.minibatch_steps=400")
    check_equal(tianji, tmp_path, *EAGER, *sizes, *batch)


@pytest.mark.slow
def test_compiled_functions_are_waited_for_and_give_equal_bits(tianji, tmp_path):
    check_equal(tianji, tmp_path, "-s", "stop.env_steps=8000")
    for name in ("alone", "first", "second"):
        run = tmp_path / "results" / name
        compiled = [row for row in rows(run, "events") if row["kind"] == "compiled"]
        assert len(compiled) == 2, "advantages and optimiser steps"
        first = rows(run, "consumption")[0]["t_s"]
        assert all(row["t_s"] <= first for row in compiled), "before the first update"


@pytest.mark.slow
def test_two_learners_with_disturbed_actors_learn_equal_bits(tianji, tmp_path):
    joint = (*EAGER, "--policy", "multi-learner", "-s", "stop.env_steps=8000")
    first = train(tianji, tmp_path, "first", *joint)
    assert train(tianji, tmp_path, "second", *joint) == first


@pytest.mark.slow
def test_a_checkpoint_resumed_twice_gives_equal_bits(tianji, tmp_path):
    """The resumed runs begin with new episodes, so they do not give what one long run gives."""
    train(tianji, tmp_path, "origin", *EAGER, "-s", "stop.env_steps=4000")
    ends = []
    for name in ("once", "again"):
        resumed = ("--resume", "origin", "--name", name, "-s", "stop.env_steps=8000")
        code, _, err = tianji("up", *resumed).end(120)
        assert code == 0, err
        ends.append(tensors(tmp_path / "results" / name))
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_killed_actor_is_replaced_and_the_run_says_that_it_is_another_one(tianji, tmp_path):
    settings = (*ENDLESS, "-s", "staleness.mode=fixed", "-s", "actors=2")
    command = tianji("up", "--name", "killed", *settings)
    run = tmp_path / "results" / "killed"
    wait_for(lambda: len(rows(run, "consumption")) > 20, 60, "training")
    victim = command.role("actor-1")
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(
        lambda: any(row["kind"] == "irreproducible" for row in rows(run, "events")), 30, "a note"
    )
    trained = len(rows(run, "consumption"))
    wait_for(lambda: len(rows(run, "consumption")) > trained + 20, 60, "training again")
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
    loaded = load_run(RunPaths(run))
    assert rebuild_counters(loaded) == []
    assert loaded.summary is not None
    (told,) = (row.detail for row in loaded.events if row.kind == "irreproducible")
    assert any(told in line for line in warnings_of(loaded, loaded.summary, []))
