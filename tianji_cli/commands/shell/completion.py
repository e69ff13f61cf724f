"""Words that a shell completes after Tab: names of runs, experiments, inventories, policies.

Only directories are read: a shell waits for the answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from tianji_cli.config.lookup import shipped
from tianji_cli.storage.run_dir import RESULTS_VARIABLE


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Ids in the results directory of this command line."""
    given = context.params.get("results")
    results = Path(str(given or os.environ.get(RESULTS_VARIABLE) or "results"))
    return _beginning(incomplete, (entry.name for entry in _entries(results) if entry.is_dir()))


def experiments(incomplete: str) -> list[str]:
    """Names that TianJi ships, and YAML files."""
    return _beginning(incomplete, (*_shipped("experiments"), *_files(incomplete)))


def inventories(incomplete: str) -> list[str]:
    """Names that TianJi ships, and YAML files."""
    return _beginning(incomplete, (*_shipped("inventories"), *_files(incomplete)))


def suites(incomplete: str) -> list[str]:
    """Suites and studies that TianJi ships, and YAML files."""
    folder = shipped("experiments")
    names = [path.stem for path in folder.glob("bench/*.yaml")]
    studies = [path.parent.name for path in folder.glob("*/study.yaml")]
    return _beginning(incomplete, (*names, *studies, *_files(incomplete)))


def policies(incomplete: str) -> list[str]:
    """Built-in policies, and YAML files."""
    from engine.graph.policy import built_in_policies

    return _beginning(incomplete, (*built_in_policies(), *_files(incomplete)))


def trackers(incomplete: str) -> list[str]:
    """Tools that runs are tracked with."""
    from tianji_cli.tracking.tools import TOOLS

    return _beginning(incomplete, TOOLS)


def _shipped(kind: str) -> Iterator[str]:
    """As after `-x`: `cartpole_ppo`, but not suites and studies, which lie in folders."""
    return (path.stem for path in shipped(kind).glob("*.yaml"))


def _files(incomplete: str) -> Iterator[str]:
    """YAML files and folders in the directory that was typed so far."""
    directory = incomplete[: incomplete.rfind("/") + 1]
    for entry in _entries(Path(directory)):
        if entry.is_dir():
            yield f"{directory}{entry.name}/"
        elif entry.suffix in (".yaml", ".yml"):
            yield f"{directory}{entry.name}"


def _entries(directory: Path) -> list[Path]:
    try:
        return [entry for entry in directory.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})
