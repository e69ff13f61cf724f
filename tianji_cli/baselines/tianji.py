"""TianJi itself, by its own command, as a user runs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

import engine
from engine.trace.reader import read_table
from engine.trace.records import (
    RECORD_TYPES,
    Consumption,
    Episode,
    Production,
    Record,
    table_of,
)
from tianji_cli.baselines.base import (
    CellPaths,
    Command,
    Installed,
    Job,
    ParityRow,
    PeerOptions,
    parity_rows,
)
from tianji_cli.baselines.probe import probe_here
from tianji_cli.baselines.raw import EpisodeEnd, GarbageError, RawRecord, Steps, Trained
from tianji_cli.bench.suite import Task

RUN = "run"
_ROOT = Path(__file__).resolve().parents[2]
_DAY_S = 86400.0


def experiment_of(job: Job) -> dict[str, object]:
    """The experiment file of a job; the harness stops it, so its own stop rule is far away."""
    task = job.task
    algorithm = {**msgspec.to_builtins(task.algorithm), "rollout_steps": task.rollout_steps}
    return {
        "version": 1,
        "name": "bench",
        "seed": job.seed,
        "env": {"id": task.env.id, "num_envs": task.envs_per_worker},
        "algorithm": algorithm,
        "network": {"name": "mlp", **msgspec.to_builtins(task.network)},
        "policy": "tianji",
        "actors": task.workers,
        "stop": {"seconds": _DAY_S, "env_steps": None, "return_threshold": None},
        "checkpoint": {"every_s": None},
    }


class TianjiFeed:
    """Follows the trace tables of a run.

    TianJi's `t_s` begins when its roles have joined. A row is written after it happened, so each
    look bounds that beginning from above by `now - t_s` of the newest row, and the smallest of
    these is late by one look and one flush at most, about a tenth of a second.

    Args:
        trace: The run's `trace/`, which need not exist yet.
        origin_s: The beginning on CLOCK_MONOTONIC if it is known already.
    """

    def __init__(self, trace: Path, origin_s: float | None) -> None:
        self._trace = trace
        self._is_known = origin_s is not None
        self.origin_s = origin_s
        self._offsets: dict[Path, int] = {}
        self._actors: set[str] = set()

    def poll(self) -> list[RawRecord]:
        rows = [row for kind in (Production, Episode, Consumption) for row in self._new_rows(kind)]
        if not rows:
            return []
        if not self._is_known:
            newest = time.monotonic() - max(row.t_s for row in rows)
            self.origin_s = newest if self.origin_s is None else min(self.origin_s, newest)
        return [record for row in rows for record in self._records(row)]

    def _new_rows(
        self, kind: type[Production] | type[Episode] | type[Consumption]
    ) -> list[Production | Episode | Consumption]:
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

    def _records(self, row: Production | Episode | Consumption) -> list[RawRecord]:
        assert self.origin_s is not None
        t = self.origin_s + row.t_s
        match row:
            case Episode():
                length = row.length_env_steps
                return [EpisodeEnd(t=t, episode_return=row.episode_return, length=length)]
            case Consumption():
                counts = row.env_steps_total, row.samples_trained_total, row.updates_total
                return [Trained(t=t, env_steps=counts[0], samples=counts[1], updates=counts[2])]
            case Production():
                source = f"actor-{row.actor}-{row.epoch}"
                records: list[RawRecord] = []
                if source not in self._actors:
                    self._actors.add(source)
                    records.append(Steps(t=t - row.collect_s, source=source, total=0))
                return [*records, Steps(t=t, source=source, total=row.env_steps_total)]


class Tianji:
    """`tianji up` with the policy `tianji`."""

    name = "tianji"
    title = "TianJi"
    caveats: Sequence[str] = ()

    def prepare(self, options: PeerOptions) -> Installed:
        found = probe_here(["torch", "gymnasium"])
        return msgspec.structs.replace(
            found, versions={"tianji": engine.__version__, **found.versions}
        )

    def parity(self, task: Task) -> list[ParityRow]:
        return parity_rows(
            task,
            self.name,
            extra=(
                ("advantage normalisation", "per minibatch", "equal", ""),
                ("value loss clipping", "off", "equal", ""),
                ("bootstrap at truncation", "on", "equal", ""),
                ("seed", "the block's", "equal", ""),
            ),
        )

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        experiment = paths.root / "experiment.json"  # JSON is YAML
        experiment.write_bytes(msgspec.json.encode(experiment_of(job)))
        words = ("up", "-x", str(experiment), "--name", RUN, "--results", str(paths.root), "-q")
        argv = [installed.python, "-m", "tianji_cli.main", *words]
        return Command(argv, env={"PYTHONPATH": str(_ROOT)}, ok_codes=(0, 130))

    def feed(self, paths: CellPaths, origin_s: float | None) -> TianjiFeed:
        return TianjiFeed(paths.root / RUN / "trace", origin_s)

    def trace(
        self, records: Sequence[RawRecord], paths: CellPaths, launched_s: float, origin_s: float
    ) -> list[Record]:
        """Its own tables, moved to the time since launch."""
        shift_s = origin_s - launched_s
        own = paths.root / RUN / "trace"
        rows: list[Record] = []
        for kind in RECORD_TYPES:
            table: list[Record] = read_table(own, kind)  # type: ignore[type-var]
            rows += [msgspec.structs.replace(row, t_s=row.t_s + shift_s) for row in table]
        return rows
