"""MLflow, with its client: one run there for each run here, found again by a tag.

`MLFLOW_TRACKING_URI` says where; the default is one SQLite file beside the runs of a results
directory. A tag counts the rows of each table that have been sent, from which a tracker that begins
again goes on. Rows that were sent after the tag are sent twice, and MLflow keeps one of two equal
values (same name, time, step and value): it does so for those of one run as well.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from engine.trace.summary import Summary
from tianji_cli.analysis.settings import Scalar
from tianji_cli.storage.run_dir import RunPaths, from_here
from tianji_cli.storage.safe_files import locked
from tianji_cli.tracking.facts import RunFacts, figures_of, words_of
from tianji_cli.tracking.hints import quoted, without_password
from tianji_cli.tracking.series import Sample

DATABASE = "mlflow.db"
IDENTITY = "tianji.run"
ROWS = "tianji.rows"
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_VALUE = 500
"""Characters of a parameter; older servers take no more."""
_NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
T = TypeVar("T")


class MlflowSink:
    """See the module's first lines.

    Args:
        paths: The run.
    """

    def __init__(self, paths: RunPaths) -> None:
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self._results = paths.root.parent
        self._is_default = not given
        self._uri = given or f"sqlite:///{self._results / DATABASE}"
        self.where = without_password(self._uri)
        self.hint = self.where
        if self._is_default:
            place = from_here(self._results / DATABASE)
            self.hint = f"mlflow ui --backend-store-uri sqlite:///{quoted(place)}"
        self._sent: dict[str, int] = {}

    def begin(self, facts: RunFacts) -> Mapping[str, int]:
        with locked(self._results):  # only one process makes the tables of a new file
            self._client = MlflowClient(self._uri)
            experiment = self._experiment(facts.experiment)
        self._facts = facts
        wanted = f"tags.`{IDENTITY}` = '{facts.identity}'"
        found = self._client.search_runs([experiment], filter_string=wanted, max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            self._sent = _counts_of(found[0].data.tags.get(ROWS, ""))
            return dict(self._sent)
        tags = {**facts.tags, IDENTITY: facts.identity}
        run = self._client.create_run(
            experiment, start_time=self._time_ms(0.0), tags=tags, run_name=facts.run_id
        )
        self._id = run.info.run_id
        params = [Param(name, _cut(value)) for name, value in facts.settings.items()]
        for some in _batches(params, MAX_PARAMS):
            self._client.log_batch(self._id, params=some)
        return {}

    def _experiment(self, name: str) -> str:
        """The id of an experiment, which is made if there is none."""
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
        if (found := self._client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        place = (self._results / "mlflow-artifacts").absolute().as_uri()
        try:
            made = self._client.create_experiment(name, place if self._is_default else None)
        except MlflowException:  # another process was first
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)
        return str(made)

    def _time_ms(self, t_s: float) -> int:
        return round(self._facts.unix_s(t_s) * 1000)

    def write(self, samples: Sequence[Sample]) -> None:
        metrics = [
            Metric(_name(name), value, self._time_ms(sample.t_s), sample.env_steps)
            for sample in samples
            for name, value in sample.values.items()
        ]
        for some in _batches(metrics, MAX_METRICS):
            self._client.log_batch(self._id, metrics=some)
        for sample in samples:
            self._sent[sample.table] = sample.row

    def flush(self) -> None:
        self._client.log_batch(self._id, tags=[RunTag(ROWS, json.dumps(self._sent))])

    def end(self, facts: RunFacts, summary: Summary | None) -> None:
        if summary is None:
            return  # as far as is known here, it still runs
        end_ms, steps = self._time_ms(summary.wall_s), summary.env_steps_collected
        figures = [
            Metric(_name(f"summary/{name}"), value, end_ms, steps)
            for name, value in figures_of(summary).items()
        ]
        tags = [RunTag(name, value) for name, value in words_of(summary).items()]
        self._client.log_batch(self._id, metrics=figures, tags=tags)
        status = {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[summary.status]
        self._client.set_terminated(self._id, status, end_ms)


def _name(text: str) -> str:
    """With the characters that MLflow takes.

    >>> _name("losses/q(s, a)")
    'losses/q_s_ a_'
    """
    return _NOT_ALLOWED.sub("_", text)[:250]


def _cut(value: Scalar) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return words[:MAX_VALUE]


def _counts_of(text: str) -> dict[str, int]:
    """Rows sent by table; of a tag that is not ours, none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {str(table): number for table, number in items if isinstance(number, int)}


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(items), size):
        yield list(items[first : first + size])
