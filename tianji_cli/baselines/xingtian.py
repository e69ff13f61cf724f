"""XingTian v0.3.0, the user's own installation, started by its own entry point.

XingTian is not on PyPI and needs Python 3.7 with TensorFlow 1.15, so nothing here installs it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from tianji_cli.baselines.base import (
    DRIVERS,
    THREADS,
    CellPaths,
    Command,
    DriverPeer,
    Installed,
    Job,
    ParityRow,
    PeerMissingError,
    PeerOptions,
    parity_rows,
)
from tianji_cli.baselines.probe import probe
from tianji_cli.baselines.raw import Claimed, Feed, RawFeed, RawRecord, Trained
from tianji_cli.bench.suite import Task

PYTHON_VARIABLE = "TIANJI_XINGTIAN_PYTHON"
HOW_TO = (
    "install XingTian v0.3.0 by its README under Python 3.7 with tensorflow 1.15.0,"
    f" pyarrow 0.17.1, gym 0.17.3 and numpy 1.18.5, then name its interpreter: {PYTHON_VARIABLE}="
    "/path/to/python or --xingtian-python; or leave it out with --skip-missing"
)
LIVE_NAME = "learner-statistics.jsonl"
_TASK = re.compile(
    r"Task: (?P<task>\S+)\s*\| Train_count:\s*(?P<train_count>\d+) \| Steps:\s*(?P<steps>\d+)"
)
_FIGURE = re.compile(r"(?P<name>[a-z_]+):\s*(?P<value>-?\d+(?:\.\d+)?|nan)")
SHAPES = {"CartPole-v1": (4, 2), "Acrobot-v1": (6, 3), "MountainCar-v0": (2, 3)}
"""Numbers of inputs and actions, which XingTian's configuration must state."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """One block of statistics that XingTian prints every 10,000 steps."""

    train_count: int
    steps: int
    """Env steps that its learner has received."""
    figures: dict[str, float]
    """Its own, such as `step_per_second` and `train_reward_avg`."""


def parse_statistics(lines: Iterable[str]) -> list[Statistics]:
    """All statistic blocks of XingTian's output, in order; everything else is passed over.

    A block is a line that begins with `Task:` and the lines of figures below it; an empty line
    ends it, and a block that the end of the output cuts is left out.
    """
    found: list[Statistics] = []
    head: re.Match[str] | None = None
    figures: dict[str, float] = {}
    for line in lines:
        if match := _TASK.search(line):
            head, figures = match, {}
        elif head is not None and line.strip():
            figures |= {m["name"]: float(m["value"]) for m in _FIGURE.finditer(line)}
        elif head is not None and line.endswith("\n"):
            counts = int(head["train_count"]), int(head["steps"])
            found.append(Statistics(train_count=counts[0], steps=counts[1], figures=figures))
            head = None
    return found


class StatisticsFeed:
    """Follows the counting environments, and writes down when XingTian said what.

    XingTian's lines carry no usable time, so they are stamped when they are read; with the stamps
    written into the raw files, reading those again later gives the same.

    Args:
        paths: Of the cell.
        num_epochs: To turn env steps into samples.
    """

    origin_s: float | None = None

    def __init__(self, paths: CellPaths, num_epochs: int) -> None:
        self._raw = RawFeed(paths.raw)
        self._output = paths.output
        self._live = paths.raw / LIVE_NAME
        self._num_epochs = num_epochs
        self._num_known = 0

    def poll(self) -> list[RawRecord]:
        if self._output.is_file():
            with self._output.open(encoding="utf-8", errors="replace") as file:
                blocks = parse_statistics(file)
            with self._live.open("ab") as live:
                for block in blocks[self._num_known :]:
                    live.write(self._lines(block))
            self._num_known = len(blocks)
        return self._raw.poll()

    def _lines(self, block: Statistics) -> bytes:
        now_s = round(time.monotonic(), 6)
        records: tuple[RawRecord, ...] = (
            Claimed(t=now_s, env_steps=block.steps),
            Trained(
                t=now_s,
                env_steps=block.steps,
                samples=block.steps * self._num_epochs,
                updates=block.train_count,
            ),
        )
        return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def configuration(task: Task, archive: Path) -> dict[str, object]:
    """XingTian's own configuration of a task; what is not named here is its default.

    Raises:
        ConfigError: An environment whose sizes are not known here.
    """
    if task.env.id not in SHAPES:
        raise ConfigError(
            f"XingTian's configuration must state sizes, and those of {task.env.id} are not known",
            where="env.id",
            fix=f"known: {', '.join(SHAPES)}",
        )
    agent_config = {"max_steps": task.rollout_steps, "complete_step": 10**12}
    alg_config = {
        "process_num": 1,
        "save_model": False,
        "prepare_times_per_train": task.workers,
    }
    return {
        "alg_para": {"alg_name": "PPO", "alg_config": alg_config},
        "env_para": {
            "env_name": "GymEnv",
            "env_info": {"name": task.env.id, "vision": False},
        },
        "agent_para": {"agent_name": "PPO", "agent_num": 1, "agent_config": agent_config},
        "model_para": {"actor": _actor(task)},
        "env_num": task.workers,
        "speedup": False,
        "benchmark": {"log_interval_to_train": 1, "archive_root": str(archive)},
    }


