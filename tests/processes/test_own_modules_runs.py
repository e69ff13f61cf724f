"""Own modules beside the experiment, and files that are called like what TianJi imports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from engine.compilation.compiler import CompileOrder
from engine.config.config_file import convert, parse_yaml
from engine.graph.cut import single_cut
from engine.host.tether import tethered
from engine.search_path import searched, with_own_path
from engine.spec import Experiment
from tests.helpers.running import EAGER, EASY, rows, wait_for

pytestmark = pytest.mark.processes

MODULE = """
import gymnasium
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from engine.envs.torch_cartpole import TorchCartPole
from engine.extensions import register_torch_environment

gymnasium.register("Mine-v0", CartPoleEnv, max_episode_steps=200)
register_torch_environment("Mine-v0", TorchCartPole)
"""
EXPERIMENT = """
name: mine
env: {id: "mine:Mine-v0"}
algorithm: {name: ppo, num_epochs: 1}
stop: {env_steps: 4000}
"""


def put(directory: Path) -> Path:
    """A module with an experiment, in a directory that is not the working directory."""
    directory.mkdir()
    (directory / "mine.py").write_text(MODULE)
    (directory / "mine.yaml").write_text(EXPERIMENT)
    return directory / "mine.yaml"


def shadow(directory: Path) -> None:
    for name in ("token", "secrets", "random", "logging", "torch", "msgspec", "psutil"):
        (directory / f"{name}.py").write_text(f"raise SystemExit('own {name} was imported')\n")
    (directory / "engine").mkdir()
    (directory / "engine" / "__init__.py").write_text("raise SystemExit('own engine')\n")


@pytest.mark.parametrize(
    "policy", ["local", "tianji", pytest.param("gpu-only", marks=pytest.mark.slow)]
)
def test_an_environment_beside_its_experiment_is_found_by_every_policy(
    tianji, tmp_path: Path, policy: str
):
    path = put(tmp_path / "study")
    shadow(tmp_path)
    more = ("-s", "actors=1") if policy == "gpu-only" else ()
    command = tianji("--json", "up", "-x", str(path), "--policy", policy, *EAGER, *more)
    code, out, err = command.end(120)
    assert code == 0, err
    assert json.loads(out)["status"] == "ok"


def test_the_compiler_finds_it_too(tmp_path: Path, monkeypatch):
    """It is told where to look, and gets as far as the module."""
    (tmp_path / "here").mkdir()
    (tmp_path / "modules").mkdir()
    text = "import os\nprint('mine was imported', flush=True)\nos._exit(7)\n"
    (tmp_path / "modules" / "mine.py").write_text(text)
    experiment = convert(parse_yaml(EXPERIMENT, source="x"), Experiment)
    order = CompileOrder(
        experiment=experiment, cut=single_cut(experiment), group=0, has_action_mask=False
    )
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))
    monkeypatch.setattr("engine.search_path._directories", [str(tmp_path / "modules")])
    words = ("steps", str(tmp_path / "x.so"), str(tmp_path), *searched())
    with (tmp_path / "order.json").open("rb") as text_of_order:
        done = subprocess.run(
            tethered("engine.compilation.compiler", *words),
            stdin=text_of_order,
            capture_output=True,
            text=True,
            cwd=tmp_path / "here",
            env=with_own_path(os.environ),
            timeout=300,  # a compiler is nice, so beside busy processes it takes long
            check=False,
        )
    assert "mine was imported" in done.stdout, done.stderr


def test_files_that_are_made_during_a_run_stop_no_command(tianji, tmp_path: Path):
    """Every command of a detached run, from a directory full of other people's names."""
    words = ("--detach", "--name", "run", *EASY, "-s", "stop.seconds=300")
    code, _, err = tianji("up", *words, "-s", "stop.return_threshold=null").end(60)
    assert code == 0, err
    wait_for(lambda: rows(tmp_path / "results" / "run", "consumption"), 60, "training")
    shadow(tmp_path)
    for command in ("status", "logs", "down"):
        code, out, err = tianji(command, "run").end(60)
        assert code == 0, (command, err)
        assert "own " not in out + err
