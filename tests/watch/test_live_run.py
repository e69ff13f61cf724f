"""One run, read from its files while they grow, whatever becomes of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from tests.helpers.synthetic_run import HOSTILE, make_trace, write_rows, write_synthetic_run
from tests.helpers.watching import manifest_of_run, write_manifest
from tianji_cli.analysis.runs import RunRow
from tianji_cli.storage.follow import TableFollower
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.watch.live_run import FRESH_S, LiveRun, liveness_of
from tianji_cli.watch.run_files import MAX_LINE, TAIL_LINES, logs_of, tail_of
from tianji_cli.watch.views import RunView

ROWS = make_trace(1.0, 450.0, 60).rows


def read(run: LiveRun) -> RunView:
    """The view once everything that is here was read."""
    while run.advance():
        pass
    return run.view()


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A run that has just started."""
    hosts = {"a": ["coordinator", "learner-0", "buffer-0"], "b": ["actor-0", "actor-1"]}
    return write_manifest(tmp_path / "results/run", manifest_of_run(hosts))


def outdate(paths: RunPaths) -> None:
    """Makes all files of a run old."""
    then_s = time.time() - 10 * FRESH_S
    for path in (paths.manifest, *paths.trace.iterdir()):
        os.utime(path, (then_s, then_s))


def test_rows_show_up_as_they_are_written(paths):
    run = LiveRun(paths)
    assert read(run).figures.env_steps_collected == 0
    write_rows(paths.trace, ROWS[: len(ROWS) // 2])
    half = read(run)
    write_rows(paths.trace, ROWS[len(ROWS) // 2 :])
    whole = read(run)
    assert 0 < half.figures.env_steps_collected < whole.figures.env_steps_collected
    assert whole == msgspec.structs.replace(read(LiveRun(paths)), age_s=whole.age_s)
    assert whole.liveness == "live"
    assert (whole.algorithm, whole.env_id, whole.seed) == ("ppo", "CartPole-v1", "1")
    assert [row.host for row in whole.hosts][:2] == ["a", "b"]


def test_only_what_was_appended_is_read_again(paths, monkeypatch):
    write_rows(paths.trace, ROWS)
    run = LiveRun(paths)
    read(run)
    num_rows: list[int] = []
    add = run._tally.add
    monkeypatch.setattr(run._tally, "add", lambda row: (num_rows.append(1), add(row)))
    write_rows(paths.trace, ROWS[-3:])
    read(run)
    read(run)
    assert len(num_rows) == 3


def test_a_table_that_was_cut_is_read_anew(paths):
    write_rows(paths.trace, ROWS)
    run = LiveRun(paths)
    before = read(run)
    table = paths.trace / "production.jsonl"
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:10]))
    after = read(run)
    expected = sum(json.loads(line)["env_steps"] for line in lines[:10])
    assert after.figures.env_steps_collected == expected
    assert after.figures.episodes == before.figures.episodes, "other tables are whole, and once"


def test_the_end_of_a_run_is_seen(tmp_path):
    paths = write_synthetic_run(tmp_path / "results/run")
    summary = paths.summary.read_bytes()
    paths.summary.unlink()
    run = LiveRun(paths)
    assert read(run).liveness == "live"
    paths.summary.write_bytes(summary)
    view = read(run)
    assert (view.liveness, view.status) == ("over", "ok")
    figures = msgspec.json.decode(summary)
    assert view.figures.collect_per_s == figures["collect_per_s"]
    assert view.figures.t_s == figures["wall_s"]


def test_a_run_that_was_killed_is_silent_and_its_rates_are_those_of_then(paths):
    write_rows(paths.trace, ROWS)
    outdate(paths)
    view = read(LiveRun(paths))
    assert view.liveness == "silent"
    assert "stands still" in view.words
    assert view.command.startswith("tianji status run")
    assert view.figures.collect_per_s is not None
    assert view.age_s == pytest.approx(10 * FRESH_S, abs=30)


def test_rates_of_a_run_that_stalls_fall(paths):
    now_s = 0.0
    run = LiveRun(paths, lambda: now_s)
    write_rows(paths.trace, ROWS)
    before = read(run).figures
    now_s = 30.0
    after = read(run).figures
    assert before.collect_per_s is not None
    assert after.collect_per_s is not None
    assert after.collect_per_s < before.collect_per_s / 2
    assert after.t_s > before.t_s + 20


def test_a_detached_run_says_how_to_bring_its_files(paths):
    part = {
        "host": {"name": "box", "connection": "ssh", "address": "192.0.2.1", "ports": None},
        "python": "/p",
        "source": "/s",
        "run_dir": "/r",
    }
    deployment = {"schema_version": 1, "run_id": "run", "is_detached": True, "parts": [part]}
    (paths.root / "deployment.json").write_text(json.dumps(deployment))
    write_rows(paths.trace, ROWS)
    assert read(LiveRun(paths)).liveness == "live"
    outdate(paths)
    view = read(LiveRun(paths))
    assert (view.liveness, view.status) == ("away", "detached")
    assert view.command.startswith("tianji fetch run")


def test_a_run_that_is_removed_stays_on_the_page(paths):
    write_rows(paths.trace, ROWS)
    run = LiveRun(paths)
    before = read(run)
    shutil.rmtree(paths.root)
    after = read(run)
    assert after.liveness == "over"
    assert "removed" in after.words
    assert after.figures.episodes == before.figures.episodes
    write_manifest(paths.root, manifest_of_run({"c": ["learner-0"]}))
    again = read(run)
    assert again.figures.episodes == 0
    assert [row.host for row in again.hosts] == ["c"]


def test_damaged_lines_are_told_and_the_rest_is_read(paths):
    write_rows(paths.trace, ROWS)
    with (paths.trace / "episodes.jsonl").open("ab") as file:
        file.write(b"damaged \xff\x1b[31m\n" * 100)
    (paths.trace / "ledger.jsonl").unlink()
    (paths.trace / "ledger.jsonl").mkdir()
    view = read(LiveRun(paths))
    assert view.figures.episodes > 0
    assert 1 <= len(view.problems) <= 10
    assert "\x1b" not in "".join(view.problems)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"hosts": 5}'])
