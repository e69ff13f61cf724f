"""Every experiment that comes with TianJi can be run as far as its packages are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from engine.blueprint import make_blueprint
from engine.config.config_file import load_experiment
from tests.helpers.paths import REPOSITORY

FILES = sorted((REPOSITORY / "experiments").glob("*.yaml"))
PACKAGES = {
    "ALE/": "ale_py",
    "MinAtar/": "minatar",
    "MiniGrid-": "minigrid",
    "LunarLander": "Box2D",
    "HalfCheetah-": "mujoco",
    "Hopper-": "mujoco",
}


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # Box2D's, in C: it crashes
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_be_run(path: Path):
    experiment, _ = load_experiment(path)
    assert experiment.name == path.stem
    for prefix, package in PACKAGES.items():
        if experiment.env.id.startswith(prefix) and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    blueprint = make_blueprint(experiment)
    assert blueprint.layout.num_bytes > 0
    assert (blueprint.rollouts_per_batch > 0) != (blueprint.replay is not None)
