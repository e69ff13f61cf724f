"""Policies to export: of every space, network and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from engine.envs.make import register_environment
from engine.export.formats import FORMATS, Exported, export_policy
from engine.export.recording import Recording
from engine.spec import Experiment
from engine.trained.load import Trained, load_trained
from engine.trained.run import read_trained
from tests.helpers.engine.trained_runs import write_run


class Images(gymnasium.Env[np.ndarray, np.ndarray]):
    """Random images of bytes.

    Args:
        shape: Of one, such as `4, 36, 36`.
    """

    def __init__(self, shape: str) -> None:
        sizes = tuple(int(size) for size in shape.split(","))
        self.observation_space = spaces.Box(0, 255, sizes, np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._image(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._image(), 0.0, bool(self.np_random.random() < 0.1), False, {}

    def _image(self) -> np.ndarray:
        brightest = self.np_random.integers(1, 256)
        return self.np_random.integers(0, brightest, self.observation_space.shape, np.uint8)


register_environment("Image-v0", Images)


def lively(root: Path, experiment: Experiment) -> Trained:
    """A policy whose actions differ between observations."""
    return load_trained(read_trained(write_run(root / "run", experiment, is_lively=True)))


def exported(
    root: Path, trained: Trained, name: str, recording: Recording | None = None
) -> Exported:
    """Exports into `root / name`; the result was compared with the engine."""
    directory = root / name
    directory.mkdir(parents=True)
    return export_policy(trained, FORMATS[name], directory, "a policy", recording)
