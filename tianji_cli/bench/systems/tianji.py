"""TianJi itself, by its own command, as a user runs it."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

import engine
from engine.host.tether import tethered
from engine.search_path import module_command
from engine.trace.reader import read_table
from engine.trace.records import (
    RECORD_TYPES,
    Consumption,
    Episode,
    Event,
    Production,
    Record,
    table_of,
)
from tianji_cli.bench.systems.base import (
    AnySystem,
    CellPaths,
    Command,
    Deviations,
    Installed,
    Job,
    MatchKind,
    SystemOptions,
)
from tianji_cli.bench.systems.probe import probe_here
from tianji_cli.bench.systems.raw import EpisodeEnd, GarbageError, RawRecord, Steps, TrainedTotals
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task
from tianji_cli.bench.tasks.work import (
    ATARI,
    BenchDqn,
    BenchEnv,
    BenchImpala,
    BenchNetwork,
    BenchPpo,
    BenchSac,
    BenchTd3,
)

RUN = "run"
_ROOT = Path(__file__).resolve().parents[3]
_DAY_S = 86400.0
UPDATES_PER_BATCH = 16
"""Optimiser steps for each message from the replay store."""
WAITING_BATCHES = 3
"""Of IMPALA: as many as RLlib's learner queue holds."""
Row = TypeVar("Row", Production, Episode, Consumption, Event)


def experiment_of(job: Job) -> dict[str, object]:
    """The experiment file of a job; the harness stops it, so its own stop rule is far away."""
    task = job.task
    env, algorithm = task.env, msgspec.to_builtins(task.algorithm)
    staleness: dict[str, object]
    match task.algorithm:
        case BenchPpo():
            staleness = {"mode": "block", "max_lag": task.max_lag}
        case BenchDqn() | BenchSac() | BenchTd3():
            algorithm["updates_per_batch"] = UPDATES_PER_BATCH
            staleness = {"mode": "unbounded"}  # old samples are meant here
        case BenchImpala(batch_steps=batch_steps):
            rollouts_per_batch = batch_steps // (task.envs_per_worker * task.rollout_steps)
            waiting = WAITING_BATCHES * max(1, rollouts_per_batch)
            staleness = {"mode": "correct", "max_queued_rollouts": waiting}
    return {
        "version": 1,
        "name": "bench",
        "seed": job.seed,
        "env": {
            "id": env.id,
            "num_envs": task.envs_per_worker,
            **_changed(env, ("clip_reward", "backend")),
            "kwargs": {"repeat_action_probability": 0.0} if env.namespace == ATARI else {},
        },
        "algorithm": {**algorithm, "rollout_steps": task.rollout_steps},
        "network": {
            "name": task.network.name,
            **_changed(task.network, ("hidden_sizes", "activation", "initialization", "precision")),
        },
        "policy": task.policy,
        "learner": {"threads": task.threads},
        "actors": task.workers,
        **({"staleness": staleness} if task.policy == "tianji" else {}),
        "stop": {"seconds": _DAY_S, "env_steps": None, "return_threshold": None},
        "checkpoint": {"every_s": None},
    }


