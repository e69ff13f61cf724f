"""The options of `tianji bench`: words only, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SuiteArgument = Annotated[
    str,
    typer.Argument(
        metavar="[SUITE]", help="Suite: smoke, cartpole, classic, or a file of your own."
    ),
]
CompareOption = Annotated[
    str,
    typer.Option(
        "--compare",
        metavar="PEERS",
        help="Systems beside TianJi, with commas: single-process, rllib, sample-factory, xingtian.",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        min=1,
        help="Blocks. Default: what the suite says.",
        show_default=False,
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="S",
        help="Seconds of training that a cell may use. Default: what the suite says.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        help="Set a value of the suite, such as tasks.ppo.threshold=100. Repeatable.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="ID", help="Id of the benchmark.", show_default=False),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="ID",
        help="Go on with an interrupted benchmark; finished cells stay.",
        show_default=False,
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Start without asking; install missing peers from PyPI.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would run; -v lists it.")]
SkipOption = Annotated[
    bool, typer.Option("--skip-missing", help="Mark cells of missing systems instead of failing.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit 8 unless every cell reached its threshold.")
]
InstallOption = Annotated[
    list[str] | None,
    typer.Option(
        "--install",
        metavar="PEER",
        help="Only make the environment of rllib or sample-factory, from PyPI. Repeatable.",
        show_default=False,
    ),
]
PeersOption = Annotated[
    Path | None,
    typer.Option(
        "--peers-dir",
        metavar="DIR",
        envvar="TIANJI_PEERS",
        help="Where installed peers are kept. Default: ~/.cache/tianji/peers.",
        show_default=False,
    ),
]
XingtianOption = Annotated[
    Path | None,
    typer.Option(
        "--xingtian-python",
        metavar="PYTHON",
        envvar="TIANJI_XINGTIAN_PYTHON",
        help="Interpreter of your XingTian.",
        show_default=False,
    ),
]
