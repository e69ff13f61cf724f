"""Finds what a run has trained, without torch and without making anything that it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.spec import Experiment, check_experiment
from engine.trace.checkpoint_choice import ChosenCheckpoint, Which, choose_checkpoint
from engine.trace.checkpoint_file import open_regular
from engine.trace.records import SCHEMA_VERSION

MAX_MANIFEST_BYTES = 64 << 20
MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainedRun:
    """A run and one of its checkpoints.

    Attributes:
        path: Its directory.
        experiment: As its manifest has it.
        checkpoint: The chosen one.
    """

    path: Path
    experiment: Experiment
    checkpoint: ChosenCheckpoint


class _Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that is read here."""

    schema_version: int = 0
    experiment: Experiment


def read_trained(path: Path, which: Which = "last") -> TrainedRun:
    """Reads the manifest of a run and chooses one of its checkpoints.

    Args:
        path: Its directory.
        which: `last`, `best`, or a weights version.

    Raises:
        ConfigError: There is no such run or checkpoint, or its files are damaged.
    """
    manifest = path / MANIFEST
    with open_regular(manifest) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ConfigError("larger than any manifest", where=str(manifest))
    experiment = experiment_of(data, str(manifest))
    return TrainedRun(path, experiment, choose_checkpoint(path / CHECKPOINTS, which))


def experiment_of(manifest: bytes, where: str) -> Experiment:
    """The experiment of a run.

    Args:
        manifest: The bytes of its `manifest.json`.
        where: That file, for errors.

    Raises:
        ConfigError: It is none, or that of a newer release.
    """
    try:
        recorded = msgspec.json.decode(manifest, type=_Recorded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not the manifest of a run: {error}", where=where) from error
    if recorded.schema_version > SCHEMA_VERSION:
        raise ConfigError(
            f"its schema_version {recorded.schema_version} is newer than {SCHEMA_VERSION}",
            where=where,
            fix="read it with the version of TianJi that wrote it",
        )
    return check_experiment(recorded.experiment)
