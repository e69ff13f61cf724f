"""`tianji play`: episodes of a trained policy as a video, or in a window."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from engine.errors import EXIT_INTERRUPTED, ConfigError, PreflightError
from tianji_cli.commands.options import (
    ResultsOption,
    RunArgument,
    TrustOption,
    optional,
    output_of,
)
from tianji_cli.commands.trained.options import (
    CheckpointOption,
    EnvKwargsOption,
    EpisodeSeedOption,
    SampledOption,
)
from tianji_cli.interrupts import interruptible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.spec import Scalar
    from engine.trained.episodes import Moment
    from engine.trained.run import TrainedRun
    from tianji_cli.evaluation.playing import PlayDocument, Showing
    from tianji_cli.output import Output

VideoOption = Annotated[
    Path | None,
    optional(
        "--video",
        metavar="FILE",
        help="Video to write, .mp4 or .gif. Default: in the run's directory, without --human.",
    ),
]
HumanOption = Annotated[
    bool, typer.Option("--human", help="Show it in a window; Escape or its closing ends it.")
]
FpsOption = Annotated[
    float | None,
    optional("--fps", metavar="N", help="Frames per second. Default: as the environment says."),
]
EpisodesOption = Annotated[
    int, typer.Option("--episodes", metavar="N", min=1, max=1000, help="Episodes to play.")
]
MaxStepsOption = Annotated[
    int,
    typer.Option(
        "--max-steps", metavar="N", min=1, help="Longer episodes end after so many env steps."
    ),
]
MAX_FPS = 1000.0


@dataclass(frozen=True)
class PlayOptions:
    """What the user typed.

    Attributes:
        run: Name of the run; None: the newest.
        results: Where it is.
        checkpoint: See `parse_which`.
        env_kwargs: See `load_trained`.
        trusts: Whether to use modules that a run of others names.
        seed: Of the first episode; None: that of the run's own evaluations.
        episodes, is_sampled, max_env_steps, video, is_in_window, fps: See `Showing`.
    """

    run: str | None
    results: Path
    checkpoint: str
    env_kwargs: Mapping[str, Scalar]
    trusts: bool
    seed: int | None
    episodes: int
    is_sampled: bool
    max_env_steps: int
    video: Path | None
    is_in_window: bool
    fps: float | None


def play(
    context: typer.Context,
    run: RunArgument = None,
    video: VideoOption = None,
    episodes: EpisodesOption = 1,
    human: HumanOption = False,
    checkpoint: CheckpointOption = "last",
    seed: EpisodeSeedOption = None,
    sampled: SampledOption = False,
    fps: FpsOption = None,
    env_kwargs: EnvKwargsOption = None,
    max_steps: MaxStepsOption = 10_000,
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Show episodes of a trained policy: write a video, or open a window."""
    from tianji_cli.evaluation.plan import check_seed, parse_env_kwargs

    check_seed(seed)
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise ConfigError(f"frames per second are above 0, up to {MAX_FPS:g}", where=f"--fps {fps}")
    options = PlayOptions(
        run,
        results,
        checkpoint,
        parse_env_kwargs(env_kwargs or []),
        trust,
        seed,
        episodes,
        sampled,
        max_steps,
        video,
        human,
        fps,
    )
    raise typer.Exit(play_command(options, output_of(context)))


def play_command(options: PlayOptions, output: Output) -> int:
    """Finds the run, plays, and says what came out.

    Returns:
        0; 130 if it was interrupted.

    Raises:
        TianJiError: It cannot be played.
    """
    from engine.host.user_code import restored_process
    from engine.trace.checkpoint_choice import parse_which
    from tianji_cli.runs.trained import find_trained
    from tianji_cli.storage.consent import Consent

    if options.is_in_window:
        _need_display()
    consent = Consent(output, options.trusts)
    run = find_trained(options.results, options.run, parse_which(options.checkpoint), consent)
    showing = _showing(options, run)
    output.part_from_user_code()
    try:
        with restored_process(), interruptible():
            document = _play(run, options, showing, output)
    except KeyboardInterrupt:
        output.say("interrupted; no video was written")
        return EXIT_INTERRUPTED
    _tell(document, output)
    return 0


def _need_display() -> None:
    """Raises PreflightError if no window can be opened here."""
    if os.environ.get("SDL_VIDEODRIVER"):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise PreflightError(
            "there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set",
            where="--human",
            fix="leave it out: then a video is written",
        )


def _showing(options: PlayOptions, run: TrainedRun) -> Showing:
    from tianji_cli.evaluation.plan import default_seed
    from tianji_cli.evaluation.playing import Showing, default_video
    from tianji_cli.storage.json_files import writing
    from tianji_cli.storage.safe_files import make_inside

    seed = default_seed(run.experiment) if options.seed is None else options.seed
    video = options.video
    if video is None and not options.is_in_window:
        video = default_video(run, options.episodes, seed, options.is_sampled)
        with writing("the video", run.path, "give another place with --video FILE"):
            make_inside(run.path, video.parent)
    return Showing(
        options.episodes,
        seed,
        options.is_sampled,
        options.max_env_steps,
        None if video is None else video.absolute(),  # an environment can change the directory
        options.is_in_window,
        options.fps,
    )


def _play(run: TrainedRun, options: PlayOptions, showing: Showing, output: Output) -> PlayDocument:
    from engine.host.malloc import reading_libraries

    with reading_libraries():
        import torch

        from engine.envs.rendering import prepare_drivers
        from engine.trained.load import load_trained
        from tianji_cli.evaluation.playing import play as play_episodes
    from tianji_cli.render.evaluations import PlayDisplay

    for refused in run.checkpoint.refused:
        output.say(f"incomplete or damaged, so another one is used: {refused}")
    torch.set_num_threads(1)  # as where policies are evaluated; more only wait for each other
    prepare_drivers()
    trained = load_trained(run, options.env_kwargs)
    display = PlayDisplay(output, showing.episodes)

    def tell(number: int, moment: Moment) -> None:
        display.show(number, moment.episode_return, moment.length_env_steps)

    try:
        return play_episodes(trained, showing, tell)
    finally:
        display.close()


def _tell(document: PlayDocument, output: Output) -> None:
    from tianji_cli import units
    from tianji_cli.storage.run_dir import from_here

    if output.is_json:
        output.document(document)
        return
    for row in document.episodes:
        value = units.short(round(row.episode_return, 6))
        length = units.plural(row.length_env_steps, "env step")
        words = f"episode {row.episode} (seed {row.seed}): return {value}, {length}"
        words += f", {row.ended_by}"
        output.data.print(Text(words), soft_wrap=True)
    if document.video is not None:
        place = from_here(Path(document.video))
        frames = f"{units.plural(document.num_frames, 'frame')} at {document.fps:g} per second"
        output.data.print(Text(f"video: {place} ({frames})"), soft_wrap=True)
