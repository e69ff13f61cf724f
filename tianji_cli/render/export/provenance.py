"""Where the weights of a policy come from, as far as the files of its run say."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.files import read_regular
from engine.spec import Scalar
from engine.trace.records import SCHEMA_VERSION
from engine.trained.load import Trained
from engine.wording import plural
from tianji_cli.git_state import GitState
from tianji_cli.render.export.documents import TrainingDocument
from tianji_cli.storage.json_files import decode, read_document
from tianji_cli.storage.run_dir import RunPaths

MAX_BYTES = 1 << 20
"""Of the document of an evaluation."""


class _Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that a card tells."""

    schema_version: int = 0
    git: GitState = GitState(commit=None, dirty=None)
    versions: dict[str, str] = {}
    seeds: list[int] = []


class _Returns(msgspec.Struct, frozen=True, kw_only=True):
    mean: float


class _Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a document of `tianji evaluate` that a card tells."""

    version: int
    is_sampled: bool
    env_kwargs: dict[str, Scalar]
    episodes: int
    seed: int
    returns: _Returns
    agent_returns: dict[str, float] = {}
    policy_returns: dict[str, float] = {}

    def mean_of(self, name: str | None) -> float | None:
        """Of the named agent or policy, which older documents lack; None: of the environment."""
        if name is None:
            return self.returns.mean
        return self.agent_returns.get(name, self.policy_returns.get(name))


def training_of(trained: Trained) -> TrainingDocument:
    """Where the weights come from.

    Raises:
        ConfigError: The manifest is damaged.
    """
    paths = RunPaths(trained.run.path)
    where = str(paths.manifest)
    recorded = decode(read_document(paths.manifest), _Provenance, SCHEMA_VERSION, "a run", where)
    info, experiment = trained.info, trained.run.experiment
    name = experiment.stop.return_of
    evaluated = _largest_evaluation(paths.evaluations, info.version, name)
    measured = _known(trained) if evaluated is None else _measured_by(evaluated, name)
    return TrainingDocument(
        run_id=paths.run_id,
        version=info.version,
        updates=info.updates,
        env_steps=info.counters.env_steps_consumed,
        elapsed_s=info.counters.elapsed_s,
        seeds=recorded.seeds or [experiment.seed],
        algorithm=dict(experiment.algorithm),
        network=experiment.network,
        return_mean=None if measured is None else measured[0],
        return_measured=None if measured is None else measured[1],
        agent_returns={} if evaluated is None else evaluated.agent_returns,
        tianji=recorded.versions.get("tianji"),
        commit=recorded.git.commit,
        dirty=recorded.git.dirty,
        versions=recorded.versions,
    )


def _largest_evaluation(directory: Path, version: int, name: str | None) -> _Evaluated | None:
    """The largest one of these weights by `tianji evaluate` that knows this return."""
    found: list[_Evaluated] = []
    for path in sorted(directory.glob("*.json")):
        try:
            one = msgspec.json.decode(read_regular(path, MAX_BYTES), type=_Evaluated)
        except (ConfigError, msgspec.DecodeError, UnicodeDecodeError):
            continue  # a damaged one says nothing
        is_as_trained = not one.is_sampled and not one.env_kwargs
        if one.version == version and is_as_trained and one.mean_of(name) is not None:
            found.append(one)
    return max(found, key=lambda one: one.episodes, default=None)


def _measured_by(one: _Evaluated, name: str | None) -> tuple[float, str]:
    """The return in an evaluation that knows it, and how it was measured."""
    mean = one.mean_of(name)
    assert mean is not None
    whose = f", returns of {name}" if name else ""
    return mean, (
        f"mean of {one.episodes} separate episodes with the best known actions, seeds from"
        f" {one.seed} (`tianji evaluate`){whose}"
    )


def _known(trained: Trained) -> tuple[float, str] | None:
    """The return that was known when the checkpoint was written, and how it was measured."""
    known, experiment = trained.info.known_return, trained.run.experiment
    if known is None:
        return None
    name = experiment.stop.return_of
    whose = f", returns of {name}" if name else ""
    if known.judge == "evaluation" and experiment.evaluation is not None:
        return known.mean, (
            f"mean of {plural(experiment.evaluation.episodes, 'separate episode')} with the best"
            f" known actions, of weights version {known.version}{whose}"
        )
    return known.mean, (
        f"mean of the last {plural(experiment.stop.return_window, 'episode')} of training by then,"
        f" exploration included{whose}"
    )
