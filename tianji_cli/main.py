"""The `tianji` command: registration only. Heavy imports wait inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import TianJiError
from tianji_cli.commands import bench_options
from tianji_cli.commands.report import OutOption, RunsArgument
from tianji_cli.output import Output

EVERYWHERE = "Before or after every command: -v, -q, --json, --no-color."
LOCAL = "inventories/local.yaml"
CARTPOLE = "experiments/cartpole_ppo.yaml"

app = typer.Typer(
    name="tianji",
    help="Asynchronous distributed deep reinforcement learning: run it, trace it, report it.",
    epilog="Exit codes: 0 ok, 1 run failed, 2 usage or configuration, 3 machine not ready,"
    " 5 deadline passed, 8 bench incomplete under --strict, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

InventoryArgument = Annotated[str, typer.Argument(metavar="[INVENTORY]", help="Inventory file.")]
ExperimentOption = Annotated[
    str, typer.Option("-x", "--experiment", metavar="EXPERIMENT", help="Experiment file.")
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
    typer.Option("--policy", metavar="NAME", help="Distribution policy.", show_default=False),
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        "--results", metavar="DIR", envvar="TIANJI_RESULTS", help="Where results are kept."
    ),
]


@app.callback()
def main_options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say errors only.")] = False,
    is_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output.")
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print plain text.")] = False,
) -> None:
    context.obj = Output(
        is_json=is_json, no_color=no_color, verbosity=-1 if quiet else int(verbose)
    )


@app.command(epilog=EVERYWHERE)
def up(
    context: typer.Context,
    inventory: InventoryArgument = LOCAL,
    experiment: ExperimentOption = CARTPOLE,
    settings: SetOption = None,
    policy: PolicyOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="RUN", help="Run id.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Random seed.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, start nothing.")
    ] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Run an experiment: start its processes, train, bring back traces."""
    from tianji_cli.commands import up as command
    from tianji_cli.commands.plan import show_plan

    output = _output(context)
    request = command.Request(
        inventory, experiment, _settings(settings, policy, seed), results, name
    )
    if dry_run:
        show_plan(command.check_only(request), output)
        return
    raise typer.Exit(command.up(request, output))


@app.command(epilog=EVERYWHERE)
def plan(
    context: typer.Context,
    inventory: InventoryArgument = LOCAL,
    experiment: ExperimentOption = CARTPOLE,
    settings: SetOption = None,
    policy: PolicyOption = None,
) -> None:
    """Show the fragments, processes and channels that `up` would start, and where."""
    from tianji_cli.commands import up as command
    from tianji_cli.commands.plan import show_plan

    request = command.Request(
        inventory, experiment, _settings(settings, policy, None), Path("results"), None
    )
    show_plan(command.load(request).plan, _output(context))


@app.command(epilog=EVERYWHERE)
def bench(
    context: typer.Context,
    suite: bench_options.SuiteArgument = "smoke",
    compare: bench_options.CompareOption = "single-process",
    seeds: bench_options.SeedsOption = None,
    budget: bench_options.BudgetOption = None,
    settings: bench_options.SetOption = None,
    name: bench_options.NameOption = None,
    resume: bench_options.ResumeOption = None,
    yes: bench_options.YesOption = False,
    dry_run: bench_options.DryRunOption = False,
    skip_missing: bench_options.SkipOption = False,
    strict: bench_options.StrictOption = False,
    install: bench_options.InstallOption = None,
    peers_dir: bench_options.PeersOption = None,
    xingtian_python: bench_options.XingtianOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Do the same work on TianJi and on the real peers, and say who was faster by how much."""
    from tianji_cli.baselines.base import PeerOptions, default_peers_dir
    from tianji_cli.commands import bench as command

    output = _output(context)
    options = PeerOptions(peers_dir or default_peers_dir(), xingtian_python)
    if install:
        command.install_command(install, options, output)
        return
    request = command.BenchRequest(
        suite=suite,
        compare=compare,
        seeds=seeds,
        budget_s=budget,
        settings=settings or [],
        results=results,
        name=name,
        resume=resume,
        peer_options=options,
        yes=yes,
        dry_run=dry_run,
        skip_missing=skip_missing,
        strict=strict,
    )
    raise typer.Exit(command.bench_command(request, output))


@app.command(epilog=EVERYWHERE)
def report(
    context: typer.Context,
    runs: RunsArgument = None,
    out: OutOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Draw tables, plots and one HTML page from the files of a run or a benchmark."""
    from tianji_cli.commands.report import report_command

    report_command(runs or [], results, out, _output(context))


@app.command(name="runs", epilog=EVERYWHERE)
def list_past_runs(context: typer.Context, results: ResultsOption = Path("results")) -> None:
    """List past runs."""
    from tianji_cli.commands.runs import runs_command

    runs_command(results, _output(context))


@app.command(epilog=EVERYWHERE)
def version(context: typer.Context) -> None:
    """Print versions."""
    from tianji_cli.commands.version import show_version

    show_version(_output(context))


def _output(context: typer.Context) -> Output:
    assert isinstance(context.obj, Output)
    return context.obj


def _settings(settings: Sequence[str] | None, policy: str | None, seed: int | None) -> list[str]:
    """Options that stand for a setting come last, so that they win."""
    merged = list(settings or [])
    if policy is not None:
        merged.append(f"policy={policy}")
    if seed is not None:
        merged.append(f"seed={seed}")
    return merged


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
        app(args=arguments)
    except TianJiError as error:
        Output(no_color="--no-color" in arguments).error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
