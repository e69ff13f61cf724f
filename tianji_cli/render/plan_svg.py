"""A plan as one self-contained SVG: a column for each fragment, a box for each process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from engine.graph.dataflow import connections
from engine.wording import plural
from tianji_cli.planning.plan import Plan

BOX_WIDTH, BOX_HEIGHT = 190, 58
COLUMN_GAP, ROW_GAP, MARGIN = 150, 16, 24
TOP = 92
MAX_ROWS = 8
"""Further replicas of a fragment are counted in a last box."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2933}.title{font-size:16px;font-weight:600}"
    ".name{font-weight:600}.small{font-size:11px;fill:#52606d}"
    ".box{fill:#f5f7fa;stroke:#7b8794}.link{fill:none;stroke:#3e6fb0;stroke-width:1.4}"
    ".latest{stroke-dasharray:5 4;stroke:#a8553a}"
)


@dataclass(frozen=True)
class _Box:
    """A process, or several that are only counted."""

    name: str
    lines: tuple[str, ...]
    x: float
    y: float


def plan_svg(plan: Plan) -> str:
    """Draws fragments, processes, hosts and channels of a plan.

    Lines join processes that exchange something; a dashed one carries weights, of which only the
    latest count. Below, every channel of the policy is named.
    """
    columns = [list(_column(plan, i, name)) for i, name in enumerate(plan.graph.policy.fragments)]
    boxes = [box for column in columns for box in column]
    num_rows = max(len(column) for column in columns)
    bottom = TOP + num_rows * (BOX_HEIGHT + ROW_GAP)
    channels = [
        f"{edge.source} → {edge.target}: {edge.carries} ({edge.channel})"
        for edge in plan.graph.edges
    ] or ["nothing crosses a process boundary"]
    width = max(2 * MARGIN + len(columns) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP, 560)
    height = bottom + MARGIN + 18 * len(channels)
    parts = [*_heading(plan), *_links(plan, {box.name: box for box in boxes}), *map(_draw, boxes)]
    parts += [_text(MARGIN, bottom + 18 * (i + 1), line, "") for i, line in enumerate(channels)]
    body = "\n".join(parts)
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _heading(plan: Plan) -> Iterator[str]:
    experiment, policy = plan.experiment, plan.graph.policy
    title = f"{policy.name}: {experiment.algorithm_name} on {experiment.env.id}"
    yield _text(MARGIN, 30, title, "title")
    yield _text(MARGIN, 50, policy.summary, "small")
    for i, (name, fragment) in enumerate(policy.fragments.items()):
        count = sum(process.fragment == name for process in plan.graph.processes)
        label = f"{name} x {count}: {' + '.join(fragment.functions)}"
        yield _text(_column_x(i), TOP - 12, label, "small")


def _column(plan: Plan, number: int, fragment: str) -> Iterator[_Box]:
    processes = [process for process in plan.graph.processes if process.fragment == fragment]
    shown = processes if len(processes) <= MAX_ROWS else processes[: MAX_ROWS - 1]
    for row, process in enumerate(shown):
        roles = ", ".join(process.roles)
        lines = (roles if len(roles) <= 30 else plural(len(process.roles), "role"),)
        host = plan.host_of.get(process.name, "")
        yield _Box(process.name, (*lines, f"on {host}"), _column_x(number), _row_y(row))
    if len(shown) < len(processes):
        rest = f"and {len(processes) - len(shown)} more"
        yield _Box(f"{fragment} …", (rest,), _column_x(number), _row_y(len(shown)))


def _column_x(number: int) -> float:
    return MARGIN + number * (BOX_WIDTH + COLUMN_GAP)


def _row_y(row: int) -> float:
    return TOP + row * (BOX_HEIGHT + ROW_GAP)


def _links(plan: Plan, boxes: Mapping[str, _Box]) -> Iterator[str]:
    for client, server, is_latest in connections(plan.graph):
        if client in boxes and server in boxes:
            first, second = sorted((boxes[client], boxes[server]), key=lambda box: box.x)
            shift = BOX_HEIGHT * (0.7 if is_latest else 0.4)
            x1, y1 = first.x + BOX_WIDTH, first.y + shift
            x2, y2 = second.x, second.y + shift
            bend = (x2 - x1) / 2
            path = f"M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f}"
            kind = "link latest" if is_latest else "link"
            yield f'<path class="{kind}" d="{path} {x2:.0f} {y2:.0f}"/>'


def _draw(box: _Box) -> str:
    frame = (
        f'<rect class="box" x="{box.x:.0f}" y="{box.y:.0f}" rx="6"'
        f' width="{BOX_WIDTH}" height="{BOX_HEIGHT}"/>'
    )
    lines = [_text(box.x + 10, box.y + 18, box.name, "name")]
    for i, line in enumerate(box.lines):
        lines.append(_text(box.x + 10, box.y + 35 + 15 * i, line, "small"))
    return "\n".join([frame, *lines])


def _text(x: float, y: float, words: str, kind: str) -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{style}>{escape(words)}</text>'
