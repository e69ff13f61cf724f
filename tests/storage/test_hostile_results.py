"""Whatever lies in a results directory: a report, or one clear error, in little time and memory."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from engine.errors import ConfigError, PreflightError, TianJiError
from engine.supervision.host_state import read_state
from engine.trace.columns import Table
from engine.trace.reader import read_columns, read_table
from engine.trace.records import Episode, Production, Resources
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.convergence import ReturnCrossing, moving_mean, threshold_crossing
from tianji_cli.analysis.runs import list_runs
from tianji_cli.commands.logs import LogsRequest, logs_command
from tianji_cli.commands.report import report_command, write_report
from tianji_cli.commands.runs import runs_command
from tianji_cli.commands.status import status_command
from tianji_cli.output import Output
from tianji_cli.plotting import figure_style
from tianji_cli.storage.run_dir import RunPaths

Change: TypeAlias = Callable[[Path], object]
PART = {
    "host": {"name": "a", "connection": "local", "address": "127.0.0.1", "ports": None},
    "python": "p",
    "source": "s",
    "run_dir": "r",
}
DEPLOYMENT = {"schema_version": 1, "run_id": "run", "is_collected": True, "parts": [PART]}
LONGEST_S = 30.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_synthetic_run(tmp_path / "results" / "run").root
    (root / "deployment.json").write_text(json.dumps(DEPLOYMENT))
    return root


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn all the same."""
    monkeypatch.setattr(figure_style, "PNG_DPI", 20)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What asks for more than 8 GiB fails instead of taking the machine with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def edit(name: str, change: dict[str, object], *, every: bool = False) -> Change:
    """Changes one row of a table, or all."""

    def apply(root: Path) -> None:
        path = root / "trace" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows if every else rows[len(rows) // 2 : len(rows) // 2 + 1]:
            row |= change
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return apply


def edit_json(name: str, *keys: str, value: object) -> Change:
    """Changes a value of a document."""

    def apply(root: Path) -> None:
        path = root / name
        document: Any = json.loads(path.read_text())
        section = document
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        section[keys[-1]] = value
        path.write_text(json.dumps(document))

    return apply


def manifest(*keys: str, value: object) -> Change:
    return edit_json("manifest.json", *keys, value=value)


def summary(key: str, value: object) -> Change:
    return edit_json("summary.json", key, value=value)


def write(name: str, text: str) -> Change:
    return lambda root: (root / name).write_text(text)


STOP = ("experiment", "stop")
HUGE = 10**400
CHANGES: dict[str, Change] = {
    "huge lag": edit("staleness", {"steps_by_lag": {str(2**53 - 1): 800}, "lag_max": 2**53 - 1}),
    "lag of 64 bits": edit("staleness", {"steps_by_lag": {str(2**63): 800}}),
    "many steps of a lag": edit("staleness", {"steps_by_lag": {"0": 2**53}}, every=True),
    "negative lag": edit("staleness", {"steps_by_lag": {"-5": 800}, "lag_min": -5}),
    "integer of 100 bits": edit("production", {"env_steps": 10**30}),
    "sums of more than 64 bits": edit("production", {"env_steps": 2**53}, every=True),
    "negative counts": edit("production", {"env_steps": -(2**53)}, every=True),
    "huge time": edit("production", {"t_s": 1e308}),
    "negative time": edit("production", {"t_s": -1e308}),
    "no times": edit("production", {"t_s": None}, every=True),
    "no times of episodes": edit("episodes", {"t_s": None, "episode_return": None}, every=True),
    "times that are equal": edit("episodes", {"t_s": 0.0}, every=True),
    "huge returns": edit("episodes", {"episode_return": 1e308}, every=True),
    "no returns": edit("episodes", {"episode_return": None}, every=True),
    "huge lengths": edit("episodes", {"length_env_steps": 2**60}),
    "huge metrics": edit("consumption", {"metrics": {"loss": 1e308}}, every=True),
    "negative window": manifest(*STOP, "return_window", value=-3),
    "huge window": manifest(*STOP, "return_window", value=HUGE),
    "infinite window": manifest(*STOP, "return_window", value=float("inf")),
    "window that is none": manifest(*STOP, "return_window", value=float("nan")),
    "long window": manifest(*STOP, "return_window", value=10**12),
    "half a window": manifest(*STOP, "return_window", value=0.5),
    "negative streak": manifest(*STOP, "sustained", value=-3),
    "long streak": manifest(*STOP, "sustained", value=10**12),
    "huge threshold": manifest(*STOP, "return_threshold", value=HUGE),
    "huge bound": manifest("experiment", "staleness", "max_lag", value=10**30),
    "huge seed": manifest("experiment", "seed", value=HUGE),
    "huge origin": manifest(
        "resumed_from",
        value={"run_id": "x", "version": HUGE, "counters": {"env_steps_collected": 10**40}},
    ),
    "many hosts": manifest("hosts", value={f"h{number}": {} for number in range(5000)}),
    "long name": manifest("experiment", "name", value="x" * 3_000_000),
    "half a character": write("manifest.json", '{"experiment": {"name": "\\ud800"}}'),
    "deep manifest": write("manifest.json", '{"a":' + "[" * 200_000),
    "deep summary": write("summary.json", "[" * 200_000),
    "huge counts of the summary": summary("env_steps_collected", HUGE),
    "huge seed of the summary": summary("seed", 10**30),
    "negative wall time": summary("wall_s", -1e308),
    "codes in the summary": summary("env_id", "\x1b[2J$\\frac{$"),
}


def commands(root: Path) -> Iterator[Callable[[], object]]:
    """All that reads a results directory, each as a user would start it."""
    output, results = Output(verbosity=-1), root.parent
    yield lambda: report_command([root.name], results, None, output)
    yield lambda: runs_command(results, output)
    yield lambda: status_command(results, root.name, output)
    yield lambda: logs_command(results, LogsRequest(root.name, None, False, 9), output)


def run_all(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What they say; any other error than one for people fails the test."""
    errors = []
    for command in commands(root):
        began_s = time.process_time()
        try:
            command()
        except TianJiError as error:
            errors.append(str(error))
        assert time.process_time() - began_s < LONGEST_S
    assert "\x1b" not in "".join(capsys.readouterr())
    return errors


NOT_DRAWN = {
    *("negative window", "huge window", "infinite window", "window that is none"),
    *("negative streak", "long streak", "huge seed", "huge origin", "many hosts"),
    *("deep manifest", "deep summary", "huge counts of the summary"),
    *("huge seed of the summary", "negative wall time"),
}
"""What no figure shows, and windows that are replaced by one that other tests draw."""


@pytest.mark.parametrize("name", CHANGES)
def test_numbers_and_texts_that_no_run_writes(
    name: str,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("without_drawing" if name in NOT_DRAWN else "drawing_once")
    CHANGES[name](root)
    run_all(root, capsys)


FILES = [
    "manifest.json",
    "summary.json",
    "deployment.json",
    "trace/episodes.jsonl",
    "trace/events.jsonl",
    "logs/box<1>/actor-0.log",
]


def in_place_of(name: str, kind: str, root: Path) -> None:
    path = root / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path.name)


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "loop"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_named_and_not_waited_for(
    name: str,
    kind: str,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if kind != "directory" or name != "trace/episodes.jsonl":  # without what is drawn, once
        request.getfixturevalue("without_drawing")
    in_place_of(name, kind, root)
    errors = run_all(root, capsys)
    assert name == "manifest.json" or any(Path(name).name in error for error in errors)


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize("name", [*FILES[:3], FILES[-1]])
def test_a_file_that_is_only_said_to_be_long_is_not_read_whole(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(root / name, 10**11)
    run_all(root, capsys)


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "loop"])
def test_a_state_that_is_no_file_is_none(kind: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    in_place_of("state.json", kind, tmp_path)
    assert read_state(tmp_path / "state.json") is None


EPISODE = (
    b'{"table":"episodes","t_s":1.5,"actor":0,"episode_return":1.0,"length_env_steps":1,'
    b'"version":0,"env_steps_collected":1}\n'
)


@pytest.mark.parametrize("line", [EPISODE, b"\n", EPISODE.replace(b"1.0", b"null")])
def test_a_small_packed_table_stands_for_no_large_one(line: bytes, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "episodes.jsonl.gz", "wb", 9) as file:
        for _ in range(48):
            file.write(line * (2**20 // len(line)))
    began_s = time.process_time()
    with pytest.raises(ConfigError, match=r"come out of it|not a row"):
        read_columns(tmp_path, Episode)
    assert time.process_time() - began_s < LONGEST_S


def test_a_directory_may_have_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    names = ["$\\frac{$", "$x^2$", "\udcfc\udcef", "a\x1b[2Jb\nc", "<script>", "%s{}"]
    original = write_synthetic_run(tmp_path / "original", num_batches=30).root
    results = tmp_path / "results"
    roots = [Path(shutil.copytree(original, results / name)) for name in names]
    found = write_report([RunPaths(root) for root in roots], tmp_path / "out")  # with all names
    request.getfixturevalue("without_drawing")  # a figure of one run names none
    for root in roots:
        write_report([RunPaths(root)], None)
    assert b"\x1b" not in found.report.read_bytes()
    for is_json in (False, True):
        output = Output(is_json=is_json)
        runs_command(tmp_path / "results", output)
        report_command([str(root) for root in roots], tmp_path, tmp_path / "out", output)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert len(list_runs(tmp_path / "results")) == len(names)


def test_a_report_replaces_links_and_follows_none(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    written = write_report([RunPaths(root)], None)
    for path in (written.report, *written.figures):
        path.unlink()
        path.symlink_to(mine)
    write_report([RunPaths(root)], None)
    assert mine.read_text() == "mine"
    assert not any(path.is_symlink() for path in (written.report, *written.figures))


def test_a_report_is_not_led_out_of_its_directory(root: Path, tmp_path: Path) -> None:
    (root / "plots").rmdir()
    (root / "plots").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(PreflightError, match="leads out"):
        write_report([RunPaths(root)], None)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_long_table_takes_little_more_than_its_numbers(tmp_path: Path) -> None:
    count = 100_000
    with (tmp_path / "episodes.jsonl").open("wb") as file:
        for number in range(count):
            file.write(EPISODE.replace(b"1.5", b"%d" % number))
    tracemalloc.start()
    try:
        table = read_columns(tmp_path, Episode)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes / count < 60, "six numbers of eight bytes, and room to grow"
    assert table[-1] == read_table(tmp_path, Episode)[-1]


@pytest.mark.parametrize("kind", [Episode, Production, Resources])
def test_a_table_of_columns_has_the_rows_of_a_list(
    kind: type[Episode] | type[Production] | type[Resources], root: Path
) -> None:
    rows = read_table(root / "trace", kind)
    table: Table[Any] = read_columns(root / "trace", kind)
    assert table == rows
    assert len(table) == len(rows) > 0
    assert table[1:3] == rows[1:3]
    assert table[-1] == rows[-1]
    with pytest.raises(IndexError):
        table[len(rows)]


def test_long_windows_are_means_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.sin(np.arange(5000)) * 1e6
    exact = moving_mean(values, 700)
    monkeypatch.setattr("tianji_cli.analysis.convergence.MAX_ADDITIONS", 1)
    assert np.allclose(moving_mean(values, 700), exact, rtol=1e-12, atol=1e-6)


def test_a_streak_is_found_where_it_ends() -> None:
    import pandas as pd

    holds = [1, 1, 0, 1, 1, 1, 0, 1]
    count = len(holds)
    curve = pd.DataFrame(
        {
            "t_s": np.arange(count, dtype=float),
            "env_steps": np.arange(count) * 10,
            "return_mean": np.array(holds, dtype=float),
            "is_full": np.ones(count, dtype=bool),
        }
    )
    assert threshold_crossing(curve, 1.0, 1) == ReturnCrossing(0.0, 0)
    assert threshold_crossing(curve, 1.0, 2) == ReturnCrossing(1.0, 10)
    assert threshold_crossing(curve, 1.0, 3) == ReturnCrossing(5.0, 50)
    assert threshold_crossing(curve, 1.0, 4) is None
    assert threshold_crossing(curve, 1.0, 9) is None
