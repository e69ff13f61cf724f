"""The list of commands in `tianji --help`, by what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

GROUPS = {
    "Train": ("up", "plan", "check", "init", "list"),
    "Runs under way": ("status", "attach", "watch", "logs", "fetch", "down"),
    "Results": ("runs", "report", "track"),
    "Trained policies": ("evaluate", "play", "export"),
    "Measure": ("bench", "lab"),
    "Other": ("version",),
}
"""Commands by group, in the order of the help; a command that is in none comes last."""


class GroupedCommands(TyperGroup):
    """A group of commands whose help lists them by `GROUPS`."""

    def list_commands(self, ctx: Context) -> list[str]:
        """All names, in the order of the help."""
        order = [name for names in GROUPS.values() for name in names]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else 99)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes a section for each group; the second column is the same in all of them."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        limit = formatter.width - 6 - width
        of_group = {name: title for title, members in GROUPS.items() for name in members}
        for title in GROUPS:
            members = [name for name in names if of_group.get(name, "Other") == title]
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(limit))
                for name in members
                if not self.commands[name].hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
