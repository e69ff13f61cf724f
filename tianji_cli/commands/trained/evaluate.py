"""`tianji evaluate`: separate episodes with trained policies, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from engine.errors import EXIT_INTERRUPTED
from tianji_cli.commands.options import ResultsOption, RunsArgument, TrustOption, output_of
from tianji_cli.commands.trained.options import (
    CheckpointOption,
    EnvKwargsOption,
    EpisodeSeedOption,
    SampledOption,
)
from tianji_cli.interrupts import interruptible

if TYPE_CHECKING:
    from engine.trained.run import TrainedRun
    from tianji_cli.evaluation.plan import Wanted
    from tianji_cli.evaluation.records import EvaluatedFiles
    from tianji_cli.output import Output

EpisodesOption = Annotated[
    int,
    typer.Option("--episodes", metavar="N", min=1, max=10_000, help="Episodes of each run."),
]
MaxStepsOption = Annotated[
    int,
    typer.Option(
        "--max-steps", metavar="N", min=1, help="Longer episodes end after so many env steps."
    ),
]


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user typed.

    Attributes:
        runs: Names of runs; none means the newest.
        results: Where they are.
        checkpoint: See `parse_which`.
        wanted: How they are evaluated.
        trusts: Whether to use modules that runs of others name.
    """

    runs: Sequence[str]
    results: Path
    checkpoint: str
    wanted: Wanted
    trusts: bool


def evaluate(
    context: typer.Context,
    runs: RunsArgument = None,
    episodes: EpisodesOption = 100,
    checkpoint: CheckpointOption = "last",
    seed: EpisodeSeedOption = None,
    sampled: SampledOption = False,
    env_kwargs: EnvKwargsOption = None,
    max_steps: MaxStepsOption = 100_000,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Play separate episodes with the policy of a run; say how good it is, with an interval.

    All on this machine, in as many processes as it has cores. Equal seeds give equal episodes,
    whatever the number of processes. The table of episodes is kept beside the run.
    """
    from tianji_cli.evaluation.plan import Wanted, check_seed, parse_env_kwargs

    wanted = Wanted(episodes, sampled, max_steps, parse_env_kwargs(env_kwargs or []), seed)
    check_seed(seed)
    request = EvaluateRequest(runs or [], results, checkpoint, wanted, trust)
    raise typer.Exit(evaluate_command(request, output_of(context)))


def evaluate_command(request: EvaluateRequest, output: Output) -> int:
    """Evaluates one run after the other.

    Returns:
        0; 130 if it was interrupted: runs that were evaluated before are kept.

    Raises:
        TianJiError: A run cannot be evaluated.
    """
    from tianji_cli.evaluation.records import EvaluateDocument
    from tianji_cli.render.evaluations import evaluations_table
    from tianji_cli.storage.run_dir import from_here

    try:
        with interruptible():
            runs = _find(request, output)
            done = [_evaluate(run, request.wanted, output) for run in runs]
    except KeyboardInterrupt:
        output.say("interrupted; nothing of this evaluation was kept")
        return EXIT_INTERRUPTED
    if output.is_json:
        output.document(EvaluateDocument(evaluations=done))
        return 0
    output.data.print(evaluations_table([one.evaluation for one in done]))
    for one in done:
        place = from_here(Path(one.episodes_path))
        output.data.print(Text(f"episodes: {place}"), soft_wrap=True)
    return 0


def _find(request: EvaluateRequest, output: Output) -> list[TrainedRun]:
    """The runs, each once; before any is evaluated, so that a wrong name costs nothing."""
    from engine.trace.checkpoint_choice import parse_which
    from tianji_cli.runs.trained import find_trained
    from tianji_cli.storage.consent import Consent
    from tianji_cli.storage.run_dir import resolve_run

    which, consent = parse_which(request.checkpoint), Consent(output, request.trusts)
    names = request.runs or [str(resolve_run(request.results, None).root)]
    found = [find_trained(request.results, name, which, consent) for name in names]
    return list({run.path.resolve(): run for run in found}.values())


def _evaluate(run: TrainedRun, wanted: Wanted, output: Output) -> EvaluatedFiles:
    from tianji_cli.evaluation.evaluate import evaluate as evaluate_run
    from tianji_cli.render.evaluations import EvaluationDisplay, evaluation_notes

    settings = wanted.settings(run.experiment)
    for refused in run.checkpoint.refused:
        output.say(f"incomplete or damaged, so another one is used: {refused}")
    display = EvaluationDisplay(output, run.path.name, settings.episodes)
    try:
        evaluated = evaluate_run(run, settings, display.show)
    finally:
        display.close()
    for note in evaluation_notes(evaluated.evaluation):
        output.say(f"note: {note}")
    return evaluated
