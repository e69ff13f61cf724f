"""The plain loops, with what they compute often compiled by `torch.compile`, as LeanRL does.

python compiled_loop.py job.json [UPDATES]: with UPDATES it ends after so many.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import single_process_dqn
import single_process_ppo
import single_process_sac
import single_process_td3
import torch
from single_process_run import Loop, run

LOOPS: dict[str, tuple[Callable[[dict[str, Any], int], Loop], tuple[str, ...]]] = {
    "ppo": (single_process_ppo.Loop, ("choose", "advantages", "learn")),
    "dqn": (single_process_dqn.Loop, ("greedy", "learn")),
    "sac": (single_process_sac.Loop, ("act", "learn")),
    "td3": (single_process_td3.Loop, ("act", "learn_values", "learn_policy")),
}
"""By algorithm: the loop, and its functions that are compiled."""


def make_loop(task: dict[str, Any], seed: int) -> Loop:
    """The loop of the task's algorithm, compiled."""
    make, names = LOOPS[task["algorithm"]["name"]]
    loop = make(task, seed)
    for name in names:
        setattr(loop, name, torch.compile(getattr(loop, name)))
    return loop


def rehearse(num_updates: int) -> None:
    """Compiles everything, which PyTorch keeps in its cache."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["task"]["threads"])
    loop = make_loop(job["task"], job["seed"])
    while loop.num_updates < num_updates:
        loop.advance()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        rehearse(int(sys.argv[2]))
    else:
        run(make_loop)
