"""Progress of hosts before a run: a live table on a terminal, otherwise plain lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from tianji_cli.config.inventory import Host
from tianji_cli.output import Output
from tianji_cli.provisioning.provision import Phase
from tianji_cli.render.live import RedrawnLive

_STYLES = {"ready": "green", "joined": "green", "failed": "red"}
REFRESH_PER_S = 4.0
_ALIGNMENTS: tuple[JustifyMethod, ...] = ("left", "left", "right", "left")


@dataclass
class _Row:
    phase: Phase
    detail: str
    since_s: float


class PhaseTable:
    """One row for each host; those that are not ready yet come first.

    Args:
        hosts: Their names.
        now_s: On the clock of `enter`.
    """

    def __init__(self, hosts: Sequence[str], now_s: float) -> None:
        self._rows = {host: _Row("connect", "", now_s) for host in hosts}

    def enter(self, host: str, phase: Phase, detail: str, now_s: float) -> None:
        """A host has entered a phase."""
        self._rows[host] = _Row(phase, detail, now_s)

    def at(self, now_s: float) -> Table:
        """The table, with the seconds that each host has been in its phase."""
        table = Table.grid(padding=(0, 2))
        for justify in _ALIGNMENTS:
            table.add_column(justify=justify)
        order = sorted(self._rows.items(), key=lambda item: (item[1].phase in _STYLES, item[0]))
        for host, row in order:
            is_over = row.phase in _STYLES
            table.add_row(
                Text(host),
                Text(row.phase, style=_STYLES.get(row.phase, "yellow")),
                Text("" if is_over else f"{now_s - row.since_s:.0f} s"),
                Text(row.detail, style="dim", overflow="ellipsis", no_wrap=True),
            )
        return table


class PhaseLog:
    """Shows the phase of each host. Shows nothing if this machine is the only host.

    Args:
        output: Where it is shown.
        hosts: Of the run.
    """

    def __init__(self, output: Output, hosts: Sequence[Host]) -> None:
        self._output = output
        self._is_silent = all(host.connection == "local" for host in hosts)
        self._width = max((len(host.name) for host in hosts), default=0)
        self._began_s = time.monotonic()
        self._table = PhaseTable([host.name for host in hosts], self._began_s)
        self._live: RedrawnLive | None = None
        if output.is_animated and not self._is_silent:
            # The seconds keep counting, so a host that hangs is visible.
            self._live = RedrawnLive(
                self, console=output.notes, refresh_per_second=REFRESH_PER_S, transient=True
            )
            self._live.start()

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield self._table.at(time.monotonic())

    def show(self, host: str, phase: Phase, detail: str) -> None:
        """A host has entered a phase."""
        first_line = detail.partition("\n")[0]
        self._table.enter(host, phase, first_line, time.monotonic())
        if self._is_silent or self._output.is_animated:
            return
        elapsed_s = time.monotonic() - self._began_s
        self._output.say(
            f"[{elapsed_s:5.1f} s] {host:{self._width}}  {phase:11} {first_line}".rstrip()
        )

    def close(self) -> None:
        """Clears the terminal for the next output."""
        if self._live is not None:
            self._live.stop()
            self._live = None
