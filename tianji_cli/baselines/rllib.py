"""Ray RLlib, new API stack, in a virtual environment of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from tianji_cli.baselines.base import (
    DriverPeer,
    Installed,
    ParityRow,
    PeerOptions,
    parity_rows,
    venv_python,
)
from tianji_cli.baselines.probe import probe
from tianji_cli.bench.suite import Task

VERSION = "2.60.0"


class RllibResult(msgspec.Struct, frozen=True, kw_only=True):
    """RLlib's own words about one training iteration (`raw/rllib-results.txt`).

    Its mean return is NaN (here null) before the first episode, and it covers only the last part
    of an episode that several iterations share; the figures of a report come from the counting
    environments instead.
    """

    training_iteration: float | None
    num_env_steps_sampled_lifetime: float | None
    num_module_steps_trained_lifetime: float | None
    episode_return_mean: float | None
    time_total_s: float | None


def parse_results(lines: Iterable[str]) -> list[RllibResult]:
    """Complete lines of `rllib-results.txt`; Python's NaN becomes null."""
    found = []
    for line in lines:
        if not line.endswith("\n"):
            continue
        data = json.loads(line, parse_constant=lambda _constant: None)
        found.append(msgspec.convert(data, RllibResult))
    return found


class Rllib(DriverPeer):
    """`PPO` of `ray.rllib`; env runners are its workers."""

    name = "rllib"
    title = "RLlib"
    driver = "rllib_ppo.py"
    caveats = (
        "RLlib's KL loss and value clipping, on by default, are off here: nobody else has them.",
        "RLlib's learner lives in the driver process (num_learners 0), its default on one host.",
    )

    def prepare(self, options: PeerOptions) -> Installed:
        return probe(
            venv_python(options.peers_dir, self.name),
            ["ray", "torch", "gymnasium", "ray.rllib.algorithms.ppo=rllib"],
            peer=self.title,
            fix="tianji bench --install rllib, or leave it out with --skip-missing",
        )

    def parity(self, task: Task) -> list[ParityRow]:
        return parity_rows(
            task,
            self.name,
            extra=(
                ("advantage normalisation", "per minibatch", "different", "per batch"),
                ("value loss clipping", "off", "equal", "off; on by default"),
                ("bootstrap at truncation", "on", "equal", ""),
                ("seed", "the block's", "equal", ""),
            ),
        )
