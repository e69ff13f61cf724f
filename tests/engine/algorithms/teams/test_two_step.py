"""The two-step game of Rashid et al. (2018): QMIX finds the 8, a sum of values settles for 7."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.spec import Experiment
from engine.trace.reader import read_table
from engine.trace.records import Evaluation
from tests.helpers.engine.learning_runs import run_inline
from tests.helpers.paths import REPOSITORY

EVERY_SEED = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]


def experiment(name: str, seed: int) -> Experiment:
    found, _ = load_experiment(REPOSITORY / f"experiments/{name}.yaml")
    return msgspec.structs.replace(found, seed=seed)


def evaluations(directory: Path) -> list[float]:
    return [row.return_mean for row in read_table(directory / "trace", Evaluation)]


@pytest.mark.parametrize("seed", EVERY_SEED)
def test_qmix_finds_the_best_return(seed: int, tmp_path: Path) -> None:
    summary = run_inline(experiment("two_step_qmix", seed), tmp_path)
    assert summary.stop_reason == "return_threshold"
    assert evaluations(tmp_path)[-10:] == [8.0] * 10


@pytest.mark.parametrize("seed", EVERY_SEED)
def test_vdn_settles_for_seven(seed: int, tmp_path: Path) -> None:
    wanted = experiment("two_step_vdn", seed)
    eight = msgspec.structs.replace(wanted.stop, return_threshold=8.0, env_steps=4000)
    summary = run_inline(msgspec.structs.replace(wanted, stop=eight), tmp_path)
    assert summary.stop_reason == "env_steps"
    assert evaluations(tmp_path)[-10:] == [7.0] * 10
