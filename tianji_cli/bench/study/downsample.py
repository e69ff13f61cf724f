"""Reduces a learning curve to a size that can be stored."""

from __future__ import annotations

import numpy as np

from tianji_cli.analysis.convergence import episode_curve
from tianji_cli.analysis.run import RunData
from tianji_cli.bench.study.records import LearningCurve

NUM_POINTS = 120


def thin_curve(run: RunData, num_points: int = NUM_POINTS) -> LearningCurve:
    """The moving mean return at about equal distances in env steps, the last one included."""
    curve = episode_curve(run.episodes, run.manifest.return_window, run.manifest.return_of)
    full = curve[curve["is_full"]]
    if full.empty:
        return LearningCurve()
    steps = full["env_steps"].to_numpy()  # never falls
    wanted = np.linspace(steps[0], steps[-1], num_points)
    keep = np.unique(np.append(np.searchsorted(steps, wanted), len(steps) - 1))
    kept = full.iloc[keep]
    return LearningCurve(
        t_s=[round(float(t_s), 3) for t_s in kept["t_s"]],
        env_steps=[int(steps) for steps in kept["env_steps"]],
        return_mean=[round(float(mean), 3) for mean in kept["return_mean"]],
    )
