"""The commands about a run on its hosts: the command lines, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianji_cli.commands.options import (
    LimitOption,
    ResultsOption,
    RunArgument,
    SlurmOption,
    TrustOption,
    output_of,
)


def check(
    context: typer.Context,
    inventory: Annotated[
        str | None,
        typer.Argument(
            metavar="[INVENTORY]",
            help="Inventory file; needed but with --slurm.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    slurm: SlurmOption = False,
) -> None:
    """Check that the hosts of an inventory are ready for a run, and suggest fixes."""
    from tianji_cli.commands.check import check_command

    raise typer.Exit(check_command(inventory, limit or (), output_of(context), uses_slurm=slurm))


def status(
    context: typer.Context,
    run: RunArgument = None,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Show what a run is doing on its hosts."""
    from tianji_cli.commands.submitted.any_run import status_of_run

    raise typer.Exit(status_of_run(results, run, output_of(context), trusts=trust))


def logs(
    context: typer.Context,
    run: RunArgument = None,
    role: Annotated[
        str | None,
        typer.Argument(metavar="[ROLE[@HOST]]", help="For example actor, actor-1 or actor-1@box2."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Print new lines until the run ends.")
    ] = False,
    num_lines: Annotated[
        int,
        typer.Option("-n", "--lines", min=0, metavar="N", help="Last lines of each log to print."),
    ] = 50,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Print the logs of a run, during training or afterwards."""
    from tianji_cli.commands.logs import LogsRequest
    from tianji_cli.commands.submitted.any_run import logs_of_run

    request = LogsRequest(run, role, follow, num_lines, trusts=trust)
    raise typer.Exit(logs_of_run(results, request, output_of(context)))


def fetch(
    context: typer.Context,
    run: RunArgument = None,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Copy what a detached run has written on its hosts to this machine; the run continues."""
    from tianji_cli.commands.submitted.any_run import fetch_of_run

    raise typer.Exit(fetch_of_run(results, run, output_of(context), trusts=trust))


def down(
    context: typer.Context,
    run: RunArgument = None,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Stop a run on all hosts, copy its results here, and verify that nothing is left."""
    from tianji_cli.commands.submitted.any_run import end_run

    raise typer.Exit(end_run(results, run, output_of(context), trusts=trust))
