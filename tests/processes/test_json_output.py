"""`--json` prints one document on standard output, whatever an environment prints there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.running import SHORT

pytestmark = pytest.mark.processes

CHATTY = """
import atexit
import ctypes
import os
import subprocess
import sys

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

C = ctypes.CDLL(None)
said = set()


def shout(when):
    if when in said:
        return
    said.add(when)
    print(f"{when}: print")
    sys.__stdout__.write(f"{when}: the interpreter's own\\n")
    os.write(1, f"{when}: descriptor\\n".encode())
    C.puts(f"{when}: C".encode())
    subprocess.run(["echo", f"{when}: child"], check=True)


class Chatty(CartPoleEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        shout("construction")

    def reset(self, **kwargs):
        shout("reset")
        return super().reset(**kwargs)

    def step(self, action):
        shout("step")
        return super().step(action)

    def close(self):
        shout("close")


shout("import")
atexit.register(shout, "exit")
gymnasium.register("Chatty-v0", Chatty, max_episode_steps=200)
"""
KINDS = ("print", "the interpreter's own", "descriptor", "C", "child")


@pytest.mark.parametrize("is_json", [True, False])
def test_what_an_environment_prints_under_local_goes_to_standard_error(
    tianji, tmp_path: Path, is_json: bool
):
    (tmp_path / "chatty.py").write_text(CHATTY)
    words = ("up", "--policy", "local", "-s", "env.id=chatty:Chatty-v0", *SHORT)
    code, out, err = tianji(*(["--json"] if is_json else []), *words).end(60)
    assert code == 0, err
    for when in ("import", "construction", "reset", "step", "close", "exit"):
        for kind in KINDS:
            assert f"{when}: {kind}" in err, (when, kind)
            assert f"{when}: {kind}" not in out
    assert (json.loads(out)["status"] == "ok") if is_json else ("Wall time" in out)


def test_nor_does_it_before_an_error(tianji, tmp_path: Path):
    text = "print('noise', flush=True)\nraise RuntimeError('not today')\n"
    (tmp_path / "noisy.py").write_text(text)
    words = ("up", "--policy", "local", "-s", "env.id=noisy:X-v0", *SHORT)
    code, out, err = tianji("--json", *words).end(60)
    assert (code, out) == (2, "")
    assert "noise" in err
    assert "not today" in err
