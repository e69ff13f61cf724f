"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LOCAL = "inventories/local.yaml"
CARTPOLE = "experiments/cartpole_ppo.yaml"

InventoryArgument = Annotated[
    str | None,
    typer.Argument(metavar="[INVENTORY]", help="Inventory file.", show_default=LOCAL),
]
ExperimentOption = Annotated[
    str | None,
    typer.Option(
        "-x", "--experiment", metavar="EXPERIMENT", help="Experiment file.", show_default=CARTPOLE
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        help="Set a value of the experiment; null switches a rule off. Repeatable.",
        show_default=False,
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="Distribution policy: built in, or a YAML file.",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", help="Run id or a unique beginning; the newest.", show_default=False
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="HOSTS",
        help="Only hosts that match this glob. Repeatable.",
        show_default=False,
    ),
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        "--results", metavar="DIR", envvar="TIANJI_RESULTS", help="Where results are kept."
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Go on from the newest checkpoint of a run that has ended, as a new run; its"
        " experiment and inventory are taken unless others are given.",
        show_default=False,
    ),
]
