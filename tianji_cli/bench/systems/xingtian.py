"""XingTian v0.3.0, the user's own installation, started by its own entry point.

XingTian is not on PyPI and needs Python 3.7 with TensorFlow 1.15, so nothing here installs it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.host.account import expand
from engine.wording import plural
from tianji_cli.bench.systems.base import (
    DRIVERS,
    THREADS,
    CellPaths,
    Command,
    Deviations,
    DriverSystem,
    Installed,
    Job,
    MatchKind,
    SystemMissingError,
    SystemOptions,
)
from tianji_cli.bench.systems.probe import probe
from tianji_cli.bench.systems.raw import Feed
from tianji_cli.bench.systems.xingtian_config import SHAPES, configuration
from tianji_cli.bench.systems.xingtian_output import StatisticsFeed
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task
from tianji_cli.bench.tasks.work import ATARI, BenchDqn, BenchIppo, BenchPpo

PYTHON_VARIABLE = "TIANJI_XINGTIAN_PYTHON"
HOW_TO = (
    "install XingTian v0.3.0 by its README under Python 3.7 with tensorflow 1.15.0,"
    f" pyarrow 0.17.1, gym 0.17.3 and numpy 1.18.5, then name its interpreter: {PYTHON_VARIABLE}="
    "/path/to/python or --xingtian-python; or leave it out with --skip-missing"
)


class Xingtian(DriverSystem):
    """XingTian's PPO and DQN; explorers are its workers."""

    name = "xingtian"
    title = "XingTian"
    caveats = (
        "XingTian is unmaintained: Python 3.7, TensorFlow 1.15, gym 0.17.",
        "XingTian resets a classic environment after every fragment, so there a fragment is a whole"
        " episode, and a batch is one fragment of each explorer: its size varies.",
        "XingTian runs `pkill -9` by name; here a stand-in of that command first in its PATH"
        " confines this to its own session.",
        "XingTian has no seed option: its blocks differ by chance alone.",
    )

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        named = options.xingtian_python or os.environ.get(PYTHON_VARIABLE)
        if not named:
            raise SystemMissingError(
                "no XingTian installation was named", where="xingtian", fix=HOW_TO
            )
        modules = ["xt=xingtian", "tensorflow", "pyarrow", "gym", "numpy"]
        return probe(expand(named), modules, system=self.title, fix=HOW_TO)

    def refusal(self, task: Task) -> str | None:
        if isinstance(task.algorithm, BenchIppo):
            return "XingTian is not set up for several agents here"
        if task.env.id not in SHAPES:
            return f"XingTian's configuration must state sizes; those of {task.env.id} are unknown"
        if not isinstance(task.algorithm, BenchPpo | BenchDqn):
            return f"XingTian's {task.algorithm_name.upper()} is not set up here"
        if task.network.precision != "float32":
            return "XingTian's networks compute in float32"
        has_dqn = task.env.namespace != ATARI and task.network.name == "mlp"
        if isinstance(task.algorithm, BenchDqn) and not has_dqn:
            return "XingTian's DQN is set up for fully connected networks here"
        return None

    def deviations(self, task: Task) -> Deviations:
        if isinstance(task.algorithm, BenchPpo):
            return _deviations_of_ppo(task, task.algorithm)
        assert isinstance(task.algorithm, BenchDqn), "see refusal"
        return {
            "rollout_steps": ("different", "every step is a message of its own"),
            "network": _dqn_network(task),
            "max_gradient_norm": ("not settable", "no clipping"),
            "epsilon_final": _fixed(task.algorithm.epsilon_final, 0.01),
            "epsilon_decay_env_steps": ("different", "counted from the first step"),
            "loss": ("not settable", "squared error, mean over samples and actions"),
            "bootstrap at truncation": ("not settable", "truncation counts as the end"),
            "seed": ("not settable", "none"),
        }

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        home = Path(job.scratch)
        config = paths.root / "xingtian.json"  # JSON is YAML
        config.write_bytes(msgspec.json.encode(configuration(job.task, home / "archive")))
        tools = home / "bin"
        tools.mkdir(parents=True, exist_ok=True)
        pkill = tools / "pkill"
        pkill.write_text('#!/bin/sh\nPATH=/usr/bin:/bin exec pkill -s 0 "$@"\n', encoding="utf-8")
        pkill.chmod(0o755)
        folders = (str(tools), str(Path(installed.python).parent), os.environ.get("PATH", ""))
        env = {
            "PATH": os.pathsep.join(folders),  # it starts `python3` and `plasma_store` by name
            "PYTHONPATH": str(DRIVERS / "xingtian_site"),
            "HOME": str(home),
            **THREADS,
        }
        argv = [installed.python, "-u", "-m", "xt.main", "-f", str(config), "-t", "train"]
        return Command(argv, env=env, unset=("VIRTUAL_ENV",))

    def feed(self, paths: CellPaths) -> Feed:
        job = msgspec.json.decode(paths.job.read_bytes(), type=Job)
        # With DQN every step is a message of its own, and its broker takes any number of them.
        return StatisticsFeed(paths, is_bounded=isinstance(job.task.algorithm, BenchPpo))


def _fixed(wanted: float, fixed: float) -> tuple[MatchKind, str]:
    """A value that XingTian's code holds."""
    note = f"{fixed:g}, fixed in its code"
    return ("equal", note) if wanted == fixed else ("not settable", note)


def _dqn_network(task: Task) -> tuple[MatchKind, str]:
    sizes = task.network.hidden_sizes
    if task.network.activation == "relu" and len(set(sizes)) == 1:
        return "equal", "relu and layers of one size are fixed in its code"
    return "not settable", f"{' x '.join([str(sizes[0])] * len(sizes))}, relu"


def _deviations_of_ppo(task: Task, hp: BenchPpo) -> Deviations:
    common: Deviations = {
        LAG_BOUND: ("different", "0: explorers wait for the weights of each batch"),
        "discount": _fixed(hp.discount, 0.99),
        "gae_lambda": _fixed(hp.gae_lambda, 0.95),
        "advantage normalisation": ("not settable", "none"),
        "value loss clipping": ("equal", "off; 5.0 by default"),
        "bootstrap at truncation": ("not settable", "truncation counts as the end"),
        "seed": ("not settable", "none"),
    }
    if task.env.namespace != ATARI:
        return {
            **common,
            "rollout_steps": ("different", "one episode"),
            "batch_steps": ("different", plural(task.workers, "episode")),
        }
    return {
        **common,
        "observations": ("different", "frames averaged by area, RIGHT or UP after FIRE"),
        "network": ("not settable", "its second convolution has 32 filters, not 64"),
        "reward to learn from": (
            ("equal", "fixed in its code; a lost life also ends what is learnt from")
            if task.env.clip_reward
            else ("not settable", "its sign")
        ),
    }
