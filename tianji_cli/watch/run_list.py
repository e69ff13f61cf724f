"""The list of all runs, kept up to date at little cost; connects to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from engine.errors import ConfigError
from engine.trace.records import Episode, Production
from engine.trace.team_returns import return_of
from tianji_cli.analysis.run import read_manifest
from tianji_cli.analysis.runs import RunRow
from tianji_cli.bench.kinds import KINDS
from tianji_cli.bench.listing import row_of_work
from tianji_cli.storage.follow import last_rows
from tianji_cli.storage.run_dir import RunPaths, directories_with, in_unicode
from tianji_cli.watch.live_run import liveness_of
from tianji_cli.watch.roles import shown
from tianji_cli.watch.run_files import Stamp, age_of, row_of_own, stamp_of
from tianji_cli.watch.tallies import RecentRate
from tianji_cli.watch.views import Liveness

MAX_RUNS = 300
"""The newest ones."""
MAX_LIVE = 16
"""Runs whose last rows are read for the list."""
WORKS_EVERY_S = 10.0
DEFAULT_WINDOW = 100


class ListedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, study or benchmark in the list.

    Attributes:
        per_s: Env steps collected per second: now, or the steady rate once it is over.
        age_s: Since its files were written to.
    """

    run_id: str
    kind: Literal["run", "study", "bench", "scaling", "transport", "published"]
    status: str
    liveness: Liveness
    problem: str
    env_id: str
    algorithm: str
    policy: str
    seed: int | None
    return_mean: float | None
    threshold: float | None
    per_s: float | None
    age_s: float | None
    started_at: str
    num_cells: int | None = None
    num_cells_finished: int | None = None


class ListView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest runs first, and how many older ones are left out."""

    runs: list[ListedRun]
    num_left_out: int
    problem: str = ""


class RunList:
    """What is in a results directory.

    Args:
        results: The directory.
        monotonic_s: A clock.
    """

    def __init__(self, results: Path, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.results = results
        self._monotonic_s = monotonic_s
        self._rows: dict[str, tuple[Stamp, RunRow]] = {}
        self._works: list[tuple[int, RunRow]] = []
        self._looked_at_s = -WORKS_EVERY_S

    def paths_of(self, run_id: str) -> RunPaths | None:
        """The run of this name; None if the list has none, or its directory leads elsewhere."""
        if not run_id or "/" in run_id or "\0" in run_id or run_id in (".", ".."):
            return None
        paths = RunPaths(self.results / run_id)
        return paths if paths.manifest.is_file() and not self.leads_out(paths) else None

    def view(self) -> ListView:
        """The list now."""
        try:
            dated: list[tuple[int, RunPaths | RunRow]] = [
                *((time_ns, RunPaths(place)) for time_ns, place in self._directories()),
                *self._works_now(),
            ]
        except ConfigError as error:
            return ListView(runs=[], num_left_out=0, problem=str(error))
        dated.sort(key=lambda item: item[0], reverse=True)
        self._num_live = 0
        listed = [
            self._listed(item) if isinstance(item, RunPaths) else _listed_work(item)
            for _, item in dated[:MAX_RUNS]
        ]
        kept = {row.run_id for row in listed}
        self._rows = {name: known for name, known in self._rows.items() if name in kept}
        return ListView(runs=listed, num_left_out=len(dated) - len(listed))

    def _directories(self) -> list[tuple[int, Path]]:
        return directories_with(self.results, "manifest.json")

    def _works_now(self) -> list[tuple[int, RunRow]]:
        """Studies and benchmarks, looked at now and then: their cells have to be counted."""
        now_s = self._monotonic_s()
        if now_s >= self._looked_at_s + WORKS_EVERY_S:
            self._looked_at_s = now_s
            self._works = [
                (time_ns, row_of_work(kind, place))
                for kind in KINDS.values()
                for time_ns, place in directories_with(self.results, f"{kind.stem}.json")
                if not place.is_symlink()
            ]
        return self._works

    def leads_out(self, paths: RunPaths) -> bool:
        """Whether a link makes a run's directory be elsewhere."""
        try:
            return not paths.root.resolve().is_relative_to(self.results.resolve())
        except (OSError, RuntimeError):
            return True

    def _row_of(self, paths: RunPaths) -> RunRow:
        """From the cache, unless a document of the run has changed."""
        stamp, known = stamp_of(paths), self._rows.get(paths.run_id)
        if known is not None and known[0] == stamp:
            return known[1]
        if self.leads_out(paths):
            row = RunRow(
                run_id=paths.run_id,
                path=str(paths.root),
                status="unreadable",
                problem="a link that leads out of the results, which is not followed here",
            )
        else:
            row = row_of_own(paths)
        self._rows[paths.run_id] = stamp, row
        return row

    def _listed(self, paths: RunPaths) -> ListedRun:
        row = self._row_of(paths)
        can_live = row.status in ("unfinished", "detached")
        age_s = age_of(paths) if row.status != "unreadable" else None
        liveness = liveness_of(row, age_s)
        listed = _listed(row, liveness, age_s)
        if not can_live or liveness != "live" or self._num_live >= MAX_LIVE:
            return listed
        self._num_live += 1
        episodes = last_rows(paths.root, Episode)[-DEFAULT_WINDOW:]
        name = _judged_in(paths) if episodes and episodes[-1].agent_returns else None
        returns = [return_of(episode, name) for episode in episodes]
        rate, end_s = RecentRate(), 0.0
        for rollout in last_rows(paths.root, Production):
            rate.add(rollout.t_s, rollout.env_steps)
            end_s = max(end_s, rollout.t_s)
        return msgspec.structs.replace(
            listed,
            return_mean=sum(returns) / len(returns) if returns else None,
            per_s=rate.per_s(end_s),
        )


def _judged_in(paths: RunPaths) -> str | None:
    """The agent or policy of a team whose return a run judges."""
    try:
        return read_manifest(paths.manifest).return_of
    except ConfigError:
        return None


def _listed(row: RunRow, liveness: Liveness, age_s: float | None) -> ListedRun:
    return ListedRun(
        run_id=in_unicode(row.run_id),
        kind=row.kind,
        status=row.status,
        liveness=liveness,
        problem=shown(row.problem or "", 500),
        env_id=shown(row.env_id or ""),
        algorithm=shown(row.algorithm or ""),
        policy=shown(row.policy or ""),
        seed=row.seed,
        return_mean=row.return_mean,
        threshold=row.threshold,
        per_s=row.collect_per_s,
        age_s=age_s,
        started_at=shown(row.started_at or ""),
        num_cells=row.num_cells,
        num_cells_finished=row.num_cells_finished,
    )


def _listed_work(row: RunRow) -> ListedRun:
    return _listed(row, "over" if row.status == "ok" else "silent", None)
