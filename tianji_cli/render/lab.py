"""The table of `tianji lab`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tianji_cli.lab.lab import HostStatus
from tianji_cli.lab.network import Methods
from tianji_cli.lab.plan import LabRequest
from tianji_cli.lab.quantities import format_delay, format_loss, format_rate

_STATE_STYLE = {"up": "green", "cut": "yellow", "frozen": "cyan", "dead": "red"}


def lab_table(rows: Sequence[HostStatus], request: LabRequest, methods: Methods) -> Table:
    """Hosts in order, with what holds for every host's link on the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("host", "address", "ssh"):
        table.add_column(heading, no_wrap=True)
    table.add_column("state", no_wrap=True)
    for heading in ("processes", "rate", "delay", "loss"):
        table.add_column(heading, justify="right", no_wrap=True)
    delay = "n/a" if methods.delay == "unavailable" else format_delay(request.delay_s)
    loss = "n/a" if methods.loss == "unavailable" else format_loss(request.loss)
    for row in rows:
        word = f"{row.state}, cut" if row.is_cut and row.state != "cut" else row.state
        word += ", disk full" if row.is_full else ""
        table.add_row(
            Text(row.name),
            Text(row.address),
            Text(str(row.ssh_port)),
            Text(word, style=_STATE_STYLE[row.state]),
            str(row.num_processes),
            format_rate(request.rate_bits_per_s),
            delay,
            loss,
        )
    return table
