"""Names to algorithms. A new algorithm is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.algorithms.base import Algorithm, Spaces
from engine.algorithms.dqn import ApexConfig, DqnConfig
from engine.algorithms.impala import Impala, ImpalaConfig
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import PpoConfig
from engine.algorithms.recurrent_dqn import make_dqn
from engine.algorithms.sac import Sac, SacConfig
from engine.algorithms.td3 import DdpgConfig, Td3, Td3Config
from engine.algorithms.teams.ippo import Ippo, IppoConfig
from engine.algorithms.teams.maddpg import Maddpg, MaddpgConfig
from engine.algorithms.teams.mappo import Mappo, MappoConfig
from engine.algorithms.teams.qmix import Qmix, QmixConfig
from engine.algorithms.teams.vdn import Vdn, VdnConfig
from engine.blame import blamed
from engine.config.config_file import Document, convert_part, suggest
from engine.errors import ConfigError
from engine.spec import Experiment, Scalar, Spec


@dataclass(frozen=True)
class Entry:
    """An algorithm's hyperparameters and how to make it; and whether it is for several agents."""

    config: type[Spec]
    make: Callable[..., Algorithm]
    for_teams: bool = False


ALGORITHMS: dict[str, Entry] = {
    "ppo": Entry(PpoConfig, Ppo),
    "impala": Entry(ImpalaConfig, Impala),
    "dqn": Entry(DqnConfig, make_dqn),
    "apex": Entry(ApexConfig, make_dqn),
    "sac": Entry(SacConfig, Sac),
    "td3": Entry(Td3Config, Td3),
    "ddpg": Entry(DdpgConfig, Td3),
    "ippo": Entry(IppoConfig, Ippo, for_teams=True),
    "mappo": Entry(MappoConfig, Mappo, for_teams=True),
    "maddpg": Entry(MaddpgConfig, Maddpg, for_teams=True),
    "vdn": Entry(VdnConfig, Vdn, for_teams=True),
    "qmix": Entry(QmixConfig, Qmix, for_teams=True),
}


def register_algorithm(
    name: str, config: type[Spec], make: Callable[..., Algorithm], *, for_teams: bool = False
) -> None:
    """Registers an algorithm under the name for `algorithm.name`.

    Args:
        name: Not yet taken.
        config: Its hyperparameters; every field is a key of the experiment's `algorithm`.
        make: Called as `make(config, network_spec, spaces)`.
        for_teams: Whether it is for environments of several agents, and for no others.

    Raises:
        ConfigError: The name is taken.
    """
    if name in ALGORITHMS:
        raise ConfigError(f"an algorithm {name!r} exists already", where="modules")
    ALGORITHMS[name] = Entry(config, make, for_teams)


def make_algorithm(experiment: Experiment, spaces: Spaces) -> Algorithm:
    """Makes the algorithm that an experiment names, from checked hyperparameters.

    Raises:
        ConfigError: Unknown name, unknown or impossible hyperparameter, unsuitable spaces, or a
            method of the contract is missing.
    """
    entry = _entry(experiment)
    config, name = read_config(experiment), experiment.algorithm_name
    _check_team(name, entry, spaces)
    with blamed(f"{name} cannot be made", where="algorithm.name"):
        algorithm = entry.make(config, experiment.network, spaces)
    _check_methods(experiment.algorithm_name, algorithm)
    _check_staleness(experiment, algorithm)
    _check_diagnostics(experiment, config)
    _check_schedules(experiment, algorithm)
    _check_units(experiment, algorithm)
    _check_replay(experiment, algorithm)
    return algorithm


def _check_team(name: str, entry: Entry, spaces: Spaces) -> None:
    """Checks that the algorithm is for as many agents as there are."""
    if entry.for_teams == (spaces.team is not None):
        return
    fitting = ", ".join(one for one, known in ALGORITHMS.items() if known.for_teams)
    if spaces.team is None:
        raise ConfigError(
            f"{name} is for several agents; the environment has one",
            where="algorithm.name",
            fix="use an algorithm for one agent, such as ppo, or an environment of PettingZoo",
        )
    raise ConfigError(
        f"{name} is for one agent; the environment has {len(spaces.team.agents)}:"
        f" {', '.join(spaces.team.agents)}",
        where="algorithm.name",
        fix=f"use one of {fitting}",
    )


