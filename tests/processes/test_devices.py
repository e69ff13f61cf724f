"""Whole runs whose roles compute on devices: the processor, by the way of a GPU (`TIANJI_DEVICES`).

Where nothing is concurrent that was not before, the weights are those of the processor but for the
last digits, in which products depend on where their operands lie in memory.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from engine.devices.visible import PRETENDED
from tests.helpers.running import rows

pytestmark = pytest.mark.processes

TWO = {PRETENDED: "cpu:0,cpu:1"}
QUIET = ("-s", "stop.return_threshold=null", "-s", "learner.compile=off")
SMALL = ("-s", "algorithm.num_epochs=2", "-s", "staleness.max_lag=0", "-s", "stop.env_steps=4400")


def train(tianji, name: str, *arguments: str, code: int = 0) -> tuple[dict[str, object], str]:
    ended, out, err = tianji("--json", "up", "--name", name, *QUIET, *arguments, **TWO).end(120)
    assert ended == code, err
    summary = json.loads(out)
    if code == 0:
        kept = summary["env_steps_consumed"] + summary["env_steps_dropped"]
        assert summary["env_steps_collected"] == kept + summary["env_steps_in_flight"]
    return summary, err


def devices_of(results, name: str) -> dict[str, str]:
    manifest = json.loads((results / name / "manifest.json").read_text())
    return {k: v for item in manifest["processes"].values() for k, v in item["devices"].items()}


def final_weights(run) -> torch.Tensor:
    tensors = load_file(max((run / "checkpoints").rglob("*.safetensors")))
    return torch.cat(
        [tensors[name].flatten() for name in sorted(tensors) if name.startswith("network.")]
    )


def test_central_inference_on_a_device_learns_what_local_learns_and_is_resumed(tianji, tmp_path):
    results, one = tmp_path / "results", ("-s", "actors=1", *SMALL)
    train(tianji, "local", "--policy", "local", *one)
    evaluated = ("-s", "evaluation.episodes=2", "-s", "evaluation.device=cuda:1")
    central = ("--policy", "single-learner-fine", "-s", "learner.device=cuda", *evaluated)
    _, err = train(tianji, "central", *central, *one)
    assert "learner-0 on localhost runs on cpu:0" in err
    wanted = {"learner-0": "cpu:0", "actor-0": "cpu:0", "evaluator-0": "cpu:1"}
    assert devices_of(results, "central") == wanted
    torch.testing.assert_close(
        final_weights(results / "central"), final_weights(results / "local"), rtol=0, atol=1e-6
    )
    versions = [row["version"] for row in rows(results / "central", "weights")]
    assert versions == list(range(len(versions))), "each was published once, in order"
    more = ("up", "--resume", "central", "--name", "more", "-s", "stop.env_steps=6000")
    ended, _, err = tianji(*more).end(60)
    assert ended == 3
    assert "learner-0 is to compute on cuda, but PyTorch finds none" in err
    assert "learner.device=cpu" in err
    elsewhere = ("-s", "learner.device=cpu", "-s", "evaluation=null")
    ended, _, err = tianji(*more, *QUIET, *elsewhere).end(120)
    assert ended == 0, err
    assert devices_of(results, "more") == {}


def test_an_evaluation_on_a_device_can_end_a_run(tianji, tmp_path):
    judged = ("-s", "stop.judge=evaluation", "-s", "stop.return_threshold=1")
    evaluated = ("-s", "evaluation.episodes=2", "-s", "evaluation.device=cuda:1")
    ended = tianji(
        "up", "--name", "judged", "-s", "learner.compile=off", *evaluated, *judged, **TWO
    )
    code, _, err = ended.end(120)
    assert code == 0, err
    assert devices_of(tmp_path / "results", "judged")["evaluator-0"] == "cpu:1"
    assert rows(tmp_path / "results" / "judged", "evaluations")


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["tianji", "synchronous", "environments", "local"])
def test_a_learner_on_a_device_learns_what_local_learns_under_any_policy(tianji, tmp_path, policy):
    results, one = tmp_path / "results", ("-s", "actors=1", *SMALL)
    train(tianji, "host", "--policy", "local", *one)
    train(tianji, "device", "--policy", policy, "-s", "learner.device=cuda", *one)
    assert devices_of(results, "device")["learner-0"] == "cpu:0"
    torch.testing.assert_close(
        final_weights(results / "device"), final_weights(results / "host"), rtol=0, atol=1e-6
    )


@pytest.mark.slow
def test_groups_actors_and_graphs_use_all_devices(tianji, tmp_path):
    """Two groups on a device each, actors on devices too, steps and acting as graphs."""
    settings = ("-s", "groups=2", "-s", "actors=2", "-s", "stop.env_steps=20000")
    placed = ("-s", "learner.device=cuda", "-s", "actor.device=cuda", "-s", "learner.compile=on")
    train(tianji, "groups", *settings, *placed)
    found = devices_of(tmp_path / "results", "groups")
    assert [found[f"learner-{i}"] for i in range(2)] == ["cpu:0", "cpu:1"]
    assert [found[f"actor-{i}"] for i in range(2)] == ["cpu:0", "cpu:1"]
    logs = tmp_path / "results/groups/logs/localhost"
    (learner,) = logs.glob("learner-0.log")
    assert "optimiser steps: one graph each" in learner.read_text()
    assert "acting: one graph for each step" in (logs / "actor-0.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["multi-learner", "gpu-only", "central"])
def test_learners_that_share_a_process_with_actors_use_devices(tianji, tmp_path, policy):
    shared = ("-s", "actors=2", "-s", "algorithm.batch_steps=800", "-s", "stop.env_steps=8000")
    train(tianji, "run", "--policy", policy, "-s", "learner.device=cuda", *shared)
    found = devices_of(tmp_path / "results", "run")
    assert [found[f"learner-{i}"] for i in range(2)] == ["cpu:0", "cpu:1"]


@pytest.mark.slow
def test_replayed_samples_come_to_a_device_and_their_priorities_back(tianji, tmp_path):
    apex = ("-x", "cartpole_apex", "--policy", "apex", "-s", "stop.env_steps=12000")
    train(tianji, "run", *apex, "-s", "learner.device=cuda")
    assert devices_of(tmp_path / "results", "run") == {"learner-0": "cpu:0"}


@pytest.mark.slow
def test_a_profile_of_a_learner_on_a_device_says_that_it_updates(tianji, tmp_path):
    train(tianji, "run", "--profile", "-s", "learner.device=cuda", "-s", "stop.env_steps=60000")
    of_learner = [
        row for row in rows(tmp_path / "results/run", "profile") if row["role"] == "learner-0"
    ]
    spent = {
        name: sum(row["sections_s"].get(name, 0.0) for row in of_learner)
        for name in ("updating", "waiting", "recording")
    }
    assert spent["updating"] > spent["recording"]
    assert spent["updating"] > 0.2 * sum(row["wall_s"] for row in of_learner)
