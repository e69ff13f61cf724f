"""Options that the commands for trained policies share, without heavy imports."""

from __future__ import annotations

from typing import Annotated

import typer

from tianji_cli.commands.options import optional

CheckpointOption = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="N|best|last",
        help="A weights version, the newest checkpoint, or the one written at the best return.",
    ),
]
EpisodeSeedOption = Annotated[
    int | None,
    optional(
        "--seed",
        metavar="S",
        help="Episode i starts from S + i. Default: the run's evaluation.seed.",
    ),
]
SampledOption = Annotated[
    bool,
    typer.Option(
        "--sampled", help="Sample actions as in training instead of taking the best known ones."
    ),
]
EnvKwargsOption = Annotated[
    list[str] | None,
    optional(
        "--env-kwargs",
        metavar="K=V",
        help="Argument of the environment's constructor that replaces the run's. Repeatable.",
    ),
]
