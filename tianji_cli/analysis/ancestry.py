"""The chain of runs that a run resumes, as far as their directories are still next to it.

Each counts up to the checkpoint with which the next one began; its later work was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.progress import RunCounters
from engine.trace.reader import read_columns, read_table
from engine.trace.records import Consumption, Episode, Evaluation
from tianji_cli.analysis.run import ManifestView, read_manifest
from tianji_cli.storage.run_dir import RunPaths

MAX_ANCESTORS = 1000
"""Manifests can be edited: one that names its own descendant must not be followed."""


@dataclass(frozen=True)
class Ancestor:
    """A run up to the checkpoint from which another one resumed.

    Attributes:
        run_id: Its id.
        until: Its progress up to then.
        window: Episodes in its mean return.
        episodes, evaluations, consumption: Its rows until then.
    """

    run_id: str
    until: RunCounters
    window: int
    episodes: Sequence[Episode]
    evaluations: Sequence[Evaluation]
    consumption: Sequence[Consumption]


def ancestors_of(root: Path, manifest: ManifestView) -> tuple[list[Ancestor], str]:
    """The runs that a run resumes, the earliest first.

    Args:
        root: The run's directory; its ancestors are next to it.
        manifest: Its own.

    Returns:
        The runs, and why one before them is not among them; empty if none is missing.
    """
    found: list[Ancestor] = []
    seen = {root.name}
    while len(found) < MAX_ANCESTORS:
        name = manifest.text("resumed_from", "run_id")
        paths = RunPaths(root.parent / name)
        if not name or name in seen or Path(name).name != name:
            break
        if not paths.manifest.is_file():
            return found, f"{name} is not there any more"
        seen.add(name)
        until = manifest.before
        try:
            manifest = read_manifest(paths.manifest)
            found.insert(0, _read(paths, manifest, until))
        except ConfigError as error:
            return found, str(error)
    return found, ""


def _read(paths: RunPaths, manifest: ManifestView, until: RunCounters) -> Ancestor:
    end_s = until.elapsed_s
    return Ancestor(
        run_id=paths.run_id,
        until=until,
        window=manifest.return_window,
        episodes=read_columns(paths.trace, Episode, until_s=end_s),
        evaluations=[row for row in read_table(paths.trace, Evaluation) if row.t_s <= end_s],
        consumption=[row for row in read_table(paths.trace, Consumption) if row.t_s <= end_s],
    )
