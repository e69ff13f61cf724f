"""`actors: auto` and `env.num_envs: auto` in real runs: chosen once, told, and kept."""

from __future__ import annotations

import json

import pytest

from tests.helpers.running import EAGER

pytestmark = [pytest.mark.processes, pytest.mark.slow]

TEXT = """\
version: 1
name: some
actors: auto
env: {id: CartPole-v1, num_envs: auto}
algorithm: {name: ppo, rollout_steps: 50, batch_steps: 400, minibatch_steps: 200}
stop: {env_steps: 800}
"""


def test_a_resumed_run_keeps_what_was_chosen(tianji, tmp_path):
    experiment = tmp_path / "some.yaml"
    experiment.write_text(TEXT)
    file = ("-x", str(experiment), *EAGER)
    code, _, err = tianji("up", *file, "--name", "one").end(90)
    assert code == 0, err
    assert "actors=auto: " in err
    assert "measured on this machine" in err
    manifest = json.loads((tmp_path / "results/one/manifest.json").read_text())
    chosen, run = manifest["automatic"], manifest["experiment"]
    assert (chosen["actors"], chosen["num_envs"]) == (run["actors"], run["env"]["num_envs"])
    assert set(chosen["env_steps_per_s"]) == {"1", "2", "4", "8"}
    summary = json.loads((tmp_path / "results/one/summary.json").read_text())
    assert summary["num_actors"] == run["actors"]

    more = ("-s", "stop.env_steps=8000", "-s", "actors=1", "--resume", "one")
    code, _, err = tianji("up", *file, *more, "--name", "two").end(90)
    assert code == 0, err
    assert "=auto" not in err, "the file asks for it, but the run has numbers already"
    resumed = json.loads((tmp_path / "results/two/manifest.json").read_text())
    assert resumed["automatic"] is None
    assert resumed["experiment"]["env"]["num_envs"] == chosen["num_envs"]

    code, _, err = tianji(
        "up",
        "--resume",
        "two",
        "-s",
        "stop.env_steps=16000",
        "-s",
        "env.num_envs=auto",
        "--name",
        "three",
    ).end(90)
    assert code == 0, err
    assert "env.num_envs=auto: " in err, "a setting asks anew"
