"""What several commands share of the command line: words only, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from tianji_cli.output import Output

ResultsOption = Annotated[
    Path,
    typer.Option(
        "--results", metavar="DIR", envvar="TIANJI_RESULTS", help="Where results are kept."
    ),
]


def optional(*words: str, metavar: str, help: str, envvar: str | None = None) -> OptionInfo:
    """An option whose default is nothing; the help does not show that."""
    option = typer.Option(*words, metavar=metavar, help=help, envvar=envvar, show_default=False)
    assert isinstance(option, OptionInfo)
    return option


def output_of(context: typer.Context) -> Output:
    """Where this command's words go."""
    assert isinstance(context.obj, Output)
    return context.obj
