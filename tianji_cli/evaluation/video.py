"""Writes frames to a video file, or shows them in a window."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import secrets
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.envs.extras import install_command
from engine.errors import ConfigError, PreflightError, TianJiError
from engine.host.process import describe_returncode

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from pygame import Surface

    from engine.envs.rendering import Frame

MP4, GIF = ".mp4", ".gif"
MAX_GIF_FPS = 50.0
"""Delays of GIF are hundredths of a second, and viewers slow down those below two."""
MIN_SIDE_PIXELS = 200
"""Smaller frames are enlarged by a whole factor, so that each pixel stays a square."""
FFMPEG = "imageio_ffmpeg"


class FrameSink(Protocol):
    """Takes frames."""

    def add(self, frame: Frame) -> bool:
        """The next frame; False if no more are wanted."""
        ...

    def close(self, *, is_complete: bool) -> None:
        """Ends it; what is not complete is not kept."""
        ...


def has_ffmpeg() -> bool:
    """Whether MP4 can be written here."""
    return importlib.util.find_spec(FFMPEG) is not None


def video_for(path: Path, fps: float) -> FrameSink:
    """Writes a video, of the kind that its name says.

    Args:
        path: `.mp4` or `.gif`; it appears when the video is complete, and then replaces another.
        fps: Frames per second.

    Raises:
        ConfigError: It is of another kind, or what writes it is not installed.
        PreflightError: There is no such directory, or it cannot be written.
    """
    if path.suffix.lower() not in (MP4, GIF):
        raise ConfigError(
            f"{path.name} is no name of a video", where="--video", fix="name it .mp4 or .gif"
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise PreflightError("the video cannot be written there", where=str(path.parent))
    if path.suffix.lower() == GIF:
        return GifFile(path, fps)
    if not has_ffmpeg():
        raise ConfigError(
            "MP4 needs the package imageio-ffmpeg",
            where=str(path),
            fix=f"{install_command('video', 'imageio-ffmpeg')}; GIF needs nothing more",
        )
    return Mp4File(path, fps)


def _beside(path: Path) -> Path:
    """A name for the video while it is written."""
    return path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}{path.suffix}")


class Mp4File:
    """H.264, by the encoder that comes with imageio-ffmpeg.

    The encoder ends when its input does, hence also if this process is killed.

    Args:
        path: Of the video.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._beside, self._fps = path, _beside(path), fps
        self._encoder: subprocess.Popen[bytes] | None = None

    def add(self, frame: Frame) -> bool:
        import numpy as np

        picture = np.ascontiguousarray(even(enlarged(frame)))
        if self._encoder is None:
            self._encoder = self._begin(picture.shape[1], picture.shape[0])
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(picture.tobytes())
        except OSError as error:  # it has ended
            raise _unwritten(self._path, self._ended(self._encoder)) from error
        return True

    def _begin(self, width: int, height: int) -> subprocess.Popen[bytes]:
        from imageio_ffmpeg import get_ffmpeg_exe

        given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}")
        rate = Fraction(self._fps).limit_denominator(1000)
        made = ("-pix_fmt", "yuv420p", "-movflags", "+faststart", str(self._beside))
        return subprocess.Popen(
            [get_ffmpeg_exe(), "-v", "error", "-y", *given, "-r", str(rate), "-i", "-", *made],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process
        )

    def close(self, *, is_complete: bool) -> None:
        encoder = self._encoder
        try:
            if encoder is None:
                return
            if not is_complete:
                encoder.kill()
            problem = self._ended(encoder)
            if is_complete and problem:
                raise _unwritten(self._path, problem)
            if is_complete:
                with writable(self._path):
                    self._beside.replace(self._path)
        finally:
            self._beside.unlink(missing_ok=True)

    def _ended(self, encoder: subprocess.Popen[bytes]) -> str:
        """Lets the encoder come to its end; what went wrong, or nothing."""
        said = encoder.communicate()[1].decode(errors="replace").strip().splitlines()
        if encoder.returncode == 0:
            return ""
        return said[-1] if said else f"its encoder {describe_returncode(encoder.returncode)}"


class GifFile:
    """An animation that repeats; at most 50 frames per second are kept.

    Args:
        path: Of the video.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._beside = path, _beside(path)
        self._every = max(1, math.ceil(fps / MAX_GIF_FPS))
        self._delay_ms = 10 * max(2, round(100 * self._every / fps))
        self._pictures: list[Image] = []
        self._count = 0

    def add(self, frame: Frame) -> bool:
        from PIL import Image

        if self._count % self._every == 0:
            picture = Image.fromarray(enlarged(frame)).quantize(dither=Image.Dither.NONE)
            self._pictures.append(picture)
        self._count += 1
        return True

    def close(self, *, is_complete: bool) -> None:
        if not is_complete or not self._pictures:
            return
        first, *rest = self._pictures
        try:
            with writable(self._path):
                first.save(
                    self._beside,
                    format="GIF",
                    save_all=True,
                    append_images=rest,
                    duration=self._delay_ms,
                    loop=0,
                )
                self._beside.replace(self._path)
        finally:
            self._beside.unlink(missing_ok=True)


class Window:
    """Shows frames on the display until it is closed, or Escape is pressed.

    Args:
        title: Of the window.
        fps: Frames per second.

    Raises:
        ConfigError: What shows it is not installed.
    """

    def __init__(self, title: str, fps: float) -> None:
        if importlib.util.find_spec("pygame") is None:
            fix = install_command("video", "pygame-ce")
            raise ConfigError("a window needs the package pygame", where="--human", fix=fix)
        self._title, self._fps = title, fps
        self._screen: Surface | None = None

    def add(self, frame: Frame) -> bool:
        import pygame

        picture = enlarged(frame)
        size = (picture.shape[1], picture.shape[0])
        if self._screen is None:
            try:
                pygame.display.init()
                self._screen = pygame.display.set_mode(size)
            except pygame.error as error:
                raise PreflightError(
                    f"no window can be opened: {error}", where="--human", fix="leave it out"
                ) from error
            pygame.display.set_caption(self._title)
            self._clock = pygame.time.Clock()
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.blit(surface, (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)
        return not any(
            event.type == pygame.QUIT
            or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE)
            for event in pygame.event.get()
        )

    def close(self, *, is_complete: bool) -> None:
        if self._screen is not None:
            import pygame

            pygame.display.quit()


def enlarged(frame: Frame) -> np.ndarray:
    """A small frame by a whole factor, so that its shorter side has 200 pixels at least."""
    factor = math.ceil(MIN_SIDE_PIXELS / min(frame.shape[:2]))
    return frame if factor == 1 else frame.repeat(factor, axis=0).repeat(factor, axis=1)


def even(frame: Frame) -> np.ndarray:
    """With an even width and height, as H.264 wants it; the last row or column is repeated."""
    import numpy as np

    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Raises PreflightError if the video cannot be written in the block."""
    try:
        yield
    except OSError as error:
        raise _unwritten(path, error.strerror or str(error)) from error


def _unwritten(path: Path, problem: str) -> TianJiError:
    return PreflightError(
        f"the video cannot be written: {problem}",
        where=str(path),
        fix="free space or permissions there, or give another place with --video",
    )