def _actor(task: Task) -> dict[str, object]:
    """Network and optimiser."""
    num_inputs, num_actions = SHAPES[task.env.id]
    hp = task.algorithm
    model_config = {
        "BATCH_SIZE": hp.minibatch_steps,
        "CRITIC_LOSS_COEF": 2 * hp.value_coefficient,  # its loss is half the squared error
        "ENTROPY_LOSS": hp.entropy_coefficient,
        "LR": hp.learning_rate,
        "LOSS_CLIPPING": hp.clip_range,
        "MAX_GRAD_NORM": hp.max_gradient_norm,
        "NUM_SGD_ITER": hp.num_epochs,
        "VF_CLIP": 1e9,
        "SUMMARY": False,
        "VF_SHARE_LAYERS": False,
        "activation": task.network.activation,
        "hidden_sizes": list(task.network.hidden_sizes),
    }
    return {
        "model_name": "PpoMlp",
        "state_dim": [num_inputs],
        "action_dim": num_actions,
        "input_dtype": "float32",
        "model_config": model_config,
    }


class Xingtian(DriverPeer):
    """XingTian's PPO; explorers are its workers."""

    name = "xingtian"
    title = "XingTian"
    caveats = (
        "XingTian is unmaintained: Python 3.7, TensorFlow 1.15, gym 0.17.",
        "XingTian resets its environment after every fragment, so here a fragment is a whole"
        " episode, and a batch is one fragment of each explorer: its size varies.",
        "XingTian runs `pkill -9` by name; here a stand-in of that command first in its PATH"
        " confines this to its own session.",
        "XingTian has no seed option: its blocks differ by chance alone.",
    )

    def prepare(self, options: PeerOptions) -> Installed:
        named = options.xingtian_python or os.environ.get(PYTHON_VARIABLE)
        if not named:
            raise PeerMissingError(
                "no XingTian installation was named", where="xingtian", fix=HOW_TO
            )
        modules = ["xt=xingtian", "tensorflow", "pyarrow", "gym", "numpy"]
        return probe(Path(named).expanduser(), modules, peer=self.title, fix=HOW_TO)

    def parity(self, task: Task) -> list[ParityRow]:
        return parity_rows(
            task,
            self.name,
            different={
                "rollout_steps": "one episode",
                "batch_steps": f"{task.workers} episodes",
            },
            not_settable={
                name: f"{fixed}, fixed in its code"
                for name, fixed in (("discount", 0.99), ("gae_lambda", 0.95))
                if getattr(task.algorithm, name) != fixed
            },
            extra=(
                ("advantage normalisation", "per minibatch", "not settable", "none"),
                ("value loss clipping", "off", "equal", "off; 5.0 by default"),
                ("bootstrap at truncation", "on", "not settable", "truncation counts as the end"),
                ("seed", "the block's", "not settable", "none"),
            ),
        )

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

    def feed(self, paths: CellPaths, origin_s: float | None) -> Feed:
        if paths.result.is_file():
            return RawFeed(paths.raw)
        job = msgspec.json.decode(paths.job.read_bytes(), type=Job)
        return StatisticsFeed(paths, job.task.algorithm.num_epochs)
