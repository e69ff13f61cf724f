"""What changes over a run, and what a schedule needs."""

from __future__ import annotations

import msgspec
import pytest
import torch

from engine.algorithms.registry import make_algorithm
from engine.algorithms.schedules import beside, factor, linear
from engine.errors import ConfigError
from engine.spec import Scalar, StalenessSpec, StopSpec
from engine.testing import discrete_spaces, make_experiment


def test_a_schedule_is_linear_in_progress():
    assert [linear(4.0, 1.0, progress) for progress in (0.0, 0.5, 1.0)] == [4.0, 2.5, 1.0]
    assert linear(4.0, None, 0.5) == 4.0
    assert factor(0.3, 0.0, 0.25) == pytest.approx(0.75)
    assert factor(0.3, None, 0.25) == 1.0


def test_numbers_beside_samples_have_their_shape_and_type():
    numbers = beside(torch.zeros(2, 3, dtype=torch.float64), {"clip_range": 0.25})
    torch.testing.assert_close(numbers["clip_range"], torch.full((2, 3), 0.25, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((name, "learning_rate_final") for name in ("ppo", "impala")),
        *((name, "entropy_coefficient_final") for name in ("ppo", "impala")),
        ("ppo", "clip_range_final"),
        *((name, "epsilon_decay_fraction") for name in ("dqn", "apex")),
        ("dqn", "importance_exponent_final"),
    ],
)
def test_a_schedule_over_the_run_needs_a_number_of_env_steps(name: str, key: str):
    algorithm: dict[str, Scalar] = {"name": name, key: 0.01}
    experiment = msgspec.structs.replace(
        make_experiment(stop=StopSpec(seconds=5.0)),
        algorithm=algorithm,
        staleness=StalenessSpec(mode="unbounded"),
    )
    with pytest.raises(ConfigError, match=rf"{key} is reached over stop\.env_steps") as error:
        make_algorithm(experiment, discrete_spaces())
    assert (error.value.where, error.value.fix) == (f"algorithm.{key}", "set stop.env_steps")
    limited = msgspec.structs.replace(experiment, stop=StopSpec(env_steps=1000))
    assert make_algorithm(limited, discrete_spaces()).samples().follows_progress == (key,)
