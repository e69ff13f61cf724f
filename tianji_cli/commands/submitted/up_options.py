"""The command line of `tianji up`, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianji_cli.commands.options import (
    ExperimentOption,
    InventoryArgument,
    LimitOption,
    PolicyOption,
    ResultsOption,
    ResumeOption,
    SetOption,
    SlurmOption,
    TrackOption,
    TrustOption,
    optional,
    output_of,
)
from tianji_cli.commands.submitted.options import (
    AccountOption,
    ContinueOption,
    CpusOption,
    GpusOption,
    NodesOption,
    PartitionOption,
    SbatchOption,
    SubmitOption,
    TimeOption,
)


def up(
    context: typer.Context,
    inventory: InventoryArgument = None,
    experiment: ExperimentOption = None,
    settings: SetOption = None,
    policy: PolicyOption = None,
    name: Annotated[str | None, optional("--name", metavar="RUN", help="Run id.")] = None,
    seed: Annotated[int | None, optional("--seed", metavar="N", help="Random seed.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, start nothing.")
    ] = False,
    limit: LimitOption = None,
    slurm: SlurmOption = False,
    detach: Annotated[
        bool,
        typer.Option("-d", "--detach", help="Return once training has started; the run continues."),
    ] = False,
    resume: ResumeOption = None,
    continues: ContinueOption = False,
    submit: SubmitOption = False,
    nodes: NodesOption = None,
    time: TimeOption = None,
    partition: PartitionOption = None,
    account: AccountOption = None,
    gpus_per_node: GpusOption = None,
    cpus_per_task: CpusOption = None,
    sbatch: SbatchOption = None,
    trust: TrustOption = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Record how each role spends its time.")
    ] = False,
    trackers: TrackOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Run an experiment: start its processes, train, collect traces."""
    from tianji_cli.commands.planning.plan import show_plan
    from tianji_cli.commands.run_request import UpRequest
    from tianji_cli.commands.submitted.submit import check_submission, submit_command
    from tianji_cli.commands.up import check_only
    from tianji_cli.commands.up import up as run_command
    from tianji_cli.slurm.batch_script import JobOptions

    output = output_of(context)
    request = UpRequest(
        inventory,
        experiment,
        settings or [],
        results,
        name,
        detaches=detach,
        limit=limit or (),
        resume=resume,
        trusts=trust,
        policy=policy,
        seed=seed,
        profiles=profile,
        trackers=trackers or (),
        uses_slurm=slurm,
        continues=continues,
    )
    options = JobOptions(
        nodes, time, partition, account, gpus_per_node, cpus_per_task, tuple(sbatch or ())
    )
    if check_submission(request, options, submits=submit):
        raise typer.Exit(submit_command(request, options, output, is_dry=dry_run))
    if dry_run:
        checked = check_only(request, output)
        show_plan(checked, output)
        return
    raise typer.Exit(run_command(request, output))
