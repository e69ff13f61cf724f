"""A run in one process keeps its best checkpoint, with the return of an evaluation that it made."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.spec import CheckpointSpec, EvaluationSpec, StopSpec
from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.checkpoint_file import read_info
from engine.trace.reader import read_table
from engine.trace.records import Episode, Evaluation
from tests.helpers.engine.inline_runs import run
from tests.helpers.engine.small_learners import experiment


def test_the_best_is_kept_with_the_return_of_its_evaluation(tmp_path: Path):
    wanted = msgspec.structs.replace(
        experiment("ppo"),
        stop=StopSpec(env_steps=3000),
        evaluation=EvaluationSpec(episodes=2, every_s=None, every_versions=1),
        checkpoint=CheckpointSpec(every_s=0.01, keep=1, keep_best=1),
    )
    result = run(tmp_path, wanted)
    evaluated = {row.version: row.return_mean for row in read_table(result.trace, Evaluation)}
    best, last = (choose_checkpoint(tmp_path / "checkpoints", which) for which in ("best", "last"))
    kept = {read_info(path).version for path in (tmp_path / "checkpoints").glob("v*.json")}
    assert kept == {best.info.version, last.info.version}
    for info in (best.info, last.info):
        assert info.return_judge == "evaluation"
        assert info.return_version is not None
        assert info.return_version <= info.version
        assert info.return_mean == evaluated[info.return_version]
    assert best.info.known_return is not None
    assert last.info.known_return is not None
    assert best.info.known_return.mean >= last.info.known_return.mean


def test_without_evaluations_the_last_one_has_the_mean_of_the_last_episodes(tmp_path: Path):
    wanted = msgspec.structs.replace(
        experiment("ppo"), stop=StopSpec(env_steps=2000, return_window=5)
    )
    result = run(tmp_path, wanted)
    info = choose_checkpoint(tmp_path / "checkpoints", "last").info
    returns = [row.episode_return for row in read_table(result.trace, Episode)]
    assert info.return_judge == "training"
    assert any(
        info.return_mean == sum(returns[end - 5 : end]) / 5 for end in range(5, len(returns) + 1)
    )
