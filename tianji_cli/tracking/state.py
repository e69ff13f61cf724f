"""`tracking/<tool>/tracker.json`: how far a tracker has come, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from tianji_cli.storage.json_files import read_json, write_json
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import PRIVATE_MODE, make_inside
from tianji_cli.tracking.tools import Tool

SCHEMA_VERSION = 1
State = Literal["running", "complete", "partial", "failed"]


class TrackerState(msgspec.Struct, frozen=True, kw_only=True):
    """A tracker of a run.

    Attributes:
        state: `running`; `complete`: all of a run that has ended is there; `partial`: all that was
            here of a run that had not; `failed`, with its `error`.
        where: The run's place there.
        hint: The command, or the address, that shows it.
        rows: By table, how many of its rows are there.
        values: How many values these made.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool
    state: State = "running"
    where: str = ""
    hint: str = ""
    rows: dict[str, int] = {}
    values: int = 0
    error: str | None = None


class StateFile:
    """The state of the tracker that runs in this process.

    Args:
        paths: The run.
        tool: Which tracker; its directory exists.
    """

    def __init__(self, paths: RunPaths, tool: Tool) -> None:
        self._paths = paths
        self.state = TrackerState(tool=tool)

    def add(self, rows: Mapping[str, int], num_values: int) -> None:
        """Counts what was passed on; it is written with the next change."""
        rows = {**self.state.rows, **rows}
        self.state = replace(self.state, rows=rows, values=self.state.values + num_values)

    def write(self, **changes: object) -> None:
        """Changes fields and writes the file.

        Raises:
            OSError: It cannot be written.
        """
        self.state = replace(self.state, **changes)
        write_state(self._paths, self.state)


def directory_of(paths: RunPaths, tool: Tool) -> Path:
    """Where a tracker keeps what is its own."""
    return paths.tracking / tool


def make_directory(paths: RunPaths, tool: Tool) -> Path:
    """Creates it.

    Raises:
        PreflightError: A link leads elsewhere.
        OSError: It cannot be made.
    """
    return make_inside(paths.root, directory_of(paths, tool))


def write_state(paths: RunPaths, state: TrackerState) -> None:
    """Raises OSError if it cannot be written."""
    write_json(directory_of(paths, state.tool) / "tracker.json", state, PRIVATE_MODE)


def read_state(paths: RunPaths, tool: Tool) -> TrackerState:
    """What a tracker has last written.

    Raises:
        ConfigError: Nothing, or it is damaged.
    """
    path = directory_of(paths, tool) / "tracker.json"
    return read_json(path, TrackerState, SCHEMA_VERSION, "a tracker")
