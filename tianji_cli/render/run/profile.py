"""The profile as text: a table for the terminal, and one for the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from engine.timing import SECTIONS
from tianji_cli import units
from tianji_cli.analysis.profile import RoleProfile, summarised

MIN_SHARE = 0.005
"""Shares that round to zero are left out."""


def profile_table(roles: Sequence[RoleProfile]) -> Table:
    """One line a role: how much of its time it was busy, and with what."""
    title = Text("Where the time of each role went")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("role", no_wrap=True)
    for heading in ("wall", "busy", "processor"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("share of wall time", overflow="fold")
    for role in summarised(roles):
        table.add_row(
            Text(role.role),
            units.seconds(role.wall_s),
            percent(role.busy_share),
            percent(role.cpu_share),
            Text(_words(role)),
        )
    return table


def _words(role: RoleProfile) -> str:
    """The sections, largest first."""
    shares = sorted(((role.share(name), name) for name in role.sections_s), reverse=True)
    return ", ".join(f"{name} {percent(share)}" for share, name in shares if share >= MIN_SHARE)


def profile_cells(roles: Sequence[RoleProfile]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the page's table: a column for each section that any role was in."""
    shown = summarised(roles)
    sections = [name for name in SECTIONS if any(role.share(name) >= MIN_SHARE for role in shown)]
    rows = [
        [
            role.role,
            units.seconds(role.wall_s),
            percent(role.busy_share),
            percent(role.cpu_share),
            *(percent(role.share(name)) if role.share(name) else "" for name in sections),
        ]
        for role in shown
    ]
    return ["role", "wall", "busy", "processor", *sections], rows


def percent(share: float) -> str:
    """
    >>> percent(0.034), percent(0.98)
    ('3.4%', '98%')
    """
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"
