"""Reading traces back: typed, tolerant of a crash, strict about everything else."""

from __future__ import annotations

import gzip
import math
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.trace import reader
from engine.trace.reader import read_summary, read_table
from engine.trace.records import (
    RECORD_TYPES,
    Consumption,
    Evaluation,
    Ledger,
    Merge,
    Profile,
    Replay,
    Staleness,
    table_of,
)
from engine.trace.summary import SCHEMA_VERSION
from tests.helpers.synthetic_run import make_trace, write_rows, write_synthetic_run

LEDGER = b'{"table":"ledger","t_s":1.0,"collected":4,"consumed":2,"dropped":1,"in_flight":1}\n'


MERGE = Merge(
    t_s=1.0,
    group=1,
    version=4,
    lag=2,
    lag_max=2,
    versions={0: 6, 1: 4},
    shares={0: 0.75, 1: 0.25},
    merges_total=9,
)
REPLAY = Replay(
    t_s=1.0,
    buffer=0,
    env_steps=64,
    env_steps_total=128,
    samples=512,
    samples_total=1024,
    size_env_steps=100,
    replay_ratio=8.0,
    sample_age_mean_s=2.5,
    sample_age_max_s=4.0,
)
PROFILE = Profile(
    t_s=1.0,
    role="actor-0",
    process="actor-0",
    wall_s=0.5,
    cpu_s=0.4,
    process_cpu_s=0.4,
    sections_s={"environment": 0.3, "wait": 0.2},
)

EVALUATION = Evaluation(
    t_s=1.0,
    evaluator=0,
    version=3,
    episodes=2,
    return_mean=1.5,
    return_min=1.0,
    return_max=2.0,
    length_mean_env_steps=10.0,
    evaluate_s=0.5,
)


def ledger_file(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "ledger.jsonl").write_bytes(content)
    return tmp_path


def test_every_table_comes_back_as_it_was_written(tmp_path: Path):
    made = make_trace(speed=1.0, threshold=450.0, num_batches=3).rows
    rows = [*made, REPLAY, MERGE, EVALUATION, PROFILE]
    write_rows(tmp_path, rows)
    for record_type in RECORD_TYPES:
        wanted = [row for row in rows if type(row) is record_type]
        assert wanted, f"the synthetic run has no row of {table_of(record_type)}"
        assert read_table(tmp_path, record_type) == wanted


def test_a_table_that_was_never_written_is_empty(tmp_path: Path):
    assert read_table(tmp_path, Ledger) == []
    assert read_table(ledger_file(tmp_path, b""), Ledger) == []


@pytest.mark.parametrize("num_bytes", range(1, len(LEDGER) - 1))
def test_a_last_line_cut_anywhere_is_skipped(tmp_path: Path, num_bytes: int):
    assert len(read_table(ledger_file(tmp_path, LEDGER + LEDGER[:num_bytes]), Ledger)) == 1


def test_a_last_line_of_zeros_after_a_power_cut_is_skipped(tmp_path: Path):
    assert len(read_table(ledger_file(tmp_path, LEDGER + bytes(100)), Ledger)) == 1


def test_a_complete_last_line_without_newline_counts(tmp_path: Path):
    assert len(read_table(ledger_file(tmp_path, LEDGER + LEDGER.rstrip()), Ledger)) == 2


@pytest.mark.parametrize(
    "bad",
    [
        b"{oops\n",
        b"\n",
        b"\xff\xfe\n",
        LEDGER.replace(b"4", b'"four"'),
        LEDGER.replace(b"4", b"null"),
        LEDGER.replace(b"ledger", b"episodes"),
    ],
)
def test_any_other_bad_line_is_named(tmp_path: Path, bad: bytes):
    directory = ledger_file(tmp_path, LEDGER + bad + LEDGER)
    with pytest.raises(ConfigError) as caught:
        read_table(directory, Ledger)
    assert caught.value.where == f"{directory / 'ledger.jsonl'}:2"
    assert caught.value.fix


def test_fields_of_a_newer_writer_are_ignored(tmp_path: Path):
    content = LEDGER.replace(b'"t_s"', b'"queued_at":"box1","t_s"')
    assert read_table(ledger_file(tmp_path, content), Ledger)[0].collected == 4


def test_a_diverged_loss_comes_back_as_nan(tmp_path: Path):
    rows = make_trace(speed=1.0, threshold=None, num_batches=1).rows
    consumption = next(row for row in rows if isinstance(row, Consumption))
    staleness = next(row for row in rows if isinstance(row, Staleness))
    write_rows(
        tmp_path,
        [
            msgspec.structs.replace(consumption, metrics={"loss": math.nan, "entropy": 0.5}),
            msgspec.structs.replace(staleness, age_max_s=math.inf),
        ],
    )
    (row,) = read_table(tmp_path, Consumption)
    assert math.isnan(row.metrics["loss"])
    assert row.metrics["entropy"] == 0.5
    (stale,) = read_table(tmp_path, Staleness)
    assert math.isnan(stale.age_max_s)
    assert stale.steps_by_lag == staleness.steps_by_lag


def test_a_packed_table_that_stands_for_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What comes out is bounded, in one line and in all; a small file can stand for gigabytes."""
    monkeypatch.setattr(reader, "MAX_UNPACKED_BYTES", 2**20)
    path = tmp_path / "ledger.jsonl.gz"
    path.write_bytes(gzip.compress(LEDGER * (2**20 // len(LEDGER))))
    assert len(read_table(tmp_path, Ledger)) == 2**20 // len(LEDGER)
    path.write_bytes(gzip.compress(LEDGER * 2**17))
    with pytest.raises(ConfigError, match="1 MiB come out"):
        read_table(tmp_path, Ledger)
    bomb = gzip.compress(bytes(reader.MAX_LINE_BYTES + 2**20))
    assert len(bomb) < 2**15
    path.write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(ConfigError, match="is not a row") as caught:
        read_table(tmp_path, Ledger)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.where == f"{path}:1"
    assert peak_bytes < 4 * reader.MAX_LINE_BYTES


def test_a_summary_comes_back(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run")
    summary = read_summary(paths.summary)
    assert summary is not None
    assert msgspec.json.encode(summary) == paths.summary.read_bytes()


def test_a_missing_summary_is_none(tmp_path: Path):
    assert read_summary(tmp_path / "summary.json") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"run_id": 3}', b"\xff"])
def test_a_damaged_summary_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_summary(path)
    assert caught.value.where == str(path)


def test_a_summary_of_a_newer_version_is_refused(tmp_path: Path):
    path = tmp_path / "summary.json"
    path.write_text(f'{{"schema_version": {SCHEMA_VERSION + 1}}}')
    with pytest.raises(ConfigError, match="newer"):
        read_summary(path)
