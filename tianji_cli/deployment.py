"""`deployment.json`: where the parts of a run are, for commands that come later."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.errors import ConfigError
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
    """

    host: Host
    python: str
    source: str
    run_dir: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """All parts of a run, the coordinator's host first.

    Attributes:
        is_collected: Everything was brought here and removed there.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    is_collected: bool = False
    parts: tuple[HostPart, ...]


def write_deployment(run_root: Path, deployment: Deployment) -> None:
    """Replaces the file in `results/<run-id>`."""
    path = run_root / DEPLOYMENT_NAME
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(deployment)) + b"\n")
    temporary.replace(path)


def read_deployment(run_root: Path) -> Deployment:
    """Where the parts of a run are.

    Raises:
        ConfigError: The run was not started by a release that writes this, or ran in one process;
            or the file cannot be read.
    """
    path = run_root / DEPLOYMENT_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Deployment)
    except FileNotFoundError:
        raise ConfigError(
            "this run had no processes of its own", where=str(run_root), fix="tianji runs"
        ) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
