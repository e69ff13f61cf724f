"""Finds a run whose policy a command is to use."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ConfigError
from engine.trace.checkpoint_choice import ChosenCheckpoint, Which, choose_checkpoint
from engine.trained.run import TrainedRun, experiment_of
from tianji_cli.runs.manifest import DECIDING
from tianji_cli.storage.consent import NOBODY, Consent
from tianji_cli.storage.deployment import DEPLOYMENT_NAME
from tianji_cli.storage.json_files import read_document
from tianji_cli.storage.ownership import checksum_of
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run


def find_trained(
    results: Path, name: str | None, which: Which = "last", consent: Consent = NOBODY
) -> TrainedRun:
    """A run and one of its checkpoints.

    Args:
        results: The results directory.
        name: A run's id, a unique prefix of one, or its path; None: the newest.
        which: `last`, `best`, or a weights version.
        consent: Asked before modules are used that a run names which was not started here.

    Raises:
        ConfigError: There is no such run or checkpoint, or the user does not agree.
    """
    paths = resolve_run(results, name)
    data, where = read_document(paths.manifest), str(paths.manifest)
    experiment = experiment_of(data, where)
    modules = [f"module {module}" for module, _ in experiment.named_modules]
    if modules:
        consent.need(checksum_of(data, only=DECIDING), "run", where, modules)
    return TrainedRun(paths.root, experiment, choose_here(paths, which))


def choose_here(paths: RunPaths, which: Which) -> ChosenCheckpoint:
    """One of the checkpoints of a run that are here.

    Raises:
        ConfigError: There is no such one; others can still be on the run's hosts.
    """
    try:
        return choose_checkpoint(paths.checkpoints, which)
    except ConfigError as error:
        is_here = any(paths.checkpoints.rglob("v*.json"))
        if not is_here and (paths.root / DEPLOYMENT_NAME).is_file():
            error.fix = f"{command_for('fetch', paths.root)}, if they are still on its hosts"
        raise
