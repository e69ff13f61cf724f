"""The page of a benchmark in a real browser, without a screen; skipped where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.helpers.bench.made_bench import write_bench
from tianji_cli.commands.benchmarks.bench_report import write_bench_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium"),
]


def browse(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_the_page_is_drawn_and_the_browser_finds_nothing_to_complain_of(tmp_path):
    root = write_bench(tmp_path / "bench-made")
    page = write_bench_report([root], None).page
    result = browse(page, tmp_path / "profile", "--dump-dom")
    assert re.findall(r".*CONSOLE.*", result.stderr) == []
    assert result.stdout.count("<svg") == 7
    assert "Parity: is it the same work?" in result.stdout
    for width in (400, 1240):
        check_drawn(page, tmp_path, width)


def check_drawn(page: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    size = f"--window-size={width},3000"
    browse(page, tmp_path / "profile", size, f"--screenshot={shot}", "--hide-scrollbars")
    pixels = imread(shot)[..., :3]
    assert pixels.shape[1] == width
    inked = np.abs(pixels - pixels[0, -1]).max(axis=-1) > 0.2
    assert inked.any(axis=1).mean() > 0.4, "most rows of the page show something"
