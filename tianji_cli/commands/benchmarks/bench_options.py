"""The command line of `tianji bench`, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError
from tianji_cli.commands.options import ResultsOption, TrustOption, optional, output_of
from tianji_cli.commands.shell import completion

SuiteArgument = Annotated[
    str,
    typer.Argument(
        metavar="[SUITE]",
        help="A suite: smoke, cartpole, classic, minatar, atari, continuous, marl, fused, scaling,"
        " transport, published; a study: staleness, staleness-harm, staleness-cost,"
        " asynchrony, overlap, reference, spaces, search, multi-agent; or your own file.",
        autocompletion=completion.suites,
    ),
]
InventoryArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[INVENTORY]",
        help="Hosts of a scaling suite (default: the running lab), a transport suite or a study.",
        show_default=False,
    ),
]
HostsOption = Annotated[
    str | None,
    optional(
        "--hosts",
        metavar="INVENTORY",
        help="Same as INVENTORY; `lab` is the running lab. For transport and studies.",
    ),
]
ParallelOption = Annotated[
    str | None,
    optional(
        "--parallel",
        "--jobs",
        metavar="N|auto",
        help="Runs of a study, or of published results, at once. Default: as many as the hosts of"
        " INVENTORY allow; on this machine one.",
    ),
]
CompareOption = Annotated[
    str,
    typer.Option(
        "--compare",
        metavar="SYSTEMS",
        help="Other systems, comma-separated: single-process (or cleanrl: plain loops in its"
        " manner), compiled-loop (or leanrl: those compiled), rllib, sample-factory,"
        " xingtian, sb3, rejax, other-tianji.",
    ),
]
TaskOption = Annotated[
    list[str] | None,
    optional(
        "--task",
        "--row",
        metavar="TASK",
        help="Run only this task of the suite, or row of published results. Repeatable.",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        min=1,
        help="Number of blocks. Default: set by the suite.",
        show_default=False,
    ),
]
BudgetOption = Annotated[
    float | None,
    optional(
        "--budget",
        metavar="S",
        help="Most seconds of training per cell. Default: set by the suite.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    optional(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        help="Set a value of the suite, such as tasks.ppo.threshold=100. Repeatable.",
    ),
]
NameOption = Annotated[str | None, optional("--name", metavar="ID", help="Benchmark id.")]
ResumeOption = Annotated[
    str | None,
    optional(
        "--resume", metavar="ID", help="Continue an interrupted benchmark; finished cells are kept."
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Start without asking; install missing baselines from PyPI.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would run; -v lists every cell.")
]
SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-missing", help="Skip baselines that are not installed instead of failing."
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit 8 unless every cell reached its threshold, and no row of published results is"
        " worse.",
    ),
]
InstallOption = Annotated[
    list[str] | None,
    optional(
        "--install",
        metavar="SYSTEM",
        help="Only install rllib, sample-factory, sb3 or rejax, from PyPI. Repeatable.",
    ),
]
SystemsOption = Annotated[
    Path | None,
    optional(
        "--peers-dir",
        metavar="DIR",
        envvar="TIANJI_PEERS",
        help="Directory of installed baselines. Default: ~/.cache/tianji/peers.",
    ),
]
XingtianOption = Annotated[
    Path | None,
    optional(
        "--xingtian-python",
        metavar="PYTHON",
        envvar="TIANJI_XINGTIAN_PYTHON",
        help="Python interpreter of your XingTian installation.",
    ),
]
OtherOption = Annotated[
    Path | None,
    optional(
        "--other-tianji",
        metavar="PYTHON",
        help="Python interpreter of another TianJi, such as an older checkout's .venv/bin/python.",
    ),
]


def bench(
    context: typer.Context,
    suite: SuiteArgument = "smoke",
    inventory: InventoryArgument = None,
    hosts: HostsOption = None,
    parallel: ParallelOption = None,
    compare: CompareOption = "single-process",
    tasks: TaskOption = None,
    seeds: SeedsOption = None,
    budget: BudgetOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    resume: ResumeOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    skip_missing: SkipOption = False,
    strict: StrictOption = False,
    trust: TrustOption = False,
    install: InstallOption = None,
    systems_dir: SystemsOption = None,
    xingtian_python: XingtianOption = None,
    other_tianji: OtherOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Run the same work on TianJi and on other systems, and report which is faster, by how much."""
    from tianji_cli.bench.systems.base import SystemOptions, default_systems_dir
    from tianji_cli.commands.benchmarks import bench as command
    from tianji_cli.commands.benchmarks.bench_request import BenchRequest

    output = output_of(context)
    options = SystemOptions(systems_dir or default_systems_dir(), xingtian_python, other_tianji)
    if install:
        command.install_command(install, options, output)
        return
    request = BenchRequest(
        suite=suite,
        inventory=_only(hosts, inventory),
        compare=compare,
        tasks=tasks or [],
        seeds=seeds,
        budget_s=budget,
        settings=settings or [],
        results=results,
        name=name,
        resume=resume,
        system_options=options,
        yes=yes,
        dry_run=dry_run,
        skip_missing=skip_missing,
        strict=strict,
        trusts=trust,
        parallel=parallel,
    )
    raise typer.Exit(command.bench_command(request, output))


def _only(hosts: str | None, inventory: str | None) -> str | None:
    """The inventory, which can be given in two ways."""
    if hosts is not None and inventory is not None:
        what = f"two inventories are given, {hosts} and {inventory}"
        raise ConfigError(what, where="--hosts", fix="give one of them")
    return hosts if inventory is None else inventory
