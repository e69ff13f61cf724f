"""`tianji attach`: the command line, without heavy imports."""

from __future__ import annotations

from pathlib import Path

import typer

from tianji_cli.commands.options import ResultsOption, RunArgument, TrustOption, output_of


def attach(
    context: typer.Context,
    run: RunArgument = None,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Show a detached run live, as `up` does, until it ends; Ctrl-C leaves it running."""
    from tianji_cli.commands.watching.attached import attach_command

    raise typer.Exit(attach_command(results, run, output_of(context), trusts=trust))
