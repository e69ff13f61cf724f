"""Plays episodes of a trained policy to be looked at: in a video, or in a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.blame import told
from engine.errors import RunFailedError, TianJiError, of_machine
from engine.host.user_code import no_silent_exit
from tianji_cli.evaluation.records import SCHEMA_VERSION, EpisodeRow, returns_within
from tianji_cli.evaluation.video import GIF, MP4, FrameSink, Window, has_ffmpeg, video_for
from tianji_cli.storage.run_dir import RunPaths

if TYPE_CHECKING:
    from engine.envs.rendering import Frame, RenderedEnv
    from engine.trained.episodes import Moment
    from engine.trained.load import Trained
    from engine.trained.run import TrainedRun


class PlayDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `tianji play --json` prints."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    version: int
    """Of the weights."""
    env_id: str
    video: str | None
    """Its path; null without one."""
    fps: float
    num_frames: int
    episodes: list[EpisodeRow]


@dataclass(frozen=True)
class Showing:
    """How episodes are shown.

    Attributes:
        episodes: How many.
        seed: Episode i starts from seed + i.
        is_sampled: Whether actions are sampled as in training.
        max_env_steps: Longer episodes end there.
        video: Where the video goes; None: none.
        is_in_window: Whether they are shown in a window.
        fps: Frames per second; None: as the environment says.
    """

    episodes: int
    seed: int
    is_sampled: bool
    max_env_steps: int
    video: Path | None
    is_in_window: bool
    fps: float | None


Tell = Callable[[int, "Moment"], None]
"""Gets the number of the episode and how far it is, after each step."""


def default_video(run: TrainedRun, episodes: int, seed: int, is_sampled: bool) -> Path:
    """In the run's directory, with a name that says what it shows; GIF if MP4 cannot be written.

    >>> from types import SimpleNamespace as Some
    >>> run = Some(path=Path("run"), checkpoint=Some(info=Some(version=120)))
    >>> default_video(run, 1, 7, is_sampled=True).with_suffix("").as_posix()
    'run/videos/v120-seed7-1-sampled'
    """
    sampled = "-sampled" if is_sampled else ""
    name = f"v{run.checkpoint.info.version}-seed{seed}-{episodes}{sampled}"
    return RunPaths(run.path).videos / f"{name}{MP4 if has_ffmpeg() else GIF}"


def play(trained: Trained, showing: Showing, tell: Tell) -> PlayDocument:
    """Plays the episodes one after the other.

    Args:
        trained: Who plays.
        showing: How.
        tell: Called after each step.

    Raises:
        ConfigError: The environment cannot be rendered.
        RunFailedError: It has failed.
        PreflightError: The video cannot be written.
        KeyboardInterrupt: The user stopped it; an unfinished video is not kept.
    """
    from engine.envs.rendering import make_rendered_env

    spec = trained.experiment.env
    with _user_code(spec.id):
        env = make_rendered_env(spec)
    try:
        fps = showing.fps or env.fps
        with _sinks(showing, fps, spec.id) as sinks:
            rows, num_frames = _play(trained, env, showing, sinks, tell)
    finally:
        env.close()
    return PlayDocument(
        run_id=trained.run.path.name,
        version=trained.info.version,
        env_id=spec.id,
        video=None if showing.video is None else str(showing.video),
        fps=fps,
        num_frames=num_frames,
        episodes=rows,
    )


def _play(
    trained: Trained, env: RenderedEnv, showing: Showing, sinks: Sequence[FrameSink], tell: Tell
) -> tuple[list[EpisodeRow], int]:
    """The episodes that ended, and how many frames were shown; fewer if a window was closed."""
    from engine.trained.episodes import PlayRules, play_rendered

    rules = PlayRules(showing.is_sampled, showing.max_env_steps)
    rows: list[EpisodeRow] = []
    num_frames = 0
    for number in range(showing.episodes):
        seed = showing.seed + number
        moments = _guarded(play_rendered(trained, env, seed, rules), env, trained)
        for moment, frame in moments:
            num_frames += 1
            wants_more = all([sink.add(frame) for sink in sinks])
            tell(number, moment)
            if moment.ended_by is not None:
                row = EpisodeRow(
                    episode=number,
                    seed=seed,
                    episode_return=moment.episode_return,
                    length_env_steps=moment.length_env_steps,
                    ended_by=moment.ended_by,
                    **returns_within(moment.of_team),
                )
                rows.append(row)
            if not wants_more:
                return rows, num_frames
    return rows, num_frames


def _guarded(
    moments: Iterator[Moment], env: RenderedEnv, trained: Trained
) -> Iterator[tuple[Moment, Frame]]:
    """The same with their frames; whatever user code raises becomes one error."""
    while True:
        with _user_code(trained.experiment.env.id):
            moment = next(moments, None)
            if moment is None:
                return
            frame = env.frame()
        yield moment, frame


@contextmanager
def _user_code(env_id: str) -> Iterator[None]:
    """Turns what an environment raises, even to end the process, into one error.

    Raises:
        RunFailedError: For any exception but the program's own and the user's Ctrl-C.
    """
    try:
        with no_silent_exit():
            yield
    except (TianJiError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise (
            of_machine(error) or RunFailedError(told(error), where=f"env.id {env_id}")
        ) from error


@contextmanager
def _sinks(showing: Showing, fps: float, title: str) -> Iterator[list[FrameSink]]:
    """Opens video and window, and closes them."""
    sinks: list[FrameSink] = []
    if showing.video is not None:
        sinks.append(video_for(showing.video, fps))
    if showing.is_in_window:
        sinks.append(Window(title, fps))
    is_complete = False
    try:
        yield sinks
        is_complete = True
    finally:
        for sink in sinks:
            sink.close(is_complete=is_complete)
