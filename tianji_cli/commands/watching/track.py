"""`tianji track` as typed, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianji_cli.commands.options import ResultsOption, TrustOption, optional, output_of
from tianji_cli.commands.shell import completion

ToOption = Annotated[
    list[str],
    optional(
        "--to",
        metavar="TOOL",
        help="tensorboard, wandb or mlflow. Repeatable.",
        completed=completion.trackers,
    ),
]
TrackedArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run ids, unique prefixes or paths. Default: newest.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]


def track(
    context: typer.Context,
    to: ToOption,
    runs: TrackedArgument = None,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Show runs in TensorBoard, W&B or MLflow; one that still trains is followed to its end."""
    from tianji_cli.commands.watching.tracked import TrackRequest, track_command

    request = TrackRequest(tuple(runs or ()), tuple(to), results, trusts=trust)
    raise typer.Exit(track_command(request, output_of(context)))
