"""What a tracker must show of a run, worked out from its tables in the plainest way."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TypeAlias

import numpy as np

from engine.trace.reader import read_table
from engine.trace.records import Consumption, Episode, Evaluation, Ledger, Replay, Staleness
from tianji_cli.analysis.run import read_manifest
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.tracking.facts import facts_of
from tianji_cli.tracking.process import Tracking
from tianji_cli.tracking.sinks import make_sink
from tianji_cli.tracking.state import StateFile, TrackerState, make_directory
from tianji_cli.tracking.tools import Tool

Points: TypeAlias = dict[str, list[tuple[int, float]]]
"""By name, env steps and value, in the order of the table."""

RENAMED = {
    "approximate_kl": "losses/approx_kl",
    "q_mean": "losses/q_values",
    "learning_rate": "charts/learning_rate",
}


def traced_points(run: Path) -> Points:
    """The values that come straight from a row; rates and resources are made from two."""
    trace, points = run / "trace", defaultdict[str, list[tuple[int, float]]](list)
    counts = read_table(trace, Ledger)
    has_several = facts_of("", read_manifest(run / "manifest.json")).replicas.get("learner", 1) > 1

    def steps_at(t_s: float) -> int:
        newer = (row.collected for row in counts if row.t_s >= t_s)
        return next(newer, counts[-1].collected)

    def of(learner: int) -> str:
        return f"/learner-{learner}" if has_several else ""

    def add(name: str, steps: int, value: float) -> None:
        if math.isfinite(value):
            points[name].append((steps, float(value)))

    for episode in read_table(trace, Episode):
        add("charts/episodic_return", episode.env_steps_collected, episode.episode_return)
        add("charts/episodic_length", episode.env_steps_collected, episode.length_env_steps)
    for evaluation in read_table(trace, Evaluation):
        add("eval/episodic_return", evaluation.env_steps_collected, evaluation.return_mean)
    for update in read_table(trace, Consumption):
        steps = steps_at(update.t_s)
        add("charts/updates" + of(update.learner), steps, update.updates_total)
        add("time/update_s" + of(update.learner), steps, update.update_s)
        for name, value in update.metrics.items():
            add(RENAMED.get(name, f"losses/{name}") + of(update.learner), steps, value)
    for batch in read_table(trace, Staleness):
        add("staleness/lag_mean" + of(batch.learner), steps_at(batch.t_s), batch.lag_mean)
        add("staleness/age_max_s" + of(batch.learner), steps_at(batch.t_s), batch.age_max_s)
    for drawn in read_table(trace, Replay):
        add("replay/replay_ratio", steps_at(drawn.t_s), drawn.replay_ratio)
        add("replay/sample_age_mean_s", steps_at(drawn.t_s), drawn.sample_age_mean_s)
    return dict(points)


def as_float32(points: Points) -> Points:
    """An event file of TensorBoard holds no more of a scalar."""
    return {
        name: [(steps, float(np.float32(value))) for steps, value in values]
        for name, values in points.items()
    }


def track_whole(paths: RunPaths, tool: Tool) -> TrackerState:
    """Passes on a run in this process; returns how far it came."""
    make_directory(paths, tool)
    file = StateFile(paths, tool)
    facts = facts_of(paths.run_id, read_manifest(paths.manifest))
    Tracking(paths, facts, make_sink(tool, paths), file).finish()
    return file.state


def tensorboard_points(run: Path) -> Points:
    """What TensorBoard's own reader finds below a run, as float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tracking" / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def wandb_points(run: Path) -> Points:
    """What the offline run of Weights & Biases below a run holds."""
    from tests.helpers.wandb_file import history

    (path,) = (run / "tracking" / "wandb").glob("offline-run-*/*.wandb")
    points = defaultdict[str, list[tuple[int, float]]](list)
    for row in history(path):
        for name, value in row.items():
            if "/" in name and not name.startswith("trace/"):
                points[name].append((row["env_steps"], float(value)))
    return dict(points)


def mlflow_points(run: Path) -> Points:
    """What MLflow's own client finds in the database beside a run, each value once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run.parent / 'mlflow.db'}")
    (found,) = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()],
        filter_string=f"attributes.run_name = '{run.name}'",
    )
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
