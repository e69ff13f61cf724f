"""Options of `tianji plan --simulate`, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from engine.errors import ConfigError
from tianji_cli.commands.options import optional
from tianji_cli.commands.shell import completion

if TYPE_CHECKING:
    from tianji_cli.commands.run_request import UpRequest

SimulateOption = Annotated[
    str | None,
    optional(
        "--simulate",
        metavar="HOSTS",
        help="Numbers of hosts, such as 1,2,4,8: simulate the run of --from on so many.",
    ),
]
FromOption = Annotated[
    str | None,
    optional(
        "--from",
        metavar="RUN",
        help="With --simulate: the run that tells what the work costs, best with a profile.",
        completed=completion.runs,
    ),
]
ClusterOption = Annotated[
    Path | None,
    optional(
        "--cluster",
        metavar="FILE",
        help="With --simulate: what the hosts and their network are like.",
    ),
]
PlotOption = Annotated[
    Path | None,
    optional(
        "--plot",
        metavar="DIR",
        help="With --simulate: also write forecast.png and forecast.svg there.",
    ),
]


def refuse_without_simulate(run: str | None, cluster: Path | None, plot: Path | None) -> None:
    """Raises ConfigError if an option is given that only a simulation uses."""
    given = {"--from": run, "--cluster": cluster, "--plot": plot}
    for option, value in given.items():
        if value is not None:
            raise ConfigError(
                "nothing is simulated", where=option, fix="add --simulate 1,2,4,8, or leave it out"
            )


def refuse_with_simulate(request: UpRequest, svg: Path | None) -> None:
    """Raises ConfigError if an option is given that a simulation does not use."""
    given = {
        "INVENTORY": (request.inventory, "--cluster FILE says what the hosts are like"),
        "--experiment": (request.experiment, "the experiment is that of the run; -s changes it"),
        "--limit": (request.limit, "the numbers of hosts are those of --simulate"),
        "--slurm": (request.uses_slurm, "the numbers of hosts are those of --simulate"),
        "--svg": (svg, "--plot DIR writes the figure of a simulation"),
    }
    for where, (value, fix) in given.items():
        if value:
            raise ConfigError("it is not used with --simulate", where=where, fix=fix)
