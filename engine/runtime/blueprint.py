"""A checked experiment, ready to run: algorithm, layouts, sizes. Every process has the same."""

from __future__ import annotations

from dataclasses import dataclass

from engine.algorithms.base import Algorithm
from engine.algorithms.flat import flatten
from engine.algorithms.registry import make_algorithm
from engine.envs.make import make_vector_env, spaces_of
from engine.errors import ConfigError
from engine.extensions import import_modules
from engine.rollout import Field, Layout
from engine.spec import Experiment
from engine.wire.codec import WeightsLayout

STEP_FIELDS = (
    Field("reward", "float32"),
    Field("terminated", "bool"),
    Field("truncated", "bool"),
    Field("valid", "bool"),
)
"""What every rollout holds beside the algorithm's own fields."""


@dataclass(frozen=True)
class Blueprint:
    """What all roles of a run agree on.

    Attributes:
        experiment: The run.
        algorithm: Made from it.
        layout: Of a rollout.
        weights: Of the flat parameters.
        rollouts_per_batch: Rollouts that one batch is made of.
    """

    experiment: Experiment
    algorithm: Algorithm
    layout: Layout
    weights: WeightsLayout
    rollouts_per_batch: int


def make_blueprint(experiment: Experiment) -> Blueprint:
    """Makes an environment once to learn its spaces, and works everything out from them.

    Raises:
        ConfigError: A module, the environment, the algorithm or a size cannot be used; `where`
            is the dotted key.
    """
    import_modules(experiment.modules)
    env = make_vector_env(experiment.env)
    try:
        algorithm = make_algorithm(experiment, spaces_of(env))
    finally:
        env.close()
    samples = algorithm.samples()
    layout = Layout((*samples.fields, *STEP_FIELDS), samples.rollout_steps, experiment.env.num_envs)
    rollout_steps = layout.num_steps * layout.num_envs
    if samples.batch_steps % rollout_steps:
        raise ConfigError(
            f"{samples.batch_steps} is not a multiple of a rollout's {rollout_steps} steps"
            f" ({layout.num_steps} steps of {layout.num_envs} environments)",
            where="algorithm.batch_steps",
            fix=f"try {-(-samples.batch_steps // rollout_steps) * rollout_steps}",
        )
    weights = flatten(algorithm.network())
    return Blueprint(
        experiment,
        algorithm,
        layout,
        WeightsLayout(weights.num_bytes, weights.digest),
        samples.batch_steps // rollout_steps,
    )
