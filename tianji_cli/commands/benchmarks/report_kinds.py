"""What `tianji report` can report beside runs: benchmarks of every kind."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ConfigError
from tianji_cli.bench.kinds import KINDS, KindInfo
from tianji_cli.output import Output


def report_other(
    names: Sequence[str], results: Path, out: Path | None, output: Output, *, archives: bool
) -> bool:
    """Reports benchmarks and studies of these names.

    Args:
        names: Ids, unique prefixes or paths.
        results: The results directory.
        out: Directory of the report; None: that of the first.
        output: The command's output.
        archives: Whether to archive a benchmark at `out`.

    Returns:
        False if the names must be runs.

    Raises:
        ConfigError: Kinds that cannot share a report or be archived; see also the kinds.
        PreflightError: The directory cannot be written.
    """
    for kind in KINDS.values():
        if places := _places(results, names, kind):
            _report(kind, names, places, out, output, archives)
            return True
    _refuse_archives(archives)
    return False


def _report(
    kind: KindInfo,
    names: Sequence[str],
    places: Sequence[Path],
    out: Path | None,
    output: Output,
    archives: bool,
) -> None:
    from tianji_cli.commands.benchmarks.conduct import (
        implementation,  # it imports figures and tables
    )

    found = implementation(kind)
    fix = "report them one by one"
    if not found.can_merge:
        _refuse_archives(archives)
        if len(names) > 1:
            what = f"{kind.title} has a report of its own"
            raise ConfigError(what, where=", ".join(names), fix=fix)
    if len(places) != len(names):
        what = "runs and benchmarks cannot share a report"
        raise ConfigError(what, where=", ".join(names), fix=fix)
    found.report(places, out, output, archives=archives)


def _refuse_archives(archives: bool) -> None:
    if archives:
        raise ConfigError(
            "only a benchmark can be archived", where="--archive", fix="copy the directory instead"
        )


def _places(results: Path, names: Sequence[str], kind: KindInfo) -> list[Path]:
    """The directories of one kind among these: paths, ids, or unique prefixes of ids."""

    def is_one(place: Path) -> bool:
        try:
            return kind.is_at(place)
        except OSError:
            return False  # not readable, such as another user's

    found = []
    for name in names:
        exact = [place for place in (Path(name), results / name) if is_one(place)]
        pattern = f"{glob.escape(name)}*"
        is_id = Path(name).name == name
        begins = [p for p in results.glob(pattern) if is_one(p)] if is_id else []
        if exact or len(begins) == 1:
            found.append((exact or begins)[0])
    return found
