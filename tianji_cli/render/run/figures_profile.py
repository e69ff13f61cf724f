"""How each role spent its time: a stacked bar per role, its CPU time below it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.timing import IDLE, SECTIONS
from tianji_cli.analysis.curves import RunCurves
from tianji_cli.analysis.profile import RoleProfile, summarised
from tianji_cli.plotting.figure_style import BLUE, FAINT, GREEN, INK, PURPLE, VERMILLION
from tianji_cli.plotting.figures import Axes, PercentFormatter
from tianji_cli.render.run.profile import percent

Runs = Sequence[RunCurves]

ORANGE, SKY, WHITE = "#E69F00", "#56B4E9", "#ffffff"
LOOK = {
    "environment": (GREEN, ""),
    "inference": (BLUE, "///"),
    "recording": (SKY, "..."),
    "batching": (SKY, "xxx"),
    "updating": (VERMILLION, "\\\\\\"),
    "merging": (VERMILLION, "ooo"),
    "weights": (ORANGE, "---"),
    "sending": (PURPLE, "|||"),
    "receiving": (PURPLE, "+++"),
    "saving": (FAINT, "xxx"),
    "tracing": (FAINT, "..."),
    "control": (FAINT, ""),
    "meeting": ("#e6e6e6", "///"),
    "waiting": (WHITE, ""),
    "others": ("#f1f1f1", "..."),
    "rest": ("#bdbdbd", ""),
}
REST = "rest"
SHOWN_SHARE = 0.015
"""Sections that are smaller than this for every role are drawn as the rest."""
LABELLED_SHARE = 0.07
BAR, CPU_BAR = 0.56, 0.12


def has_profile(runs: Runs) -> bool:
    """Bars of several runs would be too many to compare; tables do that."""
    return len(runs) == 1 and bool(runs[0].profile)


def draw_profile(axes: Axes, runs: Runs) -> bool:
    roles = summarised(runs[0].profile)
    places = [float(place) for place in range(len(roles))]
    left = [0.0] * len(roles)
    for section, shares in _shares(roles).items():
        colour, hatch = LOOK.get(section, LOOK[REST])
        bars = axes.barh(
            places,
            shares,
            BAR,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor=FAINT if colour == WHITE or section in IDLE else "white",
            linewidth=0.6,
            label=section,
        )
        texts = [percent(share) if share >= LABELLED_SHARE else "" for share in shares]
        for text in axes.bar_label(bars, texts, label_type="center", fontsize=8, color=INK):
            text.set_bbox({"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0})
        left = [a + b for a, b in zip(left, shares, strict=True)]
    below = [place + (BAR + CPU_BAR) / 2 + 0.03 for place in places]
    cpu = [role.cpu_share for role in roles]
    axes.barh(below, cpu, CPU_BAR, color=INK, label="processor time")
    axes.set_yticks(places, [role.role for role in roles])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="share of wall time", xlim=(0.0, max([1.0, *cpu])))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return bool(roles)


def profile_title(runs: Runs) -> str:
    """How busy the learners are; all other roles exist to keep them busy."""
    learners = [role for role in runs[0].profile if role.kind == "learner"]
    if not learners:
        return "Where the time of each role went"
    busy = sum(role.busy_share for role in learners) / len(learners)
    who = "The learner is" if len(learners) == 1 else f"{len(learners)} learners are"
    return f"{who} busy {percent(busy)} of the time"


def _shares(roles: Sequence[RoleProfile]) -> dict[str, list[float]]:
    """By section and role, idle ones last; small ones are taken together."""
    working = [section for section in SECTIONS if section not in IDLE]
    shown = {section: [role.share(section) for role in roles] for section in (*working, *IDLE)}
    large = {name: shares for name, shares in shown.items() if max(shares) >= SHOWN_SHARE}
    known = [sum(shares[i] for shares in large.values()) for i in range(len(roles))]
    rest = [max(0.0, 1.0 - share) for share in known]
    idle = {name: large.pop(name) for name in IDLE if name in large}
    return {**large, **({REST: rest} if max(rest) >= 0.001 else {}), **idle}
