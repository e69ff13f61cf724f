"""Options that several commands share, without heavy imports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from tianji_cli.commands.shell import completion
from tianji_cli.output import Output
from tianji_cli.storage.run_dir import RESULTS_VARIABLE

ResultsOption = Annotated[
    Path,
    typer.Option(
        "--results", metavar="DIR", envvar=RESULTS_VARIABLE, help="Directory for results."
    ),
]


def optional(
    *words: str,
    metavar: str,
    help: str,
    envvar: str | None = None,
    completed: Callable[..., list[str]] | None = None,
) -> OptionInfo:
    """An option without a default; the help shows none.

    Args:
        words, metavar, help, envvar: As of `typer.Option`.
        completed: The words that a shell completes it to.
    """
    option = typer.Option(
        *words,
        metavar=metavar,
        help=help,
        envvar=envvar,
        show_default=False,
        autocompletion=completed,
    )
    assert isinstance(option, OptionInfo)
    return option


LOCAL = "inventories/local.yaml"
CARTPOLE = "experiments/cartpole_ppo.yaml"

InventoryArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[INVENTORY]",
        help="Inventory file.",
        show_default=LOCAL,
        autocompletion=completion.inventories,
    ),
]
ExperimentOption = Annotated[
    str | None,
    typer.Option(
        "-x",
        "--experiment",
        metavar="EXPERIMENT",
        help="Experiment file.",
        show_default=CARTPOLE,
        autocompletion=completion.experiments,
    ),
]
SetOption = Annotated[
    list[str] | None,
    optional(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        help="Set a value of the experiment; null disables a stop rule. Repeatable.",
    ),
]
PolicyOption = Annotated[
    str | None,
    optional(
        "--policy",
        metavar="NAME",
        help="Distribution policy: a built-in name or a YAML file.",
        completed=completion.policies,
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Run id or a unique prefix. Default: newest.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run ids, unique prefixes or paths; several are compared. Default: newest.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
LimitOption = Annotated[
    list[str] | None,
    optional(
        "--limit",
        metavar="HOSTS",
        help="Use only these hosts or groups: globs, comma-separated; !NAME excludes. Repeatable.",
    ),
]
SlurmOption = Annotated[
    bool,
    typer.Option(
        "--slurm",
        help="Use the nodes of the Slurm job in which this command runs, besides the inventory's"
        " hosts if one is given.",
    ),
]
ResumeOption = Annotated[
    str | None,
    optional(
        "--resume",
        metavar="RUN",
        help="Continue from the newest checkpoint of a run that has ended, as a new run; uses its"
        " experiment and inventory unless others are given.",
        completed=completion.runs,
    ),
]
TrackOption = Annotated[
    list[str] | None,
    optional(
        "--track",
        metavar="TOOL",
        help="Also show the run in tensorboard, wandb or mlflow, while it trains. Repeatable.",
        completed=completion.trackers,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust", help="Use hosts and programs named by results that you did not create here."
    ),
]


def output_of(context: typer.Context) -> Output:
    """The output of this command."""
    assert isinstance(context.obj, Output)
    return context.obj
