"""Which checkpoint `--resume` takes if its replay store was saved, and what it says of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import ConfigError
from engine.trace.checkpoint_file import read_info
from engine.trace.replay_file import read_replay_info
from tianji_cli.commands.run_request import UpRequest
from tianji_cli.commands.up import up
from tianji_cli.output import Output
from tianji_cli.runs.resume import ResumePoint, find_resume_point
from tianji_cli.storage.run_dir import RunPaths

SETTINGS = (
    *("policy=local", "stop.env_steps=2500", "checkpoint.replay=true", "checkpoint.every_s=0.05"),
    *("algorithm.min_replay_size=200", "stop.return_threshold=null", "checkpoint.keep=50"),
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a short run with several saved stores."""
    results = tmp_path_factory.mktemp("ended")
    request = UpRequest(None, "cartpole_dqn", SETTINGS, results, "run")
    assert up(request, Output(verbosity=-1)) == 0
    return results


@pytest.fixture
def results(ended: Path, tmp_path: Path) -> Path:
    shutil.copytree(ended, tmp_path / "results")
    return tmp_path / "results"


def versions(results: Path) -> list[int]:
    stores = (results / "run/checkpoints/replay-0").glob("v*.json")
    return sorted(read_replay_info(path).version for path in stores)


def point(results: Path) -> ResumePoint:
    found = find_resume_point(results, "run")
    return found.with_replays(found.experiment)


def test_the_newest_store_is_used_and_counts_best(results: Path):
    found = point(results)
    newest = versions(results)[-1]
    assert (found.info.version, found.resumed.replays) == (newest, {0: newest})
    store = found.replays[0]
    assert found.resumed.counters.env_steps_consumed == store.env_steps_consumed
    assert store.env_steps_consumed == store.limiter.inserted >= 2500
    assert f"replay store ({store.limiter.inserted:,} env steps)" in "\n".join(found.words())
    assert "filled again" not in "\n".join(found.words())


@pytest.mark.parametrize("damage", ["no-json", "changed", "no-rollouts"])
def test_without_a_whole_store_the_one_before_is_used_and_that_is_said(results: Path, damage: str):
    directory = results / "run/checkpoints/replay-0"
    *_, before, newest = versions(results)
    path = directory / f"v{newest:010d}.json"
    file = directory / read_replay_info(path).segments[-1].name
    if damage == "no-json":  # as a buffer that was killed while it was writing leaves it
        path.unlink()
    elif damage == "no-rollouts":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    found = point(results)
    assert found.info.version == before
    assert any(str(directory) in note and "not used" in note for note in found.notes)
    assert find_resume_point(results, "run").info.version == newest
    off = replace(found.experiment, checkpoint=replace(found.experiment.checkpoint, replay=False))
    assert find_resume_point(results, "run").with_replays(off).replays == {}


def test_without_any_store_the_newest_weights_are_used(results: Path):
    newest = versions(results)[-1]
    shutil.rmtree(results / "run/checkpoints/replay-0")
    found = point(results)
    assert (found.info.version, found.resumed.replays) == (newest, {})
    words = "\n".join(found.words())
    assert "no checkpoint with a complete replay store" in words
    assert "filled again (200 env steps first)" in words


def test_other_numbers_of_environments_need_another_store(results: Path):
    found = point(results)
    experiment = found.experiment
    stop = replace(experiment.stop, env_steps=9000)
    wider = replace(experiment, stop=stop, env=replace(experiment.env, num_envs=5))
    with pytest.raises(ConfigError, match="rollouts of the saved replay store have 4") as caught:
        found.check(wider)
    assert caught.value.where == "env.num_envs"
    find_resume_point(results, "run").check(wider)


def test_the_new_run_has_all_files_and_shares_them(results: Path):
    found, new = point(results), RunPaths(results / "new")
    new.checkpoints.mkdir(parents=True)
    found.copy_to(new)
    (copied,) = (new.checkpoints / "replay-0").glob("v*.json")
    info = read_replay_info(copied)
    for name, size in info.sizes.items():
        assert (copied.parent / name).stat().st_size == size
        assert (copied.parent / name).stat().st_nlink == 2
    assert read_info(new.checkpoints / copied.name).version == info.version
