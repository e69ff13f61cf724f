"""`init_from`: every kind of run starts with the weights of another one, and says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from engine.trace.checkpoint_choice import choose_checkpoint
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import EAGER, rows

pytestmark = pytest.mark.processes

FORMER = REPOSITORY / "tests" / "recorded" / "finished"
"""PPO on CartPole with a hidden layer of 8, of a former release."""
SHORT = (*EAGER, "-s", "stop.env_steps=1000", "-s", "stop.return_threshold=null")
STILL = ("-s", "algorithm.learning_rate=1e-12")
"""So slow that weights stay what they were."""


def network(checkpoint: Path) -> dict[str, np.ndarray]:
    """The parameters in the newest checkpoint of a directory."""
    found = choose_checkpoint(checkpoint, "last")
    whole = safetensors.numpy.load_file(found.path.with_name(found.info.tensors_name))
    return {name: whole[name] for name in whole if name.startswith("network.")}


def assert_same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], atol=1e-6, err_msg=name)


def test_two_groups_start_with_the_weights_of_a_former_run(tianji, tmp_path):
    """And their reducer, which otherwise would lead them back to its own."""
    words = ("-s", f"init_from={FORMER}@best", "-s", "network.hidden_sizes=[8]", "--trust")
    command = tianji("up", "--name", "run", "-s", "groups=2", *words, *SHORT, *STILL)
    code, _, err = command.end(60)
    assert code == 0, err
    said = "all 8 tensors, 107 parameters"
    assert f"starts with weights of finished, version 8, return unknown: {said}" in err
    run = tmp_path / "results/run"
    started = [row for row in rows(run, "events") if row["kind"] == "warm-started"]
    assert [row["detail"] for row in started] == [f"version 8 of run finished: {said}"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["init_from"]["version"] == 8
    assert manifest["resumed_from"] is None
    for group in (0, 1):
        checkpoints = run / f"checkpoints/group-{group}"
        assert_same(network(FORMER / "checkpoints"), network(checkpoints))
        info = choose_checkpoint(checkpoints, "last").info
        assert info.counters.env_steps_consumed < 3000, "its own, not those of the former run"
    consumed = json.loads((run / "summary.json").read_text())["env_steps_consumed"]
    more = limit(consumed + 800)  # how far a run goes beyond its limit is left to chance
    code, _, err = tianji("up", "--resume", "run", "--name", "more", *more).end(60)
    assert code == 0, err
    assert "init_from is not used" in err
    assert not (tmp_path / "results/more/initial_weights.safetensors").exists()


def limit(env_steps: int) -> tuple[str, str]:
    return "-s", f"stop.env_steps={env_steps}"


def test_nothing_is_started_if_nothing_fits(tianji, tmp_path):
    words = ("-s", f"init_from={FORMER}", "-s", "network.hidden_sizes=[9]", "--trust")
    code, _, err = tianji("up", "--name", "run", *words, *SHORT).end(60)
    assert code == 2
    assert "where: -s init_from" in err
    assert "is [9, 4] here, [8, 4] there" in err
    assert not (tmp_path / "results/run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        ("local",),
        ("central",),
        ("multi-learner", "-s", "algorithm.batch_steps=800"),
        ("environments", "-s", "groups=2"),
        ("gpu-only", "-s", "actors=1"),
        ("impala", "-x", "cartpole_impala"),
        (
            *("apex", "-x", "cartpole_apex", "-s", "algorithm.min_replay_size=500"),
            *("-s", "algorithm.learning_rate_final=null"),
        ),
    ],
    ids=lambda policy: policy[0],
)
def test_every_kind_of_cut_starts_with_the_weights_of_another_run(tianji, tmp_path, policy):
    name, *options = policy
    code, _, err = tianji("up", "--name", "one", "--policy", name, *options, *SHORT).end(60)
    assert code == 0, err
    again = ("up", "--name", "two", "-s", "init_from=one", "--policy", name, *options)
    code, _, err = tianji(*again, *SHORT, *STILL).end(60)
    assert code == 0, err
    assert "starts with weights of one, version " in err
    before, after = (network(tmp_path / "results" / run / "checkpoints") for run in ("one", "two"))
    learnt = [key for key in before if key != "network.epsilon"]
    assert_same({key: before[key] for key in learnt}, {key: after[key] for key in learnt})


@pytest.mark.slow
def test_another_environment_takes_the_layers_that_fit(tianji, tmp_path):
    """A dry run says the same as the run that follows, and leaves nothing."""
    tianji("up", "--name", "one", *SHORT).end(60)
    words = ("-s", "init_from=one@best", "-s", "env.id=Acrobot-v1", *SHORT)
    code, out, err = tianji("up", "--dry-run", *words).end(60)
    assert code == 0, err
    said = "is [64, 6] here, [64, 4] there"
    assert said in " ".join(out.split())
    assert not (tmp_path / "results/two").exists()
    code, _, err = tianji("up", "-d", "--name", "two", *words).end(60)
    assert code == 0, err
    assert said in err
    code, _, err = tianji("down", "two").end(60)
    assert code == 0, err
    manifest = json.loads((tmp_path / "results/two/manifest.json").read_text())
    assert said in manifest["init_from"]["weights"]["kept"]["policy_trunk.1.weight"]
