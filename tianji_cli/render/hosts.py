"""Hosts on their way to a run: one live line for each on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tianji_cli.inventory import Host
from tianji_cli.output import Output
from tianji_cli.provision import Phase


class PhaseLog:
    """Says which host is in which phase. Silent where this machine is the only host.

    Args:
        output: Where to.
        hosts: Of the run.
    """

    def __init__(self, output: Output, hosts: Sequence[Host]) -> None:
        self._output = output
        self._is_silent = all(host.connection == "local" for host in hosts)
        self._width = max((len(host.name) for host in hosts), default=0)
        self._began_s = time.monotonic()

    def show(self, host: str, phase: Phase, detail: str) -> None:
        """A host has entered a phase."""
        if self._is_silent:
            return
        elapsed_s = time.monotonic() - self._began_s
        first_line = detail.partition("\n")[0]
        self._output.say(
            f"[{elapsed_s:5.1f} s] {host:{self._width}}  {phase:11} {first_line}".rstrip()
        )
