"""One run whose files are read while they grow; connects to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from engine.errors import ConfigError
from engine.trace.reader import read_summary
from engine.trace.records import RECORD_TYPES, Profile, Record
from engine.trace.summary import Summary
from tianji_cli.analysis.run import ManifestView, read_manifest
from tianji_cli.analysis.runs import RunRow
from tianji_cli.storage.follow import TableFollower
from tianji_cli.storage.run_dir import RunPaths, command_for, in_unicode
from tianji_cli.watch.roles import shown
from tianji_cli.watch.run_files import age_of, row_of_own, stamp_of
from tianji_cli.watch.run_tally import RunTally
from tianji_cli.watch.usage import MAX_SHOWN
from tianji_cli.watch.views import LiveFigures, Liveness, RunView

FOLLOWED = tuple(kind for kind in RECORD_TYPES if kind is not Profile)
FRESH_S = 15.0
"""A run whose files did not grow for longer stands still: supervisors measure every 2 s."""
HOLD_S = 3.0
"""Rates do not fall before: files of hosts are copied once a second."""
MAX_PROBLEMS = 10


class LiveRun:
    """A run, read from its files.

    Args:
        paths: Of the run.
        monotonic_s: A clock.
    """

    def __init__(self, paths: RunPaths, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.paths = paths
        self._monotonic_s = monotonic_s
        self._begin()

    def _begin(self) -> None:
        """Forgets everything: of a table that was cut, nothing that was read can be kept."""
        self._stamp = stamp_of(self.paths)
        self._row = row_of_own(self.paths)
        self._manifest, self._summary = _documents_of(self.paths, self._row)
        self._tally = RunTally(self._manifest)
        self._followers: list[TableFollower[Record]] = [
            TableFollower(self.paths.root, kind) for kind in FOLLOWED
        ]
        self._problems: dict[str, None] = {}
        self._is_behind = True
        self._age_s: float | None = None
        self._heard_at_s: float | None = None
        """When rows came, by the clock."""

    def advance(self) -> bool:
        """Reads what was appended, or a part of it.

        Returns:
            Whether there is more to read right now.
        """
        self._look_at_documents()
        self._age_s = age_of(self.paths)
        self._is_behind = False
        for follower in self._followers:
            found = follower.read()
            if found.is_restarted:
                self._begin()
                return True
            for row in found.rows:
                self._tally.add(row)
            if found.problem and len(self._problems) < MAX_PROBLEMS:
                self._problems[shown(found.problem, 500)] = None
            if found.rows:
                self._heard_at_s = self._monotonic_s()
            self._is_behind = self._is_behind or found.is_behind
        return self._is_behind

    def _look_at_documents(self) -> None:
        """Reads manifest and summary again if they have changed; another manifest, another run."""
        stamp = stamp_of(self.paths)
        if not stamp or stamp == self._stamp:
            return
        if not self._stamp or stamp[0] != self._stamp[0]:
            self._begin()
        self._stamp, self._row = stamp, row_of_own(self.paths)
        self._summary = _documents_of(self.paths, self._row)[1]

    @property
    def is_gone(self) -> bool:
        """Whether the run's directory was removed."""
        return not stamp_of(self.paths)

    def view(self) -> RunView:
        """What the page shows now."""
        liveness = liveness_of(self._row, self._age_s, is_gone=self.is_gone)
        is_over, now_s = liveness == "over", self._now_s(liveness)
        tally, manifest = self._tally, self._manifest
        states = tally.states(is_over=is_over)
        processes = tally.usage.processes(tally.processes, states, now_s)
        words, command = _words_of(self.paths, self._row, liveness, is_gone=self.is_gone)
        return RunView(
            run_id=in_unicode(self.paths.run_id),
            status=self._row.status,
            liveness=liveness,
            words=words,
            command=command,
            age_s=self._age_s,
            is_behind=self._is_behind,
            started_at=shown(manifest.text("started_at")),
            experiment=shown(manifest.text("experiment", "name")),
            algorithm=shown(manifest.text("experiment", "algorithm", "name")),
            env_id=shown(manifest.text("experiment", "env", "id")),
            policy=shown(manifest.text("experiment", "policy")),
            seed=shown(manifest.text("experiment", "seed")),
            figures=_final(tally.figures(now_s), self._summary if is_over else None),
            returns=tally.returns(),
            within_team=tally.within_team.views(),
            rates=tally.rates(now_s),
            lags=tally.lags(),
            flow=tally.flow(now_s, is_over=is_over),
            processes=processes[:MAX_SHOWN],
            hosts=tally.usage.hosts(processes),
            events=tally.events(),
            num_events=tally.num_events,
            problems=list(self._problems),
        )

    def _now_s(self, liveness: Liveness) -> float:
        """The moment on the run's timeline: of a live run it passes while nothing comes."""
        if liveness != "live" or self._heard_at_s is None or self._is_behind:
            return self._tally.last_s
        silent_s = self._monotonic_s() - self._heard_at_s
        return self._tally.last_s + max(0.0, silent_s - HOLD_S)


def _documents_of(paths: RunPaths, row: RunRow) -> tuple[ManifestView, Summary | None]:
    """Manifest and summary; empty if a document is a link, or damaged."""
    if row.status == "unreadable":
        return ManifestView({}), None
    try:
        return read_manifest(paths.manifest), read_summary(paths.summary)
    except ConfigError:  # changed since its row was made
        return ManifestView({}), None


def liveness_of(row: RunRow, age_s: float | None, *, is_gone: bool = False) -> Liveness:
    """Whether news of a run can be expected.

    Args:
        row: Of `tianji runs`.
        age_s: Since its files were written to; None without any.
        is_gone: Its directory was removed.
    """
    if is_gone or row.status in ("ok", "failed", "interrupted"):
        return "over"
    if age_s is not None and age_s <= FRESH_S:
        return "live"
    return "away" if row.status == "detached" else "silent"


def _words_of(
    paths: RunPaths, row: RunRow, liveness: Liveness, *, is_gone: bool
) -> tuple[str, str]:
    """What a reader should know, and what to type."""
    if is_gone:
        return "Its directory was removed; this is what was read before.", ""
    if row.status == "unreadable" or liveness == "over":
        return shown(row.problem or "", 2000), ""
    if liveness == "away":
        words = "It was left alone on its hosts. This page shows what was copied here last."
        return words, in_unicode(command_for("fetch", paths.root))
    if liveness == "silent":
        words = "It has no summary, and nothing new comes: it stands still, was killed, or starts."
        return words, in_unicode(command_for("status", paths.root))
    return "", ""


def _final(figures: LiveFigures, summary: Summary | None) -> LiveFigures:
    """The figures of a run that is over, with its steady rates instead of those of the end."""
    if summary is None:
        return figures
    return msgspec.structs.replace(
        figures,
        t_s=summary.wall_s,
        env_steps_dropped=float(summary.env_steps_dropped),
        env_steps_in_flight=float(summary.env_steps_in_flight),
        collect_per_s=summary.collect_per_s,
        consume_per_s=summary.consume_per_s,
        trained_per_s=summary.trained_per_s,
        balance=summary.balance,
        lag_mean=summary.lag.mean,
        lag_max=summary.lag.max,
    )
