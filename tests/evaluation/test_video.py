"""Videos hold the frames that they were given."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ConfigError, PreflightError
from tianji_cli.evaluation import video
from tianji_cli.evaluation.video import FrameSink, Mp4File, Window, enlarged, even, video_for

needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="needs imageio-ffmpeg (68 MB)"
)
needs_pygame = pytest.mark.skipif(
    importlib.util.find_spec("pygame") is None, reason="needs pygame-ce"
)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def frames(height: int = 200, width: int = 240) -> list[np.ndarray]:
    return [np.full((height, width, 3), colour, np.uint8) for colour in COLOURS]


def write(path: Path, fps: float, pictures: list[np.ndarray], *, is_complete: bool = True) -> None:
    write_to(video_for(path, fps), pictures, is_complete=is_complete)


def write_to(sink: FrameSink, pictures: list[np.ndarray], *, is_complete: bool = True) -> None:
    for picture in pictures:
        assert sink.add(picture)
    sink.close(is_complete=is_complete)


def read_gif(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Frames, and how long each is shown, in ms."""
    found, delays = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB")))
            delays.append(image.info["duration"])
    return found, delays


def read_mp4(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames, and how many there are in a second."""
    from imageio_ffmpeg import get_ffmpeg_exe

    words = ("-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    done = subprocess.run([get_ffmpeg_exe(), *words], capture_output=True, check=True)
    facts = re.search(r"Video: h264.* (\d+)x(\d+).* ([\d.]+) fps", done.stderr.decode())
    assert facts is not None
    width, height = int(facts[1]), int(facts[2])
    return list(np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)), float(facts[3])


def test_a_gif_holds_its_frames(tmp_path: Path):
    write(tmp_path / "a.gif", 10.0, frames())
    found, delays = read_gif(tmp_path / "a.gif")
    assert [tuple(picture[80, 100]) for picture in found] == list(COLOURS)
    assert found[0].shape == (200, 240, 3)
    assert delays == [100] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_a_gif_faster_than_viewers_show_leaves_out_frames(tmp_path: Path):
    write(tmp_path / "a.gif", 100.0, frames())
    found, delays = read_gif(tmp_path / "a.gif")
    assert [tuple(picture[80, 100]) for picture in found] == [COLOURS[0], COLOURS[2]]
    assert delays == [20, 20]


@needs_ffmpeg
@pytest.mark.parametrize("size", [(200, 240), (201, 241)], ids=str)
def test_an_mp4_holds_its_frames(tmp_path: Path, size: tuple[int, int]):
    write(tmp_path / "a.mp4", 12.5, frames(*size))
    found, fps = read_mp4(tmp_path / "a.mp4")
    assert len(found) == len(COLOURS)
    assert found[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    for picture, colour in zip(found, COLOURS, strict=True):
        np.testing.assert_allclose(picture[80, 100], colour, atol=12)
    assert fps == pytest.approx(12.5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a.gif", pytest.param("a.mp4", marks=needs_ffmpeg)])
def test_what_was_interrupted_is_not_kept_and_replaces_nothing(tmp_path: Path, name: str):
    (tmp_path / name).write_text("another")
    write(tmp_path / name, 10.0, frames(), is_complete=False)
    assert (tmp_path / name).read_text() == "another"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@needs_ffmpeg
def test_what_the_encoder_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sink = Mp4File(tmp_path / "a.mp4", 10.0)
    monkeypatch.setattr(sink, "_beside", tmp_path / "nowhere" / "a.mp4")
    with pytest.raises(PreflightError, match="No such file or directory"):
        write_to(sink, frames(640, 640) * 8)
    sink.close(is_complete=False)


def test_other_kinds_of_video_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        video_for(tmp_path / "a.avi", 10.0)
    assert error.value.fix == "name it .mp4 or .gif"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(PreflightError) as error:
        video_for(tmp_path / "nowhere" / "a.gif", 10.0)
    assert error.value.where == str(tmp_path / "nowhere")


def test_without_the_encoder_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "has_ffmpeg", lambda: False)
    with pytest.raises(ConfigError, match="imageio-ffmpeg") as error:
        video_for(tmp_path / "a.mp4", 10.0)
    assert "GIF needs nothing more" in error.value.fix


def test_small_frames_are_enlarged_by_whole_pixels():
    picture = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    large = enlarged(picture)
    assert large.shape == (200, 400, 3)
    np.testing.assert_array_equal(large[::20, ::20], picture)
    np.testing.assert_array_equal(large[19::20, 19::20], picture)
    assert enlarged(large) is large


def test_the_last_row_and_column_make_sides_even():
    picture = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    wide = even(picture)
    assert wide.shape == (4, 6, 3)
    np.testing.assert_array_equal(wide[3, :5], picture[2])
    np.testing.assert_array_equal(wide[:3, 5], picture[:, 4])


@needs_pygame
def test_a_window_shows_frames_until_it_is_closed(monkeypatch: pytest.MonkeyPatch):
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window("title", 1000.0)
    try:
        for picture in frames():
            assert window.add(picture)
            shown = pygame.surfarray.array3d(pygame.display.get_surface())
            assert shown.shape == (240, 200, 3)
            assert tuple(shown[100, 80]) == tuple(picture[80, 100])
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
        assert not window.add(frames()[0])
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert not window.add(frames()[0])
    finally:
        window.close(is_complete=True)
