"""A follower takes in what was appended to a trace table, each row once, whatever becomes of it."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.trace.reader import MAX_LINE_BYTES, read_table
from engine.trace.records import Episode, Event
from engine.trace.writer import TraceWriter
from tests.helpers.running import no_new_descriptor
from tianji_cli.storage.follow import PACKED_ROWS, TableFollower, last_rows
from tianji_cli.storage.safe_files import open_inside


def episode(number: int) -> Episode:
    return Episode(
        t_s=float(number), actor=0, episode_return=float(number), length_env_steps=1, version=0
    )


def line(number: int) -> bytes:
    return (
        b'{"table":"episodes","t_s":%d.0,"actor":0,"episode_return":%d.0,'
        b'"length_env_steps":1,"version":0}\n' % (number, number)
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "trace").mkdir()
    return tmp_path


@pytest.fixture
def table(run: Path) -> Path:
    return run / "trace/episodes.jsonl"


def append(table: Path, data: bytes) -> None:
    with table.open("ab") as file:
        file.write(data)


def test_rows_come_once_and_in_order(run, table):
    follower = TableFollower(run, Episode)
    assert follower.read().rows == []
    append(table, line(1) + line(2))
    assert follower.read().rows == [episode(1), episode(2)]
    assert follower.read().rows == []
    append(table, line(3))
    found = follower.read()
    assert found.rows == [episode(3)]
    assert (found.is_restarted, found.is_behind, found.problem) == (False, False, "")


def test_a_line_is_read_once_it_is_complete(run, table):
    follower = TableFollower(run, Episode)
    append(table, line(1) + line(2)[:10])
    assert follower.read().rows == [episode(1)]
    assert follower.read().rows == []
    append(table, line(2)[10:-1])
    assert follower.read().rows == []
    append(table, b"\n")
    assert follower.read().rows == [episode(2)]


def test_what_was_appended_is_all_that_is_read(run, table, monkeypatch):
    append(table, b"".join(map(line, range(1000))))
    follower = TableFollower(run, Episode)
    follower.read()
    append(table, line(1000))
    read: list[int] = []
    inner = follower._take
    monkeypatch.setattr(
        follower, "_take", lambda data, found: (read.append(len(data)), inner(data, found))
    )
    assert follower.read().rows == [episode(1000)]
    assert follower.read().rows == []
    assert read == [len(line(1000))]


def test_a_long_table_comes_in_parts(run, table):
    append(table, b"".join(map(line, range(100))))
    follower = TableFollower(run, Episode)
    rows, num_reads = [], 0
    while True:
        found = follower.read(max_bytes=1000)
        rows += found.rows
        num_reads += 1
        if not found.is_behind:
            break
    assert rows == [episode(number) for number in range(100)]
    assert num_reads > 5


def test_nulls_come_back_as_nan(run, table):
    append(table, line(1).replace(b'"episode_return":1.0', b'"episode_return":null'))
    (row,) = TableFollower(run, Episode).read().rows
    assert math.isnan(row.episode_return)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_table_that_was_cut_begins_again(run, table, kept):
    follower = TableFollower(run, Episode)
    append(table, b"".join(map(line, range(3))))
    assert len(follower.read().rows) == 3
    os.truncate(table, kept * len(line(0)))
    found = follower.read()
    assert found.is_restarted
    assert found.rows == [episode(number) for number in range(kept)]


def test_a_table_that_was_cut_and_has_grown_beyond_begins_again(run, table):
    follower = TableFollower(run, Episode)
    append(table, line(1) + line(2))
    follower.read()
    os.truncate(table, 0)
    append(table, line(7) + line(8) + line(9))
    found = follower.read()
    assert found.is_restarted
    assert found.rows == [episode(7), episode(8), episode(9)]


def test_another_file_in_its_place_begins_again(run, table):
    follower = TableFollower(run, Episode)
    append(table, line(1))
    follower.read()
    other = table.with_name("other")
    append(other, line(1) + line(5))
    other.replace(table)
    found = follower.read()
    assert found.is_restarted
    assert found.rows == [episode(1), episode(5)]


def test_a_table_that_is_gone_has_no_new_rows(run, table):
    follower = TableFollower(run, Episode)
    append(table, line(1))
    follower.read()
    table.unlink()
    found = follower.read()
    assert (found.rows, found.is_restarted, found.problem) == ([], False, "")
    table.parent.rmdir()
    assert follower.read().rows == []


def test_damaged_lines_are_counted_and_others_read(run, table):
    append(table, line(1) + b"not json\n" + b'{"table":"episodes"}\n' + b"\xff\0\n" + line(2))
    found = TableFollower(run, Episode).read()
    assert found.rows == [episode(1), episode(2)]
    assert found.num_damaged == 3
    assert str(table) in found.problem


def test_a_line_without_end_is_stepped_over(run, table):
    with table.open("wb") as file:
        file.write(line(1))
        file.truncate(len(line(1)) + 2 * MAX_LINE_BYTES)
    follower = TableFollower(run, Episode)
    found = follower.read()
    rows, num_damaged = found.rows, found.num_damaged
    while found.is_behind:
        found = follower.read()
        num_damaged += found.num_damaged
    append(table, b"\n" + line(2))
    rows += follower.read().rows
    assert rows == [episode(1), episode(2)]
    assert num_damaged == 1


def test_a_compressed_table_is_read_once(run, table):
    num_rows = PACKED_ROWS + 5
    with gzip.open(f"{table}.gz", "wb") as file:
        file.write(b"".join(map(line, range(num_rows))))
    follower = TableFollower(run, Episode)
    first = follower.read()
    assert first.is_behind
    rows = first.rows + follower.read().rows
    assert rows == read_table(table.parent, Episode)
    assert len(rows) == num_rows
    assert follower.read().rows == []


def test_a_table_that_is_compressed_meanwhile_begins_again(run, table):
    follower = TableFollower(run, Episode)
    append(table, line(1))
    follower.read()
    with gzip.open(f"{table}.gz", "wb") as file:
        file.write(line(1))
    table.unlink()
    found = follower.read()
    assert found.is_restarted
    assert found.rows == [episode(1)]


def test_rows_before_the_damage_of_a_compressed_table_are_kept(run, table):
    with gzip.open(f"{table}.gz", "wb") as file:
        file.write(line(1) + b"not json\n" + line(2))
    found = TableFollower(run, Episode).read()
    assert found.rows == [episode(1)]
    assert "not a row" in found.problem


def test_no_link_leads_elsewhere(run, table, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    append(elsewhere / "episodes.jsonl", line(1))
    table.symlink_to(elsewhere / "episodes.jsonl")
    found = TableFollower(run, Episode).read()
    assert found.rows == []
    assert "a link is not followed" in found.problem
    table.unlink()
    table.parent.rmdir()
    table.parent.symlink_to(elsewhere)
    found = TableFollower(run, Episode).read()
    assert found.rows == []
    assert "a link is not followed" in found.problem


def test_a_pipe_blocks_nothing(run, table):
    os.mkfifo(table)
    found = TableFollower(run, Episode).read()
    assert "not a regular file" in found.problem
    table.unlink()
    append(table, line(1))
    assert len(TableFollower(run, Episode).read().rows) == 1


def test_no_descriptor_stays_open(run, table):
    append(table, line(1))
    (run / "trace/events.jsonl").mkdir()
    with no_new_descriptor():
        for record_type in (Episode, Event):
            TableFollower(run, record_type).read()


def test_the_root_may_be_a_link_but_names_do_not_lead_out(run, table, tmp_path_factory):
    append(table, line(1))
    link = tmp_path_factory.mktemp("links") / "run"
    link.symlink_to(run)
    with open_inside(link, "trace/episodes.jsonl") as file:
        assert file.read() == line(1)
    for name in ("../x", "/etc/passwd", "", "trace/../../x"):
        with pytest.raises(ConfigError):
            open_inside(link, name)
    with pytest.raises(FileNotFoundError):
        open_inside(link, "trace/none")


@given(st.lists(st.integers(1, 400), max_size=30), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_any_way_of_growing_gives_the_rows_of_the_table(tmp_path_factory, cuts, num_rows):
    run = tmp_path_factory.mktemp("run")
    (run / "trace").mkdir()
    with TraceWriter(run / "trace") as writer:
        writer.write(episode(number) for number in range(num_rows))
    table = run / "trace/episodes.jsonl"
    data = table.read_bytes()
    table.write_bytes(b"")
    follower, rows = TableFollower(run, Episode), []
    for cut in (*cuts, len(data)):
        append(table, data[:cut])
        data = data[cut:]
        found = follower.read(max_bytes=300)
        rows += found.rows
        assert not found.is_restarted
    while found.is_behind:
        found = follower.read(max_bytes=300)
        rows += found.rows
    assert rows == read_table(run / "trace", Episode)


def test_the_end_of_a_table_is_read_without_the_rest(run, table):
    assert last_rows(run, Episode) == []
    append(table, b"".join(map(line, range(100))) + b"damaged\n" + line(100) + line(101)[:9])
    assert last_rows(run, Episode) == [episode(number) for number in range(101)]
    few = last_rows(run, Episode, max_bytes=5 * len(line(100)))
    assert [row.t_s for row in few] == [97.0, 98.0, 99.0, 100.0]
    table.unlink()
    table.symlink_to("/etc/passwd")
    assert last_rows(run, Episode) == []
