"""Rollouts of images over a slow link: packed once that was seen to be the limit."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.helpers.lab_fixtures import lab_of
from tests.helpers.ssh_kit import Bench
from tianji_cli.lab import Lab

pytestmark = pytest.mark.lab

PICTURE = """
import gymnasium
import numpy as np

class Picture(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def _look(self):
        frames = np.full((4, 84, 84), 87, np.uint8)
        for age, frame in enumerate(frames):
            at = (self.t - age) % 80
            frame[at : at + 4, 40:44] = 236
        return frames

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action):
        self.t += 1
        return self._look(), float(action), False, self.t >= 50, {}

gymnasium.register("Picture-v0", entry_point=Picture)
"""
EXPERIMENT = """
name: picture
env: {id: "picture:Picture-v0", num_envs: 2}
algorithm: {name: impala, rollout_steps: 20, batch_steps: 40}
network: {name: mlp, hidden_sizes: [4]}
learner: {compile: "off"}
staleness: {mode: correct, max_queued_rollouts: 4}
actors: 1
stop: {env_steps: 1600}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two hosts at 50 Mbit/s, over which a rollout as it is takes a fifth of a second."""
    yield from lab_of(2, tmp_path_factory.mktemp("slow") / "lab", rate="50mbit")


def test_images_are_packed_once_the_link_was_the_limit(bench: Bench) -> None:
    path = bench.results / "picture.yaml"
    path.write_text(EXPERIMENT)
    path.with_suffix(".py").write_text(PICTURE)
    up = bench.tianji("up", "-x", str(path), run="picture")
    assert up.wait(60) == 0, up.said
    assert up.summary["status"] == "ok"
    log = (up.run_dir / "logs" / bench.hosts[1] / "actor-0.log").read_text()
    said = re.search(r"packed, since the link was the limit: (\S+) ms each before, (\S+) ms", log)
    assert said is not None, log
    before_ms, now_ms = map(float, said.groups())
    assert before_ms > 100, "it would not have been the limit"
    assert now_ms < before_ms / 2
