"""The files of a reproduction: `published.json` says what it is, each line of `runs.jsonl` what one
run reached. A report needs these two alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec

from engine.errors import ConfigError
from tianji_cli.bench.cells import Manifest
from tianji_cli.bench.kinds import PUBLISHED
from tianji_cli.bench.published.suite import PublishedSuite
from tianji_cli.bench.study.records import JournalFiles, StudyCell, StudyRun
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.masking import redacted, redacted_json
from tianji_cli.storage.safe_files import write_file


class PublishedManifest(Manifest[PublishedSuite, StudyCell], frozen=True, kw_only=True):
    """`published.json`. The task of a cell is its row."""

    experiments: dict[str, dict[str, Any]]
    """By row: its experiment file as it was at the start, without settings."""


class PublishedRun(StudyRun, frozen=True, kw_only=True):
    """A line of `runs.jsonl`."""

    judged: list[float] = msgspec.field(default_factory=list)
    """Returns of the episodes that judge it, in order."""
    evaluation: dict[str, object] | None = None
    """How its final policy was evaluated, as `tianji evaluate` has written it; null if training
    episodes judge it."""


class PublishedFiles(JournalFiles[PublishedManifest, StudyCell, PublishedRun]):
    """The files of a reproduction."""

    kind = PUBLISHED
    manifest_type = PublishedManifest
    result_type = PublishedRun
    more_report_files = ("README.md",)

    @property
    def readme(self) -> Path:
        return self.root / "README.md"

    def keep_at(
        self,
        target: Self,
        manifest: PublishedManifest,
        results: Mapping[StudyCell, PublishedRun],
    ) -> None:
        """Copies the inputs of a report, possibly of several reproductions, to another place."""
        manifest = redacted(manifest)
        target.check_free(manifest)
        target.root.mkdir(parents=True, exist_ok=True)
        write_json(target.manifest, manifest)
        lines = [redacted_json(msgspec.json.encode(run)) + b"\n" for run in results.values()]
        write_file(target.records, b"".join(lines))


Loaded: TypeAlias = tuple[PublishedManifest, dict[StudyCell, PublishedRun]]


def merged(parts: Sequence[tuple[Path, Loaded]]) -> Loaded:
    """Several reproductions as one: a row comes from the last one that has made a run of it.

    Runs of one row are never mixed, as the code or the settings may have changed between them.

    Args:
        parts: Where each was read from, and what was read.

    Raises:
        ConfigError: They were made on different machines.
    """
    (_, (whole, runs)), *others = parts
    for place, (manifest, found) in others:
        if manifest.machine.id != whole.machine.id:
            raise ConfigError(
                f"it was made on machine {manifest.machine.id}, {whole.bench_id} on"
                f" {whole.machine.id}",
                where=str(place),
                fix="report each on its own",
            )
        new = {cell.task for cell in found}
        runs = {cell: run for cell, run in runs.items() if cell.task not in new} | found
        whole = _with_rows(whole, manifest, new)
    return whole, {cell: runs[cell] for cell in whole.cells if cell in runs}


def _with_rows(
    whole: PublishedManifest, other: PublishedManifest, names: Collection[str]
) -> PublishedManifest:
    """The same with these rows from another one."""
    new = {name: row for name, row in other.suite.rows.items() if name in names}
    kept = [cell for cell in whole.cells if cell.task not in names]
    return msgspec.structs.replace(
        whole,
        suite=msgspec.structs.replace(whole.suite, rows={**whole.suite.rows, **new}),
        experiments={**whole.experiments, **{name: other.experiments[name] for name in new}},
        cells=[*kept, *(cell for cell in other.cells if cell.task in names)],
    )
