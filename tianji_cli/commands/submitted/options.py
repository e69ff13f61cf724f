"""The options of `tianji up` that concern a batch job, without heavy imports."""

from __future__ import annotations

from typing import Annotated

import typer

from tianji_cli.commands.options import optional

SubmitOption = Annotated[
    bool,
    typer.Option(
        "--submit", help="With --slurm: give the run to Slurm as a batch job, and return."
    ),
]
NodesOption = Annotated[
    str | None, optional("--nodes", metavar="N", help="With --submit: number of nodes.")
]
TimeOption = Annotated[
    str | None,
    optional("--time", metavar="TIME", help="With --submit: time limit, such as 2:00:00."),
]
PartitionOption = Annotated[
    str | None, optional("--partition", metavar="NAME", help="With --submit: partition.")
]
AccountOption = Annotated[
    str | None, optional("--account", metavar="NAME", help="With --submit: account.")
]
GpusOption = Annotated[
    str | None,
    optional("--gpus-per-node", metavar="[TYPE:]N", help="With --submit: GPUs of each node."),
]
CpusOption = Annotated[
    int | None,
    optional("--cpus-per-task", metavar="N", help="With --submit: CPUs of each node."),
]
SbatchOption = Annotated[
    list[str] | None,
    optional(
        "--sbatch",
        metavar="OPTION",
        help="With --submit: another option of sbatch, such as constraint=a100. Repeatable.",
    ),
]
ContinueOption = Annotated[
    bool,
    typer.Option(
        "--continue",
        help="If there are runs NAME, NAME-2, ... of this --name, resume the newest one as the"
        " next; for commands that a batch system starts again.",
    ),
]
