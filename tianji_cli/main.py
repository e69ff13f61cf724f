"""The `tianji` command: registration only. Heavy imports are inside the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from engine import __version__
from engine.errors import TianJiError, directory_is_gone, of_machine
from tianji_cli.commands import host_options, lab, runs_options
from tianji_cli.commands.benchmarks import bench_options
from tianji_cli.commands.options import (
    ExperimentOption,
    InventoryArgument,
    LimitOption,
    PolicyOption,
    ResultsOption,
    RunsArgument,
    SetOption,
    SlurmOption,
    TrustOption,
    output_of,
)
from tianji_cli.commands.planning.plan_options import (
    ClusterOption,
    FromOption,
    PlotOption,
    SimulateOption,
    refuse_with_simulate,
    refuse_without_simulate,
)
from tianji_cli.commands.report import ArchiveOption, OutOption, PdfOption
from tianji_cli.commands.shell.grouped import GroupedCommands
from tianji_cli.commands.start import start_options
from tianji_cli.commands.submitted import up_options
from tianji_cli.commands.trained import evaluate, export, play
from tianji_cli.commands.watching.attach import attach
from tianji_cli.commands.watching.track import track
from tianji_cli.commands.watching.watch import watch
from tianji_cli.interrupts import run_and_leave
from tianji_cli.output import Output
from tianji_cli.streams import safe_streams

EVERYWHERE = "Every command also takes -v, -q, --json and --no-color."

app = typer.Typer(
    name="tianji",
    cls=GroupedCommands,
    help="Run, trace and report asynchronous distributed deep reinforcement learning.",
    epilog="Exit codes: 0 ok, 1 run failed, 2 usage or configuration, 3 machine not ready,"
    " 4 host unreachable, 5 timeout, 6 version mismatch, 7 clean-up incomplete,"
    " 8 bench incomplete under --strict, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tianji {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print more.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
    is_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output.")
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colors.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise directory_is_gone() from None
    context.obj = Output(
        is_json=is_json, no_color=no_color, verbosity=-1 if quiet else int(verbose)
    )


app.command(epilog=EVERYWHERE)(up_options.up)


@app.command(epilog=EVERYWHERE, short_help="Show the fragments, processes and channels of a run.")
def plan(
    context: typer.Context,
    inventory: InventoryArgument = None,
    experiment: ExperimentOption = None,
    settings: SetOption = None,
    policy: PolicyOption = None,
    limit: LimitOption = None,
    slurm: SlurmOption = False,
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg", metavar="FILE", help="Also write it as a drawing.", show_default=False
        ),
    ] = None,
    simulate: SimulateOption = None,
    measured: FromOption = None,
    cluster: ClusterOption = None,
    plot: PlotOption = None,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Show what the network gets and chooses, and which processes `up` would start, and where; or
    simulate a run on other hosts."""
    from tianji_cli.commands.planning.plan import plan_command
    from tianji_cli.commands.planning.simulate import SimulateRequest, simulate_command
    from tianji_cli.commands.run_request import UpRequest

    request = UpRequest(
        inventory,
        experiment,
        settings or [],
        results,
        None,
        limit=limit or (),
        trusts=trust,
        policy=policy,
        uses_slurm=slurm,
    )
    if simulate is None:
        refuse_without_simulate(measured, cluster, plot)
        plan_command(request, svg, output_of(context))
        return
    refuse_with_simulate(request, svg)
    wanted = SimulateRequest(simulate, measured, cluster, plot, request)
    simulate_command(wanted, output_of(context))


app.command(epilog=EVERYWHERE, short_help="Check that hosts are ready for a run; suggest fixes.")(
    host_options.check
)


app.command(epilog=EVERYWHERE)(host_options.status)
app.command(epilog=EVERYWHERE)(host_options.logs)
app.command(epilog=EVERYWHERE, short_help="Show a detached run live; Ctrl-C leaves it running.")(
    attach
)
app.command(epilog=EVERYWHERE, short_help="Show runs live on a web page of this machine.")(watch)
app.command(
    epilog=EVERYWHERE, short_help="Copy the results of a detached run here; the run continues."
)(host_options.fetch)
app.command(epilog=EVERYWHERE, short_help="Stop a run, copy its results here, clean up its hosts.")(
    host_options.down
)


@app.command(
    epilog=EVERYWHERE, short_help="Write tables, plots and an HTML page from the files of a run."
)
def report(
    context: typer.Context,
    runs: RunsArgument = None,
    out: OutOption = None,
    archive: ArchiveOption = False,
    pdf: PdfOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Write tables, plots and one HTML page from the files of a run or a benchmark."""
    from tianji_cli.commands.report import report_command

    report_command(runs or [], results, out, output_of(context), archives=archive, writes_pdf=pdf)


app.command(epilog=EVERYWHERE, short_help="Play separate episodes with trained policies.")(
    evaluate.evaluate
)
app.command(epilog=EVERYWHERE, short_help="Show a trained policy: a video, or a window.")(play.play)
app.command(
    epilog=EVERYWHERE, short_help="Write a trained policy as a folder that needs no TianJi."
)(export.export)
app.command(epilog=EVERYWHERE)(runs_options.runs)
app.command(epilog=EVERYWHERE, short_help="Write an experiment and an environment to start from.")(
    start_options.init
)
app.command(name="list", epilog=EVERYWHERE)(start_options.list_there_is)
app.command(epilog=EVERYWHERE, short_help="Show runs in TensorBoard, W&B or MLflow.")(track)
app.command(
    epilog=EVERYWHERE, short_help="Compare with other systems, run studies, measure transport."
)(bench_options.bench)
app.add_typer(
    lab.app, epilog=EVERYWHERE, short_help="Make a throw-away cluster of hosts on this machine."
)


@app.command(epilog=EVERYWHERE)
def version(context: typer.Context) -> None:
    """Print versions."""
    from tianji_cli.commands.version import show_version

    show_version(output_of(context))


_GLOBAL_FLAGS = {"-v", "--verbose", "-q", "--quiet", "--json", "--no-color"}


def sort_arguments(arguments: Sequence[str]) -> list[str]:
    """Moves the global flags in front of the command, where they are parsed.

    >>> sort_arguments(["up", "--json", "-s", "a=1"])
    ['--json', 'up', '-s', 'a=1']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words, rest = arguments[:end], arguments[end:]
    flags = [word for word in words if word in _GLOBAL_FLAGS]
    return [*flags, *(word for word in words if word not in _GLOBAL_FLAGS), *rest]


def main() -> None:
    """Runs the command line and ends the process with the documented exit code."""
    arguments = sort_arguments(sys.argv[1:])
    try:
        with safe_streams():
            app(args=arguments)
    except BrokenPipeError:
        sys.exit(1)
    except TianJiError as error:
        _fail(error, arguments)
    except Exception as error:
        known = of_machine(error)
        if known is None:
            raise
        _fail(known, arguments)


def _fail(error: TianJiError, arguments: Sequence[str]) -> NoReturn:
    """Ends the command with an error, even if no descriptor is left to format it."""
    try:
        Output(no_color="--no-color" in arguments).error(error)
    except (OSError, ImportError):
        sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    run_and_leave(main)
