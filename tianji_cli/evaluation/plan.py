"""Which episodes an evaluation plays, and in which groups. Pure.

A group steps together, in one vector environment: as many episodes as the run's own evaluator
plays. So the first group is an evaluation of the run, episode by episode. Groups do not depend on
the number of processes, and neither do their results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from engine.config.yaml_text import parse_text
from engine.errors import ConfigError
from engine.spec import EvaluationSpec, Experiment, Scalar

MAX_EPISODES = 10_000
MAX_SEED = 2**31 - 1 - MAX_EPISODES
"""Some environments keep seeds in 32 bits."""


class EpisodeGroup(msgspec.Struct, frozen=True):
    """Episodes that step together.

    Attributes:
        first: Number of the first one.
        count: How many.
    """

    first: int
    count: int


class EvaluationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What determines the outcome of an evaluation, beside the checkpoint.

    Attributes:
        episodes: How many.
        seed: Episode i starts from seed + i.
        group_size: Episodes that step together.
        is_sampled: Whether actions are sampled as in training.
        max_env_steps: Longer episodes end there.
        env_kwargs: Arguments of the environment that replace those of the run.
    """

    episodes: int
    seed: int
    group_size: int
    is_sampled: bool
    max_env_steps: int
    env_kwargs: dict[str, Scalar]

    @property
    def groups(self) -> list[EpisodeGroup]:
        """All of them; the last one can be smaller.

        >>> settings = EvaluationSettings(
        ...     episodes=5, seed=0, group_size=2, is_sampled=False, max_env_steps=1, env_kwargs={}
        ... )
        >>> [group.count for group in settings.groups]
        [2, 2, 1]
        """
        return [
            EpisodeGroup(first, min(self.group_size, self.episodes - first))
            for first in range(0, self.episodes, self.group_size)
        ]

    def name(self, version: int) -> str:
        """Of the files of an evaluation: other settings have another name.

        >>> settings = EvaluationSettings(
        ...     episodes=5, seed=7, group_size=2, is_sampled=True, max_env_steps=1, env_kwargs={}
        ... )
        >>> settings.name(120)
        'v120-seed7-5-sampled-c8cd87'
        """
        sampled = "-sampled" if self.is_sampled else ""
        digest = hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
        return f"v{version}-seed{self.seed}-{self.episodes}{sampled}-{digest[:6]}"


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None: as the run's own evaluations have it.

    Attributes:
        episodes, is_sampled, max_env_steps, env_kwargs: See `EvaluationSettings`.
        seed: See there.
    """

    episodes: int
    is_sampled: bool
    max_env_steps: int
    env_kwargs: Mapping[str, Scalar]
    seed: int | None = None

    def settings(self, experiment: Experiment) -> EvaluationSettings:
        """For the policy of one experiment."""
        own = experiment.evaluation or EvaluationSpec()
        return EvaluationSettings(
            episodes=self.episodes,
            seed=default_seed(experiment) if self.seed is None else self.seed,
            group_size=min(own.episodes, self.episodes),
            is_sampled=self.is_sampled,
            max_env_steps=self.max_env_steps,
            env_kwargs=dict(self.env_kwargs),
        )


def default_seed(experiment: Experiment) -> int:
    """That of the run's own evaluations, which training does not use."""
    return (experiment.evaluation or EvaluationSpec()).seed


def check_seed(seed: int | None) -> None:
    """Raises ConfigError for a seed that environments cannot be given."""
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"a seed is from 0 to {MAX_SEED}", where=f"--seed {seed}")


def parse_env_kwargs(words: Sequence[str]) -> dict[str, Scalar]:
    """`K=V` words of `--env-kwargs`; values are read as YAML, as those of `-s` are.

    Raises:
        ConfigError: A word is none, or its value is no single one.

    >>> parse_env_kwargs(["difficulty=2", "mode=null", "name=a"])
    {'difficulty': 2, 'mode': None, 'name': 'a'}
    """
    found: dict[str, Scalar] = {}
    for word in words:
        key, equals, text = word.partition("=")
        where = f"--env-kwargs {word}"
        if not equals or not key.strip():
            raise ConfigError(
                "not of the form KEY=VALUE", where=where, fix="--env-kwargs difficulty=1"
            )
        value = parse_text(text, source=where).value
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"a single value is needed, not a {type(value).__name__}", where=where
            )
        found[key.strip()] = value
    return found
