"""Whole runs by the command line: every layout learns, env steps/s, and what becomes of weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from engine.devices.visible import PRETENDED, VISIBLE
from tests.gpu.proof import Check, Setting
from tests.helpers.paths import REPOSITORY

SECONDS = 12.0
LIMIT_S = 45.0
ENDLESS = ("-s", "stop.return_threshold=null", "-s", "stop.env_steps=null")
LAYOUTS = {
    "processor only": (),
    "learner on the device, actors on the processor": ("-s", "learner.device=cuda"),
    "central inference (single-learner-fine)": (
        *("--policy", "single-learner-fine", "-s", "learner.device=cuda"),
    ),
    "learner and actors on the device": (
        *("-s", "learner.device=cuda", "-s", "actor.device=cuda"),
    ),
    "gpu-only, 2048 environments": (
        *("-x", "cartpole_gpu_only", "-s", "env.num_envs=2048", "-s", "learner.device=cuda"),
        *("-s", "algorithm.batch_steps=65536", "-s", "algorithm.minibatch_steps=16384"),
    ),
}


def tianji(setting: Setting, *arguments: str) -> str:
    """Runs a command, which sees one GPU; returns its standard output."""
    pretended = {PRETENDED: setting.name} if setting.is_rehearsal else {}
    pretended |= {VISIBLE: os.environ.get(VISIBLE, "0")}
    done = subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", *arguments],
        cwd=setting.directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", **pretended},
        capture_output=True,
        text=True,
        timeout=4 * LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"tianji {' '.join(arguments)}: {done.stderr[-2000:]}"
    return done.stdout


def layout(number: int, setting: Setting) -> dict[str, float]:
    """A run of some seconds under one layout."""
    words, settings = list(LAYOUTS.items())[number]
    limit = ("-s", f"stop.seconds={SECONDS * setting.scale:g}")
    name = f"layout-{number}"
    out = tianji(setting, "--json", "up", "--name", name, *settings, *ENDLESS, *limit)
    summary = json.loads(out)
    manifest = json.loads((setting.directory / f"results/{name}/manifest.json").read_text())
    used = {place for item in manifest["processes"].values() for place in item["devices"].values()}
    assert used == (set() if words == "processor only" else {setting.name}), used
    assert summary["status"] == "ok"
    assert summary["weights_version"] > 0
    assert summary["consume_per_s"] or setting.scale < 1
    return {
        "env steps/s": summary["consume_per_s"] or 0.0,
        "mean lag": summary["lag"]["mean"] or 0.0,
    }


def learns(setting: Setting) -> dict[str, float]:
    """CartPole to its threshold with a learner on the device, evaluated there too; resumed on the
    processor, evaluated and exported: the weights are the ones that were learnt."""
    evaluated = ("-s", "evaluation.episodes=10", "-s", "evaluation.device=cuda")
    limits = ("-s", "stop.env_steps=400000", "-s", "stop.return_threshold=400")
    out = tianji(
        setting,
        "--json",
        "up",
        "--name",
        "learnt",
        "-s",
        "learner.device=cuda",
        *evaluated,
        *limits,
    )
    summary = json.loads(out)
    assert summary["reached"], f"it has not learnt: {summary['return_mean']}"
    more = str(summary["env_steps_consumed"] + 20000)
    here = ("-s", "learner.device=cpu", "-s", "evaluation.device=cpu")
    tianji(
        setting,
        "up",
        "--resume",
        "learnt",
        "--name",
        "resumed",
        *here,
        *("-s", "stop.return_threshold=null", "-s", f"stop.env_steps={more}"),
    )
    tianji(setting, "evaluate", "learnt", "--episodes", "20")
    tianji(setting, "export", "learnt", "--format", "safetensors")
    return {
        "s to the threshold": summary["time_to_threshold_s"] or 0.0,
        "env steps to it": summary["steps_to_threshold"] or 0.0,
    }


def _run_of(number: int) -> Callable[[Setting], dict[str, float]]:
    return lambda setting: layout(number, setting)


CHECKS = (
    *(Check(f"run: {words}", _run_of(i), LIMIT_S) for i, words in enumerate(LAYOUTS)),
    Check("run: learns, is resumed, evaluated and exported on the processor", learns, 90),
)
