"""The environment in docs/multi-agent.md is one, and is learnt in."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import numpy as np
import pytest

from engine.envs.make import make_vector_env
from engine.spec import EnvSpec
from tests.helpers.paths import REPOSITORY

PAGE = REPOSITORY / "docs/multi-agent.md"


@pytest.fixture
def carrying(monkeypatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "class Carrying" in block)
    module = ModuleType("carrying")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "carrying", module)


@pytest.mark.usefixtures("carrying")
def test_the_environment_of_the_page_does_what_it_says():
    spec = EnvSpec(id="carrying:Carrying", num_envs=1, central_state=True, kwargs={"length": 2})
    env = make_vector_env(spec)
    env.reset(seed=0)
    seen = []
    for _ in range(5):
        observation, reward, terminated, truncated, _ = env.step(np.ones((1, 2), np.int64))
        present = observation["team"]["present"][0].tolist()
        seen.append((present, float(reward[0]), bool(terminated[0]), bool(truncated[0])))
    assert seen == [
        ([1, 0], 1.0, False, False),
        ([1, 1], 1.0, False, False),
        ([1, 1], 2.0, False, False),
        ([0, 0], 2.0, True, False),
        ([1, 0], 0.0, False, False),
    ]
    assert observation["state"].tolist() == [[0.0]]
    stays = [env.step(np.zeros((1, 2), np.int64)) for _ in range(16)]
    assert [bool(step[3][0]) for step in stays] == [False] * 15 + [True]
