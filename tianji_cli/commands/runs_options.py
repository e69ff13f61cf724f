"""`tianji runs`: the command line, without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError
from tianji_cli.commands.options import ResultsOption, optional, output_of
from tianji_cli.commands.shell import completion

GLOBS = "globs, comma-separated"


WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT]...",
        help="Only rows with all of these texts. With --delete: the runs to delete.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
EnvOption = Annotated[
    str, optional("--env", metavar="ENV", help=f"Environment ids or parts of them: {GLOBS}.")
]
AlgorithmOption = Annotated[
    str, optional("--algorithm", metavar="NAME", help=f"Algorithms: {GLOBS}.")
]
PoliciesOption = Annotated[
    str, optional("--policy", metavar="NAME", help=f"Distribution policies: {GLOBS}.")
]
StatusOption = Annotated[
    str,
    optional(
        "--status",
        metavar="STATUS",
        help="ok, failed, interrupted, detached, unfinished or unreadable; comma-separated.",
    ),
]
KindOption = Annotated[
    str, optional("--kind", metavar="KIND", help="run, study, bench, scaling or transport.")
]
SinceOption = Annotated[
    str,
    optional("--since", metavar="TIME", help="Started since a UTC date or time, or ago: 7d, 12h."),
]
SortOption = Annotated[
    str | None,
    optional(
        "--sort",
        metavar="KEY",
        help="started, name, return, steps, rate, time or reached; least first.",
    ),
]
ReverseOption = Annotated[bool, typer.Option("-r", "--reverse", help="Last row first.")]
CountOption = Annotated[
    int | None,
    typer.Option(
        "-n", "--last", min=0, metavar="N", help="Only the last N rows.", show_default=False
    ),
]
DeleteOption = Annotated[
    bool, typer.Option("--delete", help="Delete these runs from this machine, after asking.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Delete without asking.")]


def runs(
    context: typer.Context,
    words: WordsArgument = None,
    env: EnvOption = "",
    algorithm: AlgorithmOption = "",
    policy: PoliciesOption = "",
    status: StatusOption = "",
    kind: KindOption = "",
    since: SinceOption = "",
    sort: SortOption = None,
    reverse: ReverseOption = False,
    count: CountOption = None,
    delete: DeleteOption = False,
    yes: YesOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """List past runs, studies and benchmarks; delete runs."""
    from tianji_cli.analysis.run_filter import RunFilter

    wanted = RunFilter(
        env=env,
        algorithm=algorithm,
        policy=policy,
        status=status,
        kind=kind,
        since=since,
        words=() if delete else tuple(words or ()),
        sort=sort,
        count=count,
        is_reversed=reverse,
    )
    output = output_of(context)
    if not delete:
        from tianji_cli.commands.runs import runs_command

        if yes:
            raise ConfigError("only --delete asks anything", where="--yes", fix="leave it out")
        runs_command(results, output, wanted)
        return
    from tianji_cli.commands.runs_delete import delete_command

    if wanted != RunFilter():
        raise ConfigError(
            "runs to delete are given by name, not by filters",
            where="--delete",
            fix="tianji runs --delete RUN...",
        )
    delete_command(results, words or [], output, is_agreed=yes)