def _check_methods(name: str, algorithm: object) -> None:
    """Checks before the run that all methods of the contract exist."""
    methods = [method for method in vars(Algorithm) if not method.startswith("_")]
    lacking = [method for method in methods if not callable(getattr(algorithm, method, None))]
    if lacking:
        raise ConfigError(
            f"{name} lacks {', '.join(lacking)}",
            where="algorithm.name",
            fix="engine.algorithms.base.Algorithm lists the methods that an algorithm needs",
        )


def _check_staleness(experiment: Experiment, algorithm: Algorithm) -> None:
    """Checks that the staleness mode is possible with the algorithm's kind of samples."""
    samples, mode, name = algorithm.samples(), experiment.staleness.mode, experiment.algorithm_name
    if mode == "correct" and not samples.corrects_staleness:
        can_do_so = f"set {samples.corrections_in_words}"
        raise ConfigError(
            f"{name} does not correct for stale samples",
            where="staleness.mode",
            fix=f"{can_do_so if samples.corrections else 'use impala'}, or another mode",
        )
    if mode in ("block", "drop", "fixed") and samples.kind == "replay":
        raise ConfigError(
            f"{name} learns from a replay store, whose samples are old on purpose, so their lag"
            " can be neither bounded nor fixed",
            where="staleness.mode",
            fix="staleness.mode: unbounded",
        )


def _check_diagnostics(experiment: Experiment, config: Spec) -> None:
    """Checks that the effective sample size is computed if the bound on lag depends on it."""
    staleness = experiment.staleness
    if not (staleness.is_adaptive and staleness.least_ess):
        return
    if getattr(config, "diagnostics", True) is False:
        raise ConfigError(
            "staleness.max_lag=auto is lowered by the effective sample size, which is not known"
            " without diagnostics",
            where="algorithm.diagnostics",
            fix="leave it out, or set staleness.least_ess=0",
        )


def _check_schedules(experiment: Experiment, algorithm: Algorithm) -> None:
    """Checks that there are env steps to stretch a schedule over."""
    keys = algorithm.samples().follows_progress
    if keys and experiment.stop.env_steps is None:
        raise ConfigError(
            f"{keys[0]} is reached over stop.env_steps, which is not set",
            where=f"algorithm.{keys[0]}",
            fix="set stop.env_steps",
        )


def _check_units(experiment: Experiment, algorithm: Algorithm) -> None:
    """Checks that actions in units of a range are scaled to it, and not squashed once more."""
    if not algorithm.samples().acts_in_units:
        return
    name = experiment.algorithm_name
    if experiment.env.squash_actions:
        raise ConfigError(
            f"{name} squashes its actions itself", where="env.squash_actions", fix="leave it out"
        )
    if not experiment.env.scale_actions:
        raise ConfigError(
            f"{name} chooses actions within [-1, 1], which must be scaled to their range",
            where="env.scale_actions",
            fix="leave it out",
        )


def _check_replay(experiment: Experiment, algorithm: Algorithm) -> None:
    """Checks that there is a replay store if one is to be saved."""
    if experiment.checkpoint.replay and not algorithm.samples().samples_replay:
        raise ConfigError(
            f"{experiment.algorithm_name} has no replay store that could be saved",
            where="checkpoint.replay",
            fix="leave it out",
        )


def read_config(experiment: Experiment) -> Spec:
    """The hyperparameters, typed and complete. Raises ConfigError as above."""
    entry = _entry(experiment)
    hyperparameters: dict[str, Scalar] = {
        key: value for key, value in experiment.algorithm.items() if key != "name"
    }
    document = Document("", {"algorithm": hyperparameters}, {})
    return convert_part(hyperparameters, entry.config, document, ("algorithm",))


def _entry(experiment: Experiment) -> Entry:
    name = experiment.algorithm_name
    if name not in ALGORITHMS:
        raise ConfigError(
            f"unknown algorithm {name!r}", where="algorithm.name", fix=suggest(name, ALGORITHMS)
        )
    return ALGORITHMS[name]
