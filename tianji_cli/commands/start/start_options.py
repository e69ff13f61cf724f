"""The command line of `tianji list` and `tianji init`, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianji_cli.commands.options import optional, output_of
from tianji_cli.reference.rows import KINDS

KindArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[KIND]",
        help=f"{', '.join(KINDS)}.",
        show_default=False,
        autocompletion=lambda: [*KINDS],
    ),
]
FilterArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILTER]...", help="Words that must all occur in a row.", show_default=False
    ),
]


def list_there_is(
    context: typer.Context, kind: KindArgument = None, words: FilterArgument = None
) -> None:
    """List environments, algorithms, policies, experiments, suites."""
    from tianji_cli.commands.start.list_command import list_command

    list_command(kind, words or [], output_of(context))


DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="[DIR]", help="Where to write; made if it is missing.")
]
EnvOption = Annotated[
    str | None,
    optional("--env", metavar="ID", help="Start from this environment instead of one of your own."),
]
AlgorithmOption = Annotated[
    str, typer.Option("--algorithm", metavar="NAME", help="As `tianji list algorithms` has it.")
]


def init(
    context: typer.Context,
    directory: DirectoryArgument = Path(),
    env_id: EnvOption = None,
    algorithm: AlgorithmOption = "ppo",
) -> None:
    """Write an experiment, an own environment and an inventory to start from; overwrite nothing."""
    from tianji_cli.commands.start.init_command import InitRequest, init_command

    init_command(InitRequest(directory, env_id, algorithm), output_of(context))
