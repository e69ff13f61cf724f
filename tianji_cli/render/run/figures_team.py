"""Learning curves within a team: a small plot for each policy and each agent."""

from __future__ import annotations

from collections.abc import Sequence

from tianji_cli import units
from tianji_cli.analysis.curves import RunCurves
from tianji_cli.plotting.figure_style import BLUE, INK, short_label
from tianji_cli.plotting.figures import Axes, FuncFormatter, MaxNLocator
from tianji_cli.render.run.figures_axes import BOUND, draw_joints, tick
from tianji_cli.render.run.figures_seeds import draw_lines

Runs = Sequence[RunCurves]
MAX_PANELS = 12
MAX_VECTOR_DOTS = 300


def any_team(runs: Runs) -> bool:
    return any(run.within_team for run in runs)


def team_names(runs: Runs) -> list[str]:
    """Policies, and then agents, of any of the runs; a bounded number of them."""
    return list(dict.fromkeys(name for run in runs for name in run.within_team))[:MAX_PANELS]


def draw_named_return(axes: Axes, runs: Runs, name: str) -> None:
    """Draws the return of one agent or policy, of one or more runs, onto empty axes."""
    if len(runs) == 1:
        _draw_single(axes, runs[0], name)
    else:
        draw_lines(axes, runs, lambda run: run.within_team.get(name), "env_steps", "return_mean")
    kind = "agent" if _is_agent(runs, name) else "policy"
    axes.set_title(f"{kind} {short_label(name)}", fontsize=9, fontweight="normal", pad=4)
    for threshold in {run.summary.threshold for run in runs if run.summary.return_of == name}:
        if threshold is not None:
            label = f"threshold {threshold:g}"
            axes.axhline(threshold, color=INK, linewidth=1.1, linestyle=BOUND, label=label)
    axes.set_xlim(left=0)
    for axis, num_bins in ((axes.xaxis, 5), (axes.yaxis, 4)):
        axis.set_major_locator(MaxNLocator(nbins=num_bins, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(tick))


def _draw_single(axes: Axes, run: RunCurves, name: str) -> None:
    curve = run.within_team[name]
    steps, alpha = curve["env_steps"], max(0.03, min(0.3, 300 / max(1, len(curve))))
    returns = curve["episode_return"]
    dots = axes.plot(steps, returns, ".", color=BLUE, alpha=alpha, markersize=3, markeredgewidth=0)
    dots[0].set_rasterized(len(curve) > MAX_VECTOR_DOTS)
    axes.plot([], [], ".", color=BLUE, markersize=9, markeredgewidth=0, label="one episode")
    full = curve["return_mean"].where(curve["is_full"])
    early = curve["return_mean"].where(~curve["is_full"])
    axes.plot(steps, early, color=BLUE, linewidth=0.9, linestyle=":")
    label = f"mean of last {run.window} (dotted: fewer)"
    axes.plot(steps, full, color=BLUE, linewidth=1.2, label=label)
    draw_joints(axes, run, "env_steps", BLUE)


def _is_agent(runs: Runs, name: str) -> bool:
    return any(name in run.summary.agent_returns for run in runs)


def team_title(runs: Runs) -> str:
    """Who ends where."""
    returns = runs[0].summary.agent_returns
    if len(runs) > 1 or len(returns) < 2:
        return "Mean return of each policy and agent"
    best, worst = max(returns, key=returns.__getitem__), min(returns, key=returns.__getitem__)
    high, low = units.mean_return(returns[best]), units.mean_return(returns[worst])
    if high == low:
        return f"Each agent's mean return ends at {high}"
    return f"{short_label(best)} ends highest, at {high}; {short_label(worst)} lowest, at {low}"
