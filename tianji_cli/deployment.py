"""`deployment.json`: where the parts of a run are, for commands that come later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from engine.errors import ConfigError
from tianji_cli.documents import read_json, write_json
from tianji_cli.inventory import Host

SCHEMA_VERSION = 1
DEPLOYMENT_NAME = "deployment.json"


class HostPart(msgspec.Struct, frozen=True, kw_only=True):
    """One host's part of a run.

    Attributes:
        host: As in the inventory, its address filled in.
        python: Interpreter.
        source: Directory of the packages.
        run_dir: The run's directory there.
        attempt: Of the `up` that began the run; empty if an earlier release did.
    """

    host: Host
    python: str
    source: str
    run_dir: str
    attempt: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """All parts of a run, the coordinator's host first.

    Attributes:
        is_collected: Everything was brought here and removed there.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    is_collected: bool = False
    parts: Annotated[tuple[HostPart, ...], msgspec.Meta(min_length=1)]


def write_deployment(run_root: Path, deployment: Deployment) -> None:
    """Replaces the file in `results/<run-id>`."""
    write_json(run_root / DEPLOYMENT_NAME, deployment)


def read_deployment(run_root: Path) -> Deployment:
    """Where the parts of a run are.

    Raises:
        ConfigError: The run was not started by a release that writes this, or ran in one process;
            or the file cannot be read, is damaged, or newer than this program.
    """
    path = run_root / DEPLOYMENT_NAME
    if not path.exists():
        raise ConfigError(
            f"this run had no processes of its own: it has no {DEPLOYMENT_NAME}",
            where=str(run_root),
            fix="tianji runs",
        )
    return read_json(path, Deployment, SCHEMA_VERSION, "a run")
