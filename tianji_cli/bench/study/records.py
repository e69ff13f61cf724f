"""The files of a study: `study.json` says what it is, each line of `runs.jsonl` what one run did.

These two small files are all that a report needs; the runs' own directories lie beside them and may
be thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from engine.files import read_regular
from engine.spec import Scalar
from engine.trace.summary import Summary
from tianji_cli.bench.cells import (
    SCHEMA_VERSION,
    CampaignFiles,
    CellT,
    Manifest,
    ManifestT,
    Result,
    ResultT,
)
from tianji_cli.bench.kinds import STUDY
from tianji_cli.bench.machine import check_same
from tianji_cli.bench.study.spec import Study
from tianji_cli.config.inventory import Inventory
from tianji_cli.storage.json_files import decode, write_json
from tianji_cli.storage.masking import redacted, redacted_json
from tianji_cli.storage.safe_files import append_descriptor, named_inside, write_file

MAX_RECORDS_BYTES = 1 << 29
"""Of a thousand runs with the longest stored curves."""
Outcome = Literal["reached", "censored", "ended", "pruned", "failed"]


class StudyCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a study. The block is its seed."""

    task: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.variant}-seed{self.seed}"


class StudyManifest(Manifest[Study, StudyCell], frozen=True, kw_only=True):
    """`study.json`."""

    bench_id: str = msgspec.field(name="study_id")
    suite: Study = msgspec.field(name="study")
    experiments: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """By task: its experiment file as it was at the start, without settings. Older studies have
    none and read the file."""
    inventory: Inventory | None = None
    """Hosts of the runs; null: this machine, without an inventory."""


class LearningCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Moving mean return of one run, downsampled; only where the window of episodes was full."""

    t_s: list[float] = []
    env_steps: list[int] = []
    return_mean: list[float] = []


class CellReturns(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has learnt; null where it has finished too few episodes."""

    final: float | None = None
    """Mean of its last training episodes."""
    over_env_steps: float | None = None
    """Area under its learning curve over env steps, divided by these."""
    over_time: float | None = None
    """Area under its learning curve over time, divided by this time."""


class StudyRun(Result[StudyCell], frozen=True, kw_only=True):
    """A line of `runs.jsonl`."""

    outcome: Outcome
    disagreements: int
    """Figures of its summary that its trace tables contradict; 0 if all is right."""
    summary: Summary | None = None
    manifest: dict[str, object] = msgspec.field(default_factory=dict)
    curve: LearningCurve = LearningCurve()
    returns: CellReturns | None = None
    """Each over all of its own curve; null in older records."""
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    """The setting of its trial."""
    intermediate: dict[int, float] = msgspec.field(default_factory=dict)
    """What the pruner saw of it: mean return by tenth of the budget."""
    hosts: list[str] = msgspec.field(default_factory=list)
    """Of the inventory; empty: this machine."""
    num_beside: int = 0
    """The most other runs of the study that shared its hosts at once; times say nothing then."""


class JournalFiles(CampaignFiles[ManifestT, CellT, ResultT]):
    """Where the files are: the results in one file, each run in a directory of its own."""

    @property
    def records(self) -> Path:
        return self.root / self.kind.journal

    @property
    def runs(self) -> Path:
        """The runs' own directories."""
        return self.root / "runs"

    def cell(self, cell: CellT) -> Path:
        return named_inside(self.runs, cell.name)

    def read_results(self, manifest: ManifestT) -> dict[CellT, ResultT]:
        """The finished runs, in planned order; a line truncated by a crash is no run."""
        found = {}
        for number, line in enumerate(whole_lines(self.records), start=1):
            where = f"{self.records}:{number}"
            run = decode(line, self.result_type, SCHEMA_VERSION, self.kind.title, where)
            check_same(manifest.machine, [run.machine_id], where)
            found[run.cell] = run
        return {cell: found[cell] for cell in self.cells_of(manifest) if cell in found}

    def write_result(self, cell: CellT, result: ResultT) -> None:
        """Adds one finished run; removes a last line that a crash truncated first."""
        with os.fdopen(append_descriptor(self.records), "rb+") as file:
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            file.write(msgspec.json.encode(result) + b"\n")

    def keep_at(self, target: Self, manifest: ManifestT, results: Mapping[CellT, ResultT]) -> None:
        """Copies the two input files of a report."""
        manifest = redacted(manifest)
        target.check_free(manifest)
        target.root.mkdir(parents=True, exist_ok=True)
        write_json(target.manifest, manifest)
        lines = [redacted_json(line) + b"\n" for line in whole_lines(self.records)]
        write_file(target.records, b"".join(lines))


class StudyFiles(JournalFiles[StudyManifest, StudyCell, StudyRun]):
    """The files of a study."""

    kind = STUDY
    manifest_type = StudyManifest
    result_type = StudyRun
    more_report_files = ("README.md", "best.yaml", "best")

    def experiment(self, task: str) -> Path:
        """The experiment that starts the runs of a task, from the manifest."""
        return named_inside(self.runs, f"{task}.experiment.json")

    def inventory(self, cell: StudyCell) -> Path:
        """The hosts of one run, as a file."""
        return named_inside(self.runs, f"{cell.name}.inventory.json")

    @property
    def trials(self) -> Path:
        """Optuna's storage of a search."""
        return self.root / "search.db"

    def best(self, task: str, *, is_only: bool) -> Path:
        """The best setting of a search, as an experiment file."""
        return named_inside(self.root, "best.yaml" if is_only else f"best/{task}.yaml")

    @property
    def readme(self) -> Path:
        return self.root / "README.md"


def whole_lines(records: Path) -> list[bytes]:
    """The lines of `runs.jsonl`, without one that a crash truncated."""
    data = read_regular(records, MAX_RECORDS_BYTES) if records.is_file() else b""
    return data[: data.rfind(b"\n") + 1].splitlines()