def _changed(of: BenchEnv | BenchNetwork, keys: Sequence[str]) -> dict[str, object]:
    """Keys that differ from their defaults, which are those of an experiment: an older TianJi may
    not have them."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(of)}
    given = msgspec.to_builtins(of)
    return {key: given[key] for key in keys if getattr(of, key) != defaults[key]}


class TianjiFeed:
    """Follows the trace tables of a run.

    Its event `started` says what CLOCK_MONOTONIC was at `t_s` 0, so every row has an exact time.
    The coordinator writes that event before all rows of training.

    Args:
        trace: The run's `trace/`, which need not exist yet.
    """

    def __init__(self, trace: Path) -> None:
        self._trace = trace
        self.origin_s: float | None = None
        self._offsets: dict[Path, int] = {}
        self._actors: set[str] = set()

    def poll(self) -> list[RawRecord]:
        if self.origin_s is None:
            self.origin_s = origin_of(self._new_rows(Event))
        if self.origin_s is None:
            return []
        origin_s = self.origin_s
        rows: list[Production | Episode | Consumption] = [
            *self._new_rows(Production),
            *self._new_rows(Episode),
            *self._new_rows(Consumption),
        ]
        return [record for row in rows for record in self._records(row, origin_s + row.t_s)]

    def _new_rows(self, kind: type[Row]) -> list[Row]:
        path = self._trace / f"{table_of(kind)}.jsonl"
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offsets[path] = self._offsets.get(path, 0) + end
        try:
            return [msgspec.json.decode(line, type=kind) for line in data[:end].splitlines()]
        except msgspec.ValidationError:
            return []  # a diverged loss is written as null; the tables are read strictly at the end
        except msgspec.DecodeError as error:
            raise GarbageError(f"{path.name} is not a trace table: {error}") from error

    def _records(self, row: Production | Episode | Consumption, t: float) -> list[RawRecord]:
        match row:
            case Episode():
                length = row.length_env_steps
                return [EpisodeEnd(t=t, episode_return=row.episode_return, length=length)]
            case Consumption():
                counts = row.env_steps_total, row.samples_trained_total, row.updates_total
                return [
                    TrainedTotals(t=t, env_steps=counts[0], samples=counts[1], updates=counts[2])
                ]
            case Production():
                source = f"actor-{row.actor}-{row.epoch}"
                records: list[RawRecord] = []
                if source not in self._actors:
                    self._actors.add(source)
                    records.append(Steps(t=t - row.collect_s, source=source, total=0))
                return [*records, Steps(t=t, source=source, total=row.env_steps_total)]


def origin_of(events: Iterable[Event]) -> float | None:
    """CLOCK_MONOTONIC at `t_s` 0, in seconds; None before the run has started."""
    return next((row.origin_s for row in events if row.kind == "started"), None)


class Tianji(AnySystem):
    """`tianji up` with the policy of the task."""

    name = "tianji"
    title = "TianJi"
    caveats = (
        "TianJi's compiled functions are made once, before its first cell; the other systems have"
        " nothing to compile as they are set up here.",
    )

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        found = probe_here(["torch", "gymnasium"])
        return msgspec.structs.replace(
            found, versions={"tianji": engine.__version__, **found.versions}
        )

    def deviations(self, task: Task) -> Deviations:
        from engine.envs.teams.registry import TEAMS  # Gymnasium, only where it is needed

        rows: dict[str, tuple[MatchKind, str]] = {}
        if isinstance(task.algorithm, BenchPpo | BenchImpala):
            rows["batch_steps"] = (
                "different",
                "the step that only resets an environment is one of them, and is not trained on",
            )
        if task.env.id in TEAMS:
            words = "its own version, all copies as arrays; from equal states both are equal"
            rows["environment"] = ("equal", words)
        if task.policy == "gpu-only" or task.env.backend == "torch":
            words = "its own version of tensors; from equal states both are equal"
            rows["environment"] = ("equal", words)
        if task.policy == "gpu-only":
            rows["workers"] = ("different", "one compiled loop steps all environments and learns")
            rows[LAG_BOUND] = ("different", "0: it collects and learns by turns")
        return rows

    def rehearsal(self, job: Job, scratch: Path, installed: Installed) -> Command:
        experiment = scratch / "experiment.json"
        experiment.write_bytes(msgspec.json.encode(experiment_of(job)))
        words = tethered("engine.compilation.precompile", str(experiment), number=signal.SIGTERM)
        argv = [installed.python, *words[1:]]
        return Command(argv, env={"PYTHONPATH": str(_ROOT)})

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        experiment = paths.root / "experiment.json"  # JSON is YAML
        experiment.write_bytes(msgspec.json.encode(experiment_of(job)))
        words = ("up", "-x", str(experiment), "--name", RUN, "--results", str(paths.root), "-q")
        argv = module_command(installed.python, "tianji_cli.main", *words)
        return Command(argv, env={"PYTHONPATH": str(_ROOT)}, ok_codes=(0, 130))

    def feed(self, paths: CellPaths) -> TianjiFeed:
        return TianjiFeed(paths.root / RUN / "trace")

    def trace(
        self, records: Sequence[RawRecord], paths: CellPaths, launched_s: float
    ) -> list[Record]:
        """Its own tables, moved to the time since launch."""
        own = paths.root / RUN / "trace"
        origin_s = origin_of(read_table(own, Event))
        if origin_s is None:
            return []
        shift_s, rows = origin_s - launched_s, list[Record]()
        for kind in RECORD_TYPES:
            table: list[Record] = read_table(own, kind)
            rows += [msgspec.structs.replace(row, t_s=row.t_s + shift_s) for row in table]
        return rows
