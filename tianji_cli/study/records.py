"""The files of a study: `study.json` says what it is, each line of `runs.jsonl` what one run did.

These two small files are all that a report needs; the runs' own directories lie beside them and may
be thrown away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.regular_files import read_regular
from engine.trace.summary import Summary
from tianji_cli.bench.machine import Load, Machine, check_same
from tianji_cli.documents import decode, read_json
from tianji_cli.files import is_file
from tianji_cli.git_state import GitState
from tianji_cli.run_dir import RunPaths
from tianji_cli.safe_files import append_descriptor, named_inside
from tianji_cli.study.spec import Study

STUDY_SCHEMA_VERSION = 1
MAX_RECORDS_BYTES = 1 << 29
"""Of a thousand runs with the longest curves that are kept."""
Outcome = Literal["reached", "censored", "ended", "failed"]


class StudyCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a study. The block is its seed."""

    task: str
    variant: str
    seed: int

    @property
    def run_id(self) -> str:
        return f"{self.task}-{self.variant}-seed{self.seed}"


class StudyManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`study.json`."""

    schema_version: int = STUDY_SCHEMA_VERSION
    study_id: str
    argv: list[str]
    study: Study
    experiments: dict[str, dict[str, Any]] = {}
    """By task: its experiment file as it was at the start, without settings. Studies of before
    have none and read the file."""
    cells: list[StudyCell]
    """In the order in which they run."""
    machine: Machine
    versions: dict[str, str] = {}
    """Of TianJi and its packages here; documents of before list none."""
    git: GitState
    started_at: str


class LearningCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Moving mean return of one run, thinned out; only where the window of episodes was full."""

    t_s: list[float] = []
    env_steps: list[int] = []
    return_mean: list[float] = []


class StudyRun(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `runs.jsonl`."""

    schema_version: int = STUDY_SCHEMA_VERSION
    cell: StudyCell
    outcome: Outcome
    detail: str = ""
    disagreements: int
    """Figures of its summary that its trace tables contradicted; 0 is as it should be."""
    machine_id: str
    load: Load
    """Just before it was launched."""
    summary: Summary | None = None
    manifest: dict[str, object] = {}
    curve: LearningCurve = LearningCurve()


@dataclass(frozen=True)
class StudyPaths:
    """Paths inside a study's directory.

    Args:
        root: The directory.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "study.json"

    @property
    def records(self) -> Path:
        return self.root / "runs.jsonl"

    @property
    def runs(self) -> Path:
        """The runs' own directories."""
        return self.root / "runs"

    def experiment(self, task: str) -> Path:
        """What the runs of a task are started with: its experiment, from the manifest."""
        return named_inside(self.runs, f"{task}.experiment.json")

    @property
    def comparison(self) -> Path:
        return self.root / "comparison.json"

    @property
    def page(self) -> Path:
        return self.root / "report.html"

    @property
    def readme(self) -> Path:
        return self.root / "README.md"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    def run(self, cell: StudyCell) -> RunPaths:
        return RunPaths(named_inside(self.runs, cell.run_id))


def is_study(place: Path) -> bool:
    """Whether a directory holds a study."""
    return is_file(StudyPaths(place).manifest)


def read_study(paths: StudyPaths) -> StudyManifest:
    """Reads `study.json`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    return read_json(paths.manifest, StudyManifest, STUDY_SCHEMA_VERSION, "a study")


def read_runs(paths: StudyPaths, manifest: StudyManifest) -> dict[StudyCell, StudyRun]:
    """The finished runs, in the study's order; a line that a crash has cut is no run.

    Raises:
        ConfigError: A line is damaged, or a run was made on another machine.
    """
    found = {}
    for number, line in enumerate(whole_lines(paths), start=1):
        where = f"{paths.records}:{number}"
        run = decode(line, StudyRun, STUDY_SCHEMA_VERSION, "a study", where)
        check_same(manifest.machine, [run.machine_id], where)
        found[run.cell] = run
    return {cell: found[cell] for cell in manifest.cells if cell in found}


def whole_lines(paths: StudyPaths) -> list[bytes]:
    """The lines of `runs.jsonl`, without one that a crash has cut."""
    is_there = paths.records.is_file()
    data = read_regular(paths.records, MAX_RECORDS_BYTES) if is_there else b""
    return data[: data.rfind(b"\n") + 1].splitlines()


def append_run(paths: StudyPaths, run: StudyRun) -> None:
    """Adds one finished run; what a crash has cut from the last line goes first."""
    with os.fdopen(append_descriptor(paths.records), "rb+") as file:
        file.seek(0)
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)
        file.write(msgspec.json.encode(run) + b"\n")
