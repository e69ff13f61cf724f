"""One run as stored on disk, read once. No pandas here: `tianji runs` and `up` use it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.files import read_regular
from engine.progress import RunCounters
from engine.spec import AUTO
from engine.trace.columns import column_of
from engine.trace.reader import read_columns, read_summary, read_table
from engine.trace.records import (
    MAX_WHOLE,
    Consumption,
    Episode,
    Evaluation,
    Event,
    Ledger,
    Production,
    Profile,
    Replay,
    Resources,
    Staleness,
    WeightsPublished,
)
from engine.trace.summary import KILLED, Summary
from tianji_cli.storage.run_dir import RunPaths

MAX_MANIFEST_BYTES = 1 << 24
"""Of a run of a thousand roles on a hundred hosts it is a tenth of that."""


@dataclass(frozen=True)
class ManifestView:
    """A manifest, read leniently: a value that is missing or of another type reads as empty.

    A report must be possible also for a run whose manifest an older or newer version wrote.

    Args:
        data: The whole document.
    """

    data: dict[str, object]

    def section(self, *keys: str) -> dict[str, object]:
        """The mapping under these nested keys; empty if there is none."""
        value: object = self.data
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}

    def text(self, *keys: str) -> str:
        """The value under these nested keys as text; empty if there is none."""
        value = self.section(*keys[:-1]).get(keys[-1])
        return "" if value is None else str(value)

    def number(self, *keys: str) -> float | None:
        """The number under these nested keys; None if there is none that a run can have."""
        value = self.section(*keys[:-1]).get(keys[-1])
        is_number = isinstance(value, int | float) and abs(value) <= MAX_WHOLE  # so no NaN either
        return float(value) if is_number else None  # type: ignore[arg-type]  # it is one

    def count(self, *keys: str) -> int | None:
        """The whole number above zero under these nested keys; None if there is none."""
        value = self.number(*keys)
        return int(value) if value is not None and value >= 1 else None

    @property
    def max_lag(self) -> int | None:
        """The lag bound in versions; None if the run had none, or none that was given."""
        if self.fixed_lag is not None:
            return self.fixed_lag
        if self.text("experiment", "staleness", "mode") not in ("block", "drop"):
            return None
        bound = self.number("experiment", "staleness", "max_lag")
        return None if bound is None else int(bound)

    @property
    def is_lag_adaptive(self) -> bool:
        """Whether the bound moved during the run; see `old_samples.lag_bound`."""
        return self.text("experiment", "staleness", "max_lag") == AUTO

    @property
    def fixed_lag(self) -> int | None:
        """The lag that all batches but the first have; None if it was not fixed."""
        if self.text("experiment", "staleness", "mode") != "fixed":
            return None
        lag = self.number("experiment", "staleness", "lag")
        return None if lag is None else int(lag)

    @property
    def threshold(self) -> float | None:
        """The return to reach."""
        return self.number("experiment", "stop", "return_threshold")

    @property
    def judge(self) -> str:
        """The returns that are compared with the threshold: `training` or `evaluation`."""
        return self.text("experiment", "stop", "judge") or "training"

    @property
    def return_of(self) -> str | None:
        """The agent or policy of a team whose return is judged; None: the whole environment's."""
        return self.text("experiment", "stop", "return_of") or None

    @property
    def sustained(self) -> int:
        """For how many windows or evaluations the mean must hold the threshold."""
        return self.count("experiment", "stop", "sustained") or 1

    @property
    def before(self) -> RunCounters:
        """Counters of the checkpoint that the run resumed; zeros if it resumed none."""
        written = self.section("resumed_from", "counters")
        known = {
            name: value
            for name in RunCounters.__struct_fields__
            if isinstance(value := written.get(name), int | float) and abs(value) <= MAX_WHOLE
        }
        try:
            return msgspec.convert(known, RunCounters)
        except msgspec.ValidationError:
            return RunCounters()

    @property
    def return_window(self) -> int:
        """Number of finished episodes in the mean return."""
        return self.count("experiment", "stop", "return_window") or 100


@dataclass(frozen=True)
class RunData:
    """A run's files, typed; tables in the order in which they were written."""

    paths: RunPaths
    manifest: ManifestView
    summary: Summary | None
    episodes: Sequence[Episode]
    evaluations: list[Evaluation]
    production: Sequence[Production]
    consumption: list[Consumption]
    staleness: list[Staleness]
    replay: list[Replay]
    weights: list[WeightsPublished]
    ledger: list[Ledger]
    resources: Sequence[Resources]
    profile: list[Profile]
    events: Sequence[Event]

    @property
    def is_closed(self) -> bool:
        """Whether the coordinator lived to close the books. Without that its tables may end at
        different moments, and a summary is what `up` has rebuilt from them."""
        return self.summary is not None and self.summary.stop_reason != KILLED

    @property
    def is_whole(self) -> bool:
        """Whether the tables hold the whole run: its last rows were written, too."""
        return self.is_closed and self.summary is not None and not self.summary.trace_error

    @property
    def num_rows(self) -> int:
        """Number of rows in all tables."""
        tables = (
            self.episodes,
            self.evaluations,
            self.production,
            self.consumption,
            self.staleness,
            self.replay,
            self.weights,
            self.ledger,
            self.resources,
            self.profile,
            self.events,
        )
        return sum(len(table) for table in tables)

    @property
    def consumed(self) -> Sequence[Consumption | Replay]:
        """The rows that say how many env steps were consumed: a replay store's, or a learner's."""
        return self.replay or self.consumption

    @property
    def end_s(self) -> float:
        """The latest time in any table except `resources`."""
        tables = (
            self.episodes,
            self.evaluations,
            self.production,
            self.consumption,
            self.ledger,
            self.events,
        )
        return max((max(column_of(table, "t_s")) for table in tables if table), default=0.0)


def read_manifest(path: Path) -> ManifestView:
    """Reads `manifest.json`.

    Raises:
        ConfigError: It cannot be read, or is not a JSON object.
    """
    try:
        data = read_regular(path, MAX_MANIFEST_BYTES)
        return ManifestView(msgspec.json.decode(data, type=dict[str, object]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not a manifest: {error}", where=str(path)) from error


def load_run(paths: RunPaths) -> RunData:
    """Reads all files of one run that a report needs.

    Raises:
        ConfigError: A file is damaged, or no trace table has any row.
    """
    run = read_run(paths)
    if not run.num_rows:
        raise ConfigError(
            "no trace table has a row, so there is nothing to report",
            where=str(paths.trace),
            fix=f"the logs in {paths.logs} say why it ended so early",
        )
    return run


def read_run(paths: RunPaths) -> RunData:
    """As `load_run`, but also for a run that ended before it had traced anything.

    Raises:
        ConfigError: A file is damaged.
    """
    return RunData(
        paths=paths,
        manifest=read_manifest(paths.manifest),
        summary=read_summary(paths.summary),
        episodes=read_columns(paths.trace, Episode),
        evaluations=read_table(paths.trace, Evaluation),
        production=read_columns(paths.trace, Production),
        consumption=read_table(paths.trace, Consumption),
        staleness=read_table(paths.trace, Staleness),
        replay=read_table(paths.trace, Replay),
        weights=read_table(paths.trace, WeightsPublished),
        ledger=read_table(paths.trace, Ledger),
        resources=read_columns(paths.trace, Resources),
        profile=read_table(paths.trace, Profile),
        events=read_columns(paths.trace, Event),
    )
