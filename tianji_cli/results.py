"""Results in a notebook: the traces of a run as pandas frames.

    from tianji_cli.results import open_run

    run = open_run("results/20260131-235959-cartpole_ppo")
    run.episodes.plot(x="env_steps_collected", y="episode_return")
    run.columns("episodes")

Reads files only and changes nothing. A run that is still going on shows what its files hold when a
table is first used; open it again for what has come since.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup

from engine.errors import ConfigError
from engine.trace.reader import read_columns, read_summary, read_table
from engine.trace.records import (
    RECORD_TYPES,
    Episode,
    Record,
    Staleness,
    columns_of,
    table_of,
)
from engine.trace.summary import Summary
from tianji_cli.analysis.run import ManifestView, read_manifest
from tianji_cli.analysis.runs import RunRow, list_runs, row_of
from tianji_cli.analysis.settings import flat_settings
from tianji_cli.storage.run_dir import DEFAULT_RESULTS, RESULTS_VARIABLE, RunPaths, resolve_run
from tianji_cli.units import NONE

if TYPE_CHECKING:
    import pandas as pd

    from engine.trace.checkpoint_choice import Which
    from engine.trained.policy import Policy

_TYPES = {table_of(record_type): record_type for record_type in RECORD_TYPES}

__all__ = ["Run", "list_results", "open_run"]


def open_run(run: str | os.PathLike[str] | None = None, *, results: str | None = None) -> Run:
    """Opens the files of one run.

    Args:
        run: Its directory, its id, or a unique prefix of it; `STUDY/CELL` for one of a study or
            benchmark. None: the newest.
        results: Where ids are looked up; by default `$TIANJI_RESULTS`, or `results`.

    Raises:
        ConfigError: There is no such run, or several begin with that; or its manifest is damaged.
    """
    name = None if run is None else os.fspath(run)
    return Run(resolve_run(_results(results), name))


def list_results(results: str | None = None) -> pd.DataFrame:
    """All runs of a results directory, one row each, oldest first, as `tianji runs --json` has
    them.

    Args:
        results: By default `$TIANJI_RESULTS`, or `results`.
    """
    import pandas as pd

    rows = [
        {name: getattr(row, name) for name in RunRow.__struct_fields__}
        for row in list_runs(_results(results))
    ]
    return pd.DataFrame(rows, columns=list(RunRow.__struct_fields__))


def _results(given: str | None) -> Path:
    return Path(given or os.environ.get(RESULTS_VARIABLE) or DEFAULT_RESULTS)


class Run:
    """One run. Tables are read when they are first used, and then kept.

    Every table is a frame with a column for each field, in order of `t_s` (seconds since training
    started); `columns` gives units and meanings.

    Args:
        paths: Its directory.

    Raises:
        ConfigError: Its manifest cannot be read.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._view: ManifestView = read_manifest(paths.manifest)

    @property
    def run_id(self) -> str:
        return self._paths.run_id

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._paths.root

    @property
    def manifest(self) -> dict[str, Any]:
        """`manifest.json`: what was run, from which code, on which machines."""
        return self._view.data

    @property
    def experiment(self) -> dict[str, Any]:
        """The experiment after all settings, with every default filled in."""
        return self._view.section("experiment")

    @property
    def settings(self) -> dict[str, Any]:
        """The same, flat, with names as `-s` takes them: `algorithm.learning_rate`."""
        return flat_settings(self.experiment)

    @cached_property
    def summary(self) -> Summary | None:
        """`summary.json`; None while the run has not written one.

        Raises:
            ConfigError: It is damaged, or newer than this program.
        """
        return read_summary(self._paths.summary)

    @property
    def status(self) -> str:
        """`ok`, `failed`, `interrupted`; without a summary `detached` or `unfinished`."""
        return row_of(self._paths).status

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that have been written."""
        trace = self._paths.trace
        found = {path.name.partition(".")[0] for path in trace.glob("*.jsonl*")}
        return tuple(name for name in _TYPES if name in found)

    def table(self, name: str) -> pd.DataFrame:
        """One trace table; without rows if it was never written.

        `Consumption.metrics` is one column `metric.<name>` each. `Staleness.steps_by_lag` is left
        out: see `lag_histogram`.

        Raises:
            ConfigError: There is no table of this name, or it is damaged.
        """
        from tianji_cli.analysis.tables import to_frame

        if name not in self._frames:
            record_type = _type_of(name)
            rows = read_columns(self._paths.trace, cast("Any", record_type))
            self._frames[name] = to_frame(rows, record_type)
        return self._frames[name]

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        return {}

    def columns(self, name: str) -> pd.DataFrame:
        """What the columns of a table are: `dtype`, `unit` (empty for mere numbers), `meaning`.

        Raises:
            ConfigError: As `table`.
        """
        from tianji_cli.analysis.metrics import describe_columns

        return describe_columns(self.table(name), columns_of(_type_of(name)))

    @property
    def episodes(self) -> pd.DataFrame:
        """Finished training episodes, exploration included."""
        return self.table("episodes")

    @property
    def evaluations(self) -> pd.DataFrame:
        """Separate episodes with greedy actions; empty unless the experiment evaluates."""
        return self.table("evaluations")

    @property
    def production(self) -> pd.DataFrame:
        """Rollouts that actors collected."""
        return self.table("production")

    @property
    def consumption(self) -> pd.DataFrame:
        """Batches that learners trained on, with what the algorithm reports of each."""
        return self.table("consumption")

    @property
    def staleness(self) -> pd.DataFrame:
        """How old those batches were, in versions and in seconds."""
        return self.table("staleness")

    @property
    def replay(self) -> pd.DataFrame:
        """What replay stores took in and gave out; empty without replay."""
        return self.table("replay")

    @property
    def weights(self) -> pd.DataFrame:
        """New weights that were offered to the actors."""
        return self.table("weights")

    @property
    def ledger(self) -> pd.DataFrame:
        """Where every collected env step is."""
        return self.table("ledger")

    @property
    def merges(self) -> pd.DataFrame:
        """Models of compute groups that were merged; empty without groups."""
        return self.table("merges")

    @property
    def resources(self) -> pd.DataFrame:
        """Processor time and memory of each process."""
        return self.table("resources")

    @property
    def profile(self) -> pd.DataFrame:
        """Where the time of each role went; empty unless the run was profiled."""
        return self.table("profile")

    @property
    def events(self) -> pd.DataFrame:
        """Joins, starts, stops, exits, drops and errors."""
        return self.table("events")

    def curve(self, window: int | None = None, *, of: str | None = None) -> pd.DataFrame:
        """The learning curve over training episodes, in the order in which they were reported.

        Args:
            window: Episodes in the moving mean; by default the run's `stop.return_window`.
            of: An agent or a policy of a team; by default the run's `stop.return_of`, and without
                that the whole environment.

        Returns:
            `t_s` (s) and `env_steps` (collected by the whole run), both never falling;
            `episode_return`, `return_mean` (of the last `window` episodes), `is_full` (whether
            there were as many).

        Raises:
            ConfigError: The window is empty, or no episode has the return of such an agent or
                policy.
        """
        from tianji_cli.analysis.convergence import episode_curve
        from tianji_cli.analysis.teams import names_in

        if window is not None and window < 1:
            raise ConfigError("a window has at least one episode", where="window")
        episodes = read_columns(self._paths.trace, Episode)
        if of is not None and of not in (names := names_in(episodes)):
            raise ConfigError(
                f"no episode has the return of {of!r}",
                where="of",
                fix=", ".join(names) or "leave it out: the environment has one agent",
            )
        name = of or self._view.return_of
        return episode_curve(episodes, window or self._view.return_window, name)

    def lag_histogram(self) -> pd.DataFrame:
        """Env steps trained by their lag: `lag` (versions), `env_steps` and their `share`."""
        from tianji_cli.analysis.staleness import lag_histogram

        return lag_histogram(read_table(self._paths.trace, Staleness))

    def policy(self, checkpoint: Which = "last", *, trust: bool = False) -> Policy:
        """The trained policy: `engine.load_policy` of this run.

        Args:
            checkpoint: `last`, `best` or a version.
            trust: Also import modules that its experiment names and that are not imported yet.
        """
        from engine import load_policy

        return load_policy(self.path, checkpoint=checkpoint, trust=trust)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        rows = Markup().join(
            Markup("<tr><th style='text-align:left'>{}</th><td>{}</td></tr>").format(name, value)
            for name, value in self._facts().items()
        )
        return str(Markup("<table>{}</table>").format(rows))

    def _facts(self) -> dict[str, str]:
        row = row_of(self._paths)
        steps = NONE if row.env_steps_collected is None else f"{row.env_steps_collected:,}"
        result = NONE if row.return_mean is None else f"{row.return_mean:g}"
        return {
            "run": self.run_id,
            "status": row.status,
            "algorithm": row.algorithm or NONE,
            "environment": row.env_id or NONE,
            "policy": row.policy or NONE,
            "seed": NONE if row.seed is None else str(row.seed),
            "env steps": steps,
            "mean return": result,
            "tables": ", ".join(self.tables),
        }


def _type_of(name: str) -> type[Record]:
    found = _TYPES.get(name)
    if found is None:
        raise ConfigError(f"there is no table {name!r}", where="table", fix=", ".join(_TYPES))
    return found
