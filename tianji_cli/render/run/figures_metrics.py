"""Losses, entropy, divergence and step sizes: a small plot for each metric of the updates."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tianji_cli.analysis.curves import RunCurves
from tianji_cli.analysis.metrics import KNOWN, doc_of
from tianji_cli.plotting.figure_style import BLUE
from tianji_cli.plotting.figures import Axes, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from tianji_cli.render.run.figures_axes import draw_joints, tick
from tianji_cli.render.run.figures_seeds import draw_lines

Runs = Sequence[RunCurves]
MAX_PANELS = 15
LOG_RATIO = 100.0
"""Positive values that span more than this, but for outliers, are on a logarithmic axis."""
FLAT = 1e-9


def metric_names(runs: Runs) -> list[str]:
    """The metrics that any of the runs has, known ones first; a bounded number of them."""
    named = {name for run in runs for name in run.metrics}
    known = [name for name in KNOWN if name in named]
    return [*known, *sorted(named - set(known))][:MAX_PANELS]


def any_metrics(runs: Runs) -> bool:
    return any(run.metrics for run in runs)


def draw_metric(axes: Axes, runs: Runs, name: str) -> None:
    """Draws one metric of one or more runs onto empty axes."""
    frames = [run.metrics[name] for run in runs if name in run.metrics]
    if len(runs) == 1:
        (frame,) = frames
        if (frame["high"] > frame["low"]).any():
            band = (frame["t_s"], frame["low"], frame["high"])
            axes.fill_between(
                *band, color=BLUE, alpha=0.16, linewidth=0, label="least to greatest batch"
            )
        axes.plot(frame["t_s"], frame["mean"], color=BLUE, linewidth=1.2, label="mean over batches")
        draw_joints(axes, runs[0], "t_s", BLUE)
    else:
        draw_lines(axes, runs, lambda run: run.metrics.get(name), "t_s", "mean")
    doc = doc_of(name)
    words = f"{doc.title} ({doc.unit})" if doc.unit else doc.title
    axes.set_title(words, fontsize=9, fontweight="normal", pad=4)
    _scale(axes, pd.concat([frame["mean"] for frame in frames]))


def _scale(axes: Axes, values: pd.Series[float]) -> None:
    least, greatest = float(values.min()), float(values.max())
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    low, high = (float(values.quantile(share)) for share in (0.05, 0.95))
    if least > 0 and high > LOG_RATIO * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    if greatest > 0 and greatest - least <= FLAT * greatest:
        axes.set_ylim(0, 1.4 * greatest)


def metrics_title(runs: Runs) -> str:
    """How the first metric that tells most has changed."""
    names = metric_names(runs)
    if len(runs) > 1:
        return "What the updates report"
    name = next(name for name in ("entropy", "loss", *names) if name in runs[0].metrics)
    means, doc = runs[0].metrics[name]["mean"], doc_of(name)
    first, last = (f"{float(value):.3g}" for value in (means.iloc[0], means.iloc[-1]))
    unit = f" {doc.unit}" if doc.unit else ""
    title = f"{doc.title[0].upper()}{doc.title[1:]}"
    return f"{title} starts at {first} and ends at {last}{unit}"
