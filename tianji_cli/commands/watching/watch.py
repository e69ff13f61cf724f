"""`tianji watch`: the command line, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianji_cli.commands.options import ResultsOption, output_of

PortOption = Annotated[
    int,
    typer.Option(
        "--port",
        metavar="N",
        min=0,
        max=65535,
        help="Port on 127.0.0.1. Default: any free one.",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Run to begin with: an id, a unique prefix or a path. Default: the list of all.",
        show_default=False,
    ),
]


def watch(
    context: typer.Context,
    run: RunArgument = None,
    port: PortOption = 0,
    results: ResultsOption = Path("results"),
) -> None:
    """Show runs live on a web page that only this machine can reach; Ctrl-C ends it."""
    from tianji_cli.commands.watching.watching import watch_command

    watch_command(results, run, port, output_of(context))
