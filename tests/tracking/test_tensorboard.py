"""TensorBoard's own reader finds what the trace says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.synthetic_run import write_rows, write_synthetic_run
from tests.helpers.tracked import (
    Points,
    as_float32,
    tensorboard_points,
    traced_points,
    track_whole,
)
from tianji_cli.analysis.run import read_manifest
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.tracking.facts import facts_of
from tianji_cli.tracking.process import Tracking
from tianji_cli.tracking.state import StateFile, make_directory

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return write_synthetic_run(tmp_path / "results" / "run")


def agree(found: Points, traced: Points) -> None:
    assert len(traced) >= 7
    assert {name: found[name] for name in traced} == as_float32(traced)


def event_files(paths: RunPaths) -> list[str]:
    return sorted(p.name for p in (paths.tracking / "tensorboard").glob("events.out.tfevents.*"))


def test_the_event_file_equals_the_trace(paths: RunPaths):
    state = track_whole(paths, "tensorboard")
    found = tensorboard_points(paths.root)
    agree(found, traced_points(paths.root))
    assert state.state == "complete"
    assert (state.rows["episodes"], state.rows["consumption"]) == (480, 120)
    of_rows = {name: values for name, values in found.items() if not name.startswith("summary/")}
    assert state.values == sum(map(len, of_rows.values()))
    assert found["summary/return_mean"] == [(96096, pytest.approx(494.77))]
    assert found["summary/lag.max"] == [(96096, 1.0)]


def test_wall_time_is_that_of_the_run(paths: RunPaths):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track_whole(paths, "tensorboard")
    events = EventAccumulator(str(paths.tracking / "tensorboard"))
    events.Reload()
    first = events.Scalars("charts/episodic_return")[0]
    origin_s = facts_of("run", read_manifest(paths.manifest)).origin_unix_s
    assert first.wall_time == pytest.approx(origin_s + 0.04)
    assert origin_s == 1769903999.0


def test_tracked_again_nothing_is_there_twice(paths: RunPaths):
    track_whole(paths, "tensorboard")
    (former,) = event_files(paths)
    track_whole(paths, "tensorboard")
    (now,) = event_files(paths)
    assert now > former
    agree(tensorboard_points(paths.root), traced_points(paths.root))


def test_after_a_tracker_was_killed_the_next_one_leaves_no_gap_and_no_double(paths: RunPaths):
    """Killed between two writes: its file ends in the middle of a record."""
    make_directory(paths, "tensorboard")
    track_whole(paths, "tensorboard")
    (former,) = event_files(paths)
    file = paths.tracking / "tensorboard" / former
    file.write_bytes(file.read_bytes()[:-5])
    track_whole(paths, "tensorboard")
    agree(tensorboard_points(paths.root), traced_points(paths.root))


def test_a_run_that_grows_is_followed(tmp_path: Path):
    from tests.helpers.synthetic_run import make_trace
    from tianji_cli.tracking.sinks import make_sink

    paths = write_synthetic_run(tmp_path / "results" / "run", num_batches=1, has_summary=False)
    for table in paths.trace.iterdir():
        table.unlink()
    rows = make_trace(1.0, None, 30).rows
    make_directory(paths, "tensorboard")
    facts = facts_of("run", read_manifest(paths.manifest))
    file = StateFile(paths, "tensorboard")
    tracking = Tracking(paths, facts, make_sink("tensorboard", paths), file)
    for begin in range(0, len(rows), 37):
        write_rows(paths.trace, rows[begin : begin + 37])
        assert not tracking.advance()
        tensorboard_points(paths.root)  # as somebody does who looks meanwhile
    tracking.finish()
    assert file.state.state == "partial", "there is no summary"
    found, traced = tensorboard_points(paths.root), traced_points(paths.root)
    for name in ("charts/episodic_return", "losses/loss", "staleness/lag_mean"):
        assert found[name] == as_float32(traced)[name]


def test_settings_seed_and_commit_go_along(paths: RunPaths):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    track_whole(paths, "tensorboard")
    events = EventAccumulator(str(paths.tracking / "tensorboard"))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["algorithm.name"].string_value == "ppo"
    assert settings["stop.return_threshold"].number_value == 450.0
    words = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in ("hyperparameters", "run", "summary/words")
    }
    assert "|env.num_envs|8|" in words["hyperparameters"]
    assert "|git_commit|0123456789abcdef0123456789abcdef01234567|" in words["run"]
    assert "|seed|7|" in words["run"]
    assert "|status|ok|" in words["summary/words"]
