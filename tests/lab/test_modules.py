"""The user's own modules on hosts that have none of them."""

from __future__ import annotations

import pytest

from tests.helpers.ssh_kit import Bench, limits

pytestmark = pytest.mark.lab

ENVIRONMENT = """
import gymnasium
import rules
gymnasium.register("Mine-v0", entry_point="worlds.small:World", max_episode_steps=rules.STEPS)
"""
WORLD = """
import sys
from gymnasium.envs.classic_control import CartPoleEnv
from .size import SIZE

class World(CartPoleEnv):
    def __init__(self, **settings):
        super().__init__(**settings)
        for name in ("mine", "rules", "named", __name__):
            print(SIZE, name, sys.modules[name].__file__, flush=True)
"""
EXPERIMENT = """
name: mine
env: {id: "mine:Mine-v0"}
modules: [named]
algorithm: {name: ppo}
learner: {compile: "off"}
actors: 2
stop: {env_steps: 2000}
"""


def test_own_modules_come_along_to_every_host(bench: Bench) -> None:
    """From beside the experiment and from the working directory, with what they import there."""
    one, two, three, _ = bench.hosts
    beside = bench.results / "study"
    files = {
        beside / "mine.yaml": EXPERIMENT,
        beside / "mine.py": ENVIRONMENT,
        beside / "rules.py": "STEPS = 200\n",
        beside / "worlds" / "small.py": WORLD,
        beside / "worlds" / "size.py": "SIZE = 1\n",
        bench.results / "named.py": "",
    }
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    hosts = (one, two, three)
    up = bench.tianji("up", "-x", str(beside / "mine.yaml"), *limits(*hosts), run="modules")
    assert up.wait(60) == 0, up.said
    assert up.summary["status"] == "ok"
    assert up.summary["num_hosts"] == 3
    for host, actor in ((two, "actor-0"), (three, "actor-1")):
        log = (up.run_dir / "logs" / host / f"{actor}.log").read_text()
        for name in ("mine", "rules", "named", "worlds.small"):
            assert f"1 {name} /root/.tianji/" in log, log
    bench.assert_nothing_left(hosts=list(hosts))