def test_any_manifest_has_a_page(paths, data):
    paths.manifest.write_bytes(data)
    write_rows(paths.trace, ROWS)
    view = read(LiveRun(paths))
    assert msgspec.json.encode(view)
    if data not in (b"{}", b'{"hosts": 5}'):
        assert view.status == "unreadable"


def test_hostile_numbers_and_texts_have_a_page(paths):
    rows = [json.loads(msgspec.json.encode(row)) for row in ROWS]
    for i, row in enumerate(rows):
        row["t_s"] = (-1e11, 1e11, 0.0)[i % 3]
        for key, value in list(row.items()):
            if isinstance(value, int) and not isinstance(value, bool):
                row[key] = (2**53, -(2**53), 0)[i % 3]
            elif isinstance(value, float) and key != "t_s":
                row[key] = None
            elif isinstance(value, str) and key != "table":
                row[key] = HOSTILE
        with (paths.trace / f"{row['table']}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    assert len(msgspec.json.encode(read(LiveRun(paths)))) < 10**6


def test_a_run_of_a_thousand_roles_has_a_page_of_bounded_size(tmp_path):
    hosts = {f"host-{i}": [f"actor-{4 * i + k}" for k in range(4)] for i in range(500)}
    hosts["head"] = ["learner-0", "buffer-0", "coordinator"]
    paths = write_manifest(tmp_path / "run", manifest_of_run(hosts))
    assert len(msgspec.json.encode(read(LiveRun(paths)))) < 200_000


def test_documents_that_are_links_are_not_read(paths, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(manifest_of_run({"secret-host": ["learner-0"]}).data))
    paths.manifest.unlink()
    paths.manifest.symlink_to(secret)
    view = read(LiveRun(paths))
    assert view.status == "unreadable"
    assert "link" in view.words
    assert b"secret-host" not in msgspec.json.encode(view)


def test_logs_are_read_from_their_end_and_through_no_link(paths, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.log").write_text("PRIVATE")
    (paths.logs / "a").mkdir(parents=True)
    (paths.logs / "a/actor-0.log").write_text("".join(f"line {i}\n" for i in range(10**5)))
    (paths.logs / "a/odd.log").write_bytes(b"\x1b[31mred\xff " + b"x" * 10_000 + b"\nlast")
    (paths.logs / "a/key.log").symlink_to(secret / "key.log")
    (paths.logs / "b").symlink_to(secret)
    os.mkfifo(paths.logs / "a/pipe.log")
    assert [log.name for log in logs_of(paths)] == ["a/actor-0.log", "a/odd.log"]
    lines = tail_of(paths, "a/actor-0.log")
    assert len(lines) == TAIL_LINES
    assert lines[-1] == "line 99999"
    odd = tail_of(paths, "a/odd.log")
    assert odd[-1] == "last"
    assert odd[0].startswith("\\x1b[31mred")
    assert max(map(len, odd)) <= MAX_LINE
    for name in ("a/key.log", "b/key.log", "../manifest.json", "a/../../manifest.json", "a", "",
                 "a/none.log", "/etc/passwd", "a/pipe.log", "a/\0.log", "../x.log"):  # fmt: skip
        with pytest.raises(ConfigError):
            tail_of(paths, name)
    shutil.rmtree(paths.logs)
    paths.logs.symlink_to(tmp_path)
    assert logs_of(paths) == []
    with pytest.raises(ConfigError):
        tail_of(paths, "secret/key.log")


def test_a_trace_that_is_a_link_is_not_read(paths, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_rows(elsewhere, ROWS)
    paths.trace.rmdir()
    paths.trace.symlink_to(elsewhere)
    view = read(LiveRun(paths))
    assert view.figures.episodes == 0
    assert any("link" in problem for problem in view.problems)


def test_a_long_run_is_read_in_parts(paths, monkeypatch):
    monkeypatch.setattr(TableFollower.read, "__defaults__", (1000,))
    write_rows(paths.trace, ROWS)
    run = LiveRun(paths)
    assert run.advance()
    assert run.view().is_behind
    assert not read(run).is_behind


@pytest.mark.parametrize(
    ("status", "age_s", "liveness"),
    [
        ("ok", 0.0, "over"),
        ("failed", 0.0, "over"),
        ("interrupted", None, "over"),
        ("unfinished", FRESH_S / 2, "live"),
        ("unfinished", FRESH_S * 2, "silent"),
        ("unfinished", None, "silent"),
        ("detached", FRESH_S / 2, "live"),
        ("detached", FRESH_S * 2, "away"),
        ("unreadable", FRESH_S * 2, "silent"),
    ],
)
def test_whether_news_can_be_expected(status, age_s, liveness):
    row = RunRow(run_id="run", path="run", status=status)
    assert liveness_of(row, age_s) == liveness
    assert liveness_of(row, age_s, is_gone=True) == "over"


def test_a_run_that_starts_is_live_before_its_first_row(paths):
    assert read(LiveRun(paths)).liveness == "live"
