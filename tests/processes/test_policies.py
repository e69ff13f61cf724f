"""One algorithm, cut many ways: equal where it must be, alive where a group dies, or refused."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.graph.policy import built_in_policies
from tests.helpers.running import EASY, ENDLESS, rows, wait_for

pytestmark = pytest.mark.processes

QUIET = ("-s", "stop.return_threshold=null", "-s", "learner.compile=off")
FEW_STEPS = ("-s", "algorithm.num_epochs=2")
"""Of each batch, where batches matter and not how often each is learnt from."""


def train(tianji, name: str, *arguments: str) -> dict[str, object]:
    code, out, err = tianji("--json", "up", "--name", name, *QUIET, *arguments).end(120)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["status"] == "ok"
    kept = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == kept + summary["env_steps_in_flight"]
    return summary


def final_weights(run: Path) -> torch.Tensor:
    """All parameters of the newest checkpoint, in one vector."""
    newest = max((run / "checkpoints").rglob("*.safetensors"))
    tensors = load_file(newest)
    names = sorted(name for name in tensors if name.startswith("network."))
    return torch.cat([tensors[name].flatten() for name in names])


def check_equal_to_local(
    tianji, results: Path, policies: tuple[str, ...], tolerance: float, *settings: str
):
    """Trains from one seed in one process and cut by each of `policies`, and compares weights."""
    common = ("-s", "stop.env_steps=4400", "-s", "staleness.max_lag=0", *settings)
    local = train(tianji, "local", "--policy", "local", *common)
    for policy in policies:
        cut = train(tianji, policy, "--policy", policy, *common)
        assert local["weights_version"] == cut["weights_version"]
        assert cut["weights_version"] >= 10
        assert local["env_steps_consumed"] == cut["env_steps_consumed"]
        torch.testing.assert_close(
            final_weights(results / policy),
            final_weights(results / "local"),
            rtol=0,
            atol=tolerance,
        )


def test_with_one_actor_a_barrier_or_remote_environments_learn_what_local_learns(tianji, tmp_path):
    settings, policies = ("-s", "actors=1", *FEW_STEPS), ("synchronous", "single-learner-fine")
    check_equal_to_local(tianji, tmp_path / "results", policies, 1e-6, *settings)
    assert max(row["version"] for row in rows(tmp_path / "results/synchronous", "weights")) >= 10


def test_environments_of_tensors_are_the_same_in_processes_of_their_own(tianji, tmp_path):
    settings = ("-s", "actors=1", "-s", "env.backend=torch", *FEW_STEPS)
    check_equal_to_local(tianji, tmp_path / "results", ("synchronous",), 1e-6, *settings)


def test_two_learners_on_half_batches_learn_what_one_learns_on_the_whole(tianji, tmp_path):
    shared = ("-s", "algorithm.batch_steps=800", "-s", "algorithm.minibatch_steps=400")
    run = (tianji, tmp_path / "results", ("multi-learner",), 1e-5)
    check_equal_to_local(*run, *shared, *FEW_STEPS, "-s", "stop.env_steps=8000")


@pytest.mark.parametrize("actors", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_learners_split_a_batch_of_one_rollout_among_them(tianji, tmp_path, actors):
    """As one learner learns from actors that have as many environments between them."""
    batch = ("-s", "algorithm.batch_steps=300", "-s", "algorithm.minibatch_steps=150")
    common = (*batch, *FEW_STEPS, "-s", "staleness.max_lag=0", "-s", "stop.env_steps=3600")
    split = ("-s", f"actors={actors}", "-s", "env.num_envs=6", "--policy", "multi-learner")
    each = ("-s", f"actors={actors}", "-s", f"env.num_envs={6 // actors}", "--policy", "local")
    summary = train(tianji, "split", *common, *split)
    alone = train(tianji, "alone", *common, *each)
    assert summary["weights_version"] == alone["weights_version"] >= 11
    assert summary["env_steps_consumed"] == alone["env_steps_consumed"]
    results = tmp_path / "results"
    torch.testing.assert_close(
        final_weights(results / "split"), final_weights(results / "alone"), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "policy", ["multi-learner", pytest.param("gpu-only", marks=pytest.mark.slow)]
)
def test_learners_that_share_batches_normalise_alike_and_as_one_does(tianji, tmp_path, policy):
    """Also where their parts are unequal: of eight environments they have three, three and two."""
    normalised = (
        "-s",
        "network.normalize_observation=true",
        "-s",
        "algorithm.normalize_reward=true",
    )
    settings = ("-s", "actors=3", "-s", "stop.env_steps=4000", *FEW_STEPS, *normalised)
    summary = train(tianji, "run", "--policy", policy, *settings)
    run = tmp_path / "results" / "run"
    newest = load_file(max((run / "checkpoints").rglob("*.safetensors")))
    counted = {float(newest[f"network.{name}.count"]) for name in ("input.statistics", "returns")}
    assert counted == {float(summary["env_steps_consumed"])}
    last = json.loads(max((run / "checkpoints").rglob("*.json")).read_text())["counters"]
    for what in ("env_steps_consumed", "samples_trained"):
        assert last[what] == summary[what], "the shares of all are in its weights"


def test_replicas_on_devices_learn_what_one_with_all_their_environments_learns(tianji, tmp_path):
    """The same two actors: in one process with one learner, and each with a learner of its own."""
    whole = tmp_path / "whole.yaml"
    whole.write_text(
        "name: whole\nsummary: one loop with all actors\nfragments:\n  loop:"
        " {functions: [act, env_step, store, update], replicas: 1, on_device: true}\n"
        "staleness: {mode: block, max_lag: 0}\n"
    )
    settings = ("-s", "actors=2", "-s", "algorithm.batch_steps=800", "-s", "stop.env_steps=8000")
    # Whole batches: in which order one process finishes its two rollouts must not matter.
    settings = (*settings, "-s", "algorithm.minibatch_steps=800", *FEW_STEPS)
    one = train(tianji, "one", "--policy", str(whole), *settings)
    cut = train(tianji, "cut", "--policy", "gpu-only", *settings)
    assert one["weights_version"] == cut["weights_version"] >= 10
    assert one["env_steps_consumed"] == cut["env_steps_consumed"]
    results = tmp_path / "results"
    torch.testing.assert_close(
        final_weights(results / "cut"), final_weights(results / "one"), rtol=0, atol=1e-5
    )


def test_without_a_gpu_the_processor_is_used_and_named_unless_gpus_were_asked_for(tianji, tmp_path):
    few = (*FEW_STEPS, "-s", "stop.env_steps=8000")
    common = ("--policy", "gpu-only", *QUIET, "-s", "actors=1", *few)
    evaluated = ("-s", "evaluation.episodes=2", "-s", "evaluation.every_s=0.1")
    code, _, err = tianji("up", "--name", "run", *common, *evaluated).end(60)
    assert code == 0, err
    has_cuda = torch.cuda.is_available()
    device = "cuda:0" if has_cuda else "cpu"
    assert f"loop-0 on localhost runs on {device}" in err
    evaluations = rows(tmp_path / "results/run", "evaluations")
    assert evaluations, "its weights reach an evaluator in another process"
    manifest = json.loads((tmp_path / "results/run/manifest.json").read_text())
    assert manifest["processes"]["loop-0"]["device"] == device
    if has_cuda:
        return
    (tmp_path / "gpus.yaml").write_text("version: 1\nhosts: {localhost: {gpus: [0]}}\n")
    code, _, err = tianji("up", "gpus.yaml", "--name", "asked", *common).end(60)
    assert code == 3
    assert "the GPUs 0, but PyTorch finds none" in err
    assert not (tmp_path / "results/asked").exists()


def test_a_learner_killed_in_one_group_leaves_the_others_going(tianji, tmp_path):
    command = tianji(
        "--json", "up", "--name", "run", *ENDLESS, *EASY, *("-s", "groups=3"), "-s", "actors=3"
    )
    run = tmp_path / "results" / "run"
    wait_for(lambda: len(rows(run, "merges")) > 6, 60, "models are merged")
    command.role("learner-1").send_signal(signal.SIGKILL)
    killed_at_s = time.monotonic()

    def is_reported() -> bool:
        return any(row["kind"] == "group-lost" for row in rows(run, "events"))

    wait_for(is_reported, 10, "the lost group is reported")
    assert time.monotonic() - killed_at_s < 10
    lost = next(row for row in rows(run, "events") if row["kind"] == "group-lost")
    assert lost["role"] == "learner-1"
    assert "SIGKILL" in lost["detail"]

    def others_go_on() -> bool:
        after = [row for row in rows(run, "merges") if row["t_s"] > lost["t_s"] + 0.5]
        return {row["group"] for row in after} >= {0, 2}

    wait_for(others_go_on, 30, "groups 0 and 2 merge on")
    command.process.send_signal(signal.SIGINT)
    code, out, err = command.end(40)
    assert code == 130, err
    summary = json.loads(out)
    kept = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == kept + summary["env_steps_in_flight"]
    assert summary["error"] is None
    late = [row for row in rows(run, "merges") if row["t_s"] > lost["t_s"] + 0.5]
    assert all("1" not in row["versions"] for row in late), "the dead model counts no longer"


@pytest.mark.parametrize(
    ("experiment", "policy"),
    [
        *(("cartpole_dqn", policy) for policy in ("synchronous", "multi-learner")),
        pytest.param("cartpole_dqn", "gpu-only", marks=pytest.mark.slow),
        *(
            pytest.param("cartpole_apex", policy, marks=pytest.mark.slow)
            for policy in ("synchronous", "multi-learner", "gpu-only")
        ),
    ],
)
def test_replay_takes_turns_with_its_actors_or_is_shared(tianji, tmp_path, policy, experiment):
    """The replay ratio is held over all learners, and each has trained its part of every batch."""
    settings = ("-s", "stop.env_steps=2600", "-s", "stop.judge=training", "-s", "evaluation=null")
    summary = train(tianji, "run", "-x", experiment, "--policy", policy, *settings)
    run = tmp_path / "results" / "run"
    configured = json.loads((run / "manifest.json").read_text())["experiment"]
    algorithm, num_actors = configured["algorithm"], configured["actors"]
    batch = algorithm["batch_size"] * algorithm["updates_per_batch"]
    assert summary["samples_trained"] == summary["weights_version"] * batch
    learners = {row["learner"] for row in rows(run, "consumption")}
    assert len(learners) == (1 if policy == "synchronous" else num_actors)
    if policy != "multi-learner":  # in turns nothing is drawn ahead
        ratio = algorithm["replay_ratio"]
        owed = ratio * (summary["env_steps_consumed"] - algorithm["min_replay_size"])
        # What had come of a round when the stop rule held is in the store, but not trained.
        round_steps = num_actors * configured["env"]["num_envs"] * algorithm["rollout_steps"]
        assert owed - ratio * round_steps - 2 * batch <= summary["samples_trained"] <= owed


@pytest.mark.parametrize(
    ("policy", "experiment", "why"),
    [
        ("impala", "cartpole_ppo", "impala does not suit ppo, which does not correct"),
        *(
            pytest.param(*refused, marks=pytest.mark.slow)  # as test_policy_matrix plans them
            for refused in (
                ("apex", "cartpole_ppo", "apex does not suit ppo, which does not learn from"),
                ("gpu-only", "lunarlander_ppo", "LunarLander-v3 has no torch version"),
            )
        ),
    ],
)
def test_an_unsuitable_pair_is_refused_by_name(tianji, tmp_path, policy, experiment, why):
    code, _, err = tianji("up", "-x", experiment, "--policy", policy).end(60)
    assert code == 2
    assert why in err
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())


EVERYWHERE = (
    *("tianji", "single-learner-coarse", "single-learner-fine", "environments"),
    *("central", "local", "synchronous", "multi-learner", "gpu-only"),
)
"""Policies that suit every algorithm; the rest are those that some do not."""
MATRIX = [
    *(("cartpole_ppo", policy) for policy in EVERYWHERE),
    *(("cartpole_impala", policy) for policy in (*EVERYWHERE, "impala")),
    *(("cartpole_dqn", policy) for policy in (*EVERYWHERE, "impala", "apex")),
    *(("cartpole_apex", policy) for policy in ("apex", "impala", "multi-learner", "gpu-only")),
    *(("pendulum_sac", policy) for policy in ("tianji", "apex", "multi-learner", "gpu-only")),
    *(("pendulum_td3", policy) for policy in ("central", "synchronous", "multi-learner")),
]
NUM_FIRST = 50
"""Episodes that say how well an untrained policy does; the last 100 say what was learnt."""


def test_the_matrix_holds_every_policy():
    assert {policy for _, policy in MATRIX} == set(built_in_policies())


@pytest.mark.matrix
@pytest.mark.parametrize(("experiment", "policy"), MATRIX)
def test_every_suitable_pair_learns(tianji, tmp_path, experiment, policy):
    """The return at least doubles, from what the untrained policy gets."""
    settings = ["-s", "stop.env_steps=40000", "-s", "stop.judge=training"]
    summary = train(tianji, "run", "-x", experiment, "--policy", policy, *settings)
    episodes = rows(tmp_path / "results" / "run", "episodes")
    returns = [row["episode_return"] for row in sorted(episodes, key=lambda row: row["t_s"])]
    assert len(returns) >= NUM_FIRST + 100
    first = sum(returns[:NUM_FIRST]) / NUM_FIRST
    assert summary["return_mean"] >= 2 * first
