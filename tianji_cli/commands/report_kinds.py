"""What `tianji report` can report beside runs: benchmarks and studies of several kinds."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from tianji_cli.output import Output


@dataclass(frozen=True)
class Kind:
    """One kind of results that is reported by itself.

    Attributes:
        title: For messages.
        is_one: Whether a directory holds such results.
        report: Writes and prints the report of one, to the given place or into it.
    """

    title: str
    is_one: Callable[[Path], bool]
    report: Callable[[Path, Path | None, Output], object]


def report_other(
    names: Sequence[str], results: Path, out: Path | None, output: Output, *, archives: bool
) -> bool:
    """Reports what these names are, if they are not runs.

    Args:
        names: Ids, unique beginnings or paths.
        results: The results directory.
        out: Where the report goes; None: into what is reported.
        output: Where words go.
        archives: Whether to keep a benchmark at `out`.

    Returns:
        False if all of them are to be looked for among the runs.

    Raises:
        ConfigError: Kinds that cannot share a report, or that cannot be kept; see also the kinds.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.bench.results import is_bench

    if benches := _places(results, names, is_bench):
        _report_benches(names, benches, out, output, archives)
        return True
    if archives:
        raise ConfigError(
            "only a benchmark can be archived", where="--archive", fix="copy the directory instead"
        )
    for kind in _kinds():
        if places := _places(results, names, kind.is_one):
            if len(names) > 1:
                raise ConfigError(
                    f"{kind.title} has a report of its own",
                    where=", ".join(names),
                    fix="report them one by one",
                )
            kind.report(places[0], out, output)
            return True
    return False


def _kinds() -> list[Kind]:
    """Imported when they are needed: they bring figures and tables with them."""
    from tianji_cli.commands.bench_scaling import report_scaling
    from tianji_cli.commands.bench_transport import report_transport
    from tianji_cli.commands.study_report import report_study
    from tianji_cli.scaling.records import is_scaling
    from tianji_cli.study.records import is_study
    from tianji_cli.transport.records import is_transport

    return [
        Kind("a study", is_study, report_study),
        Kind("a benchmark of scaling", is_scaling, report_scaling),
        Kind("a benchmark of transport", is_transport, report_transport),
    ]


def _places(results: Path, names: Sequence[str], is_kind: Callable[[Path], bool]) -> list[Path]:
    """The directories of one kind among these: paths, ids, or unique beginnings of ids."""

    def is_one(place: Path) -> bool:
        try:
            return is_kind(place)
        except OSError:
            return False  # it may not be looked into, as another user's may be

    found = []
    for name in names:
        exact = [place for place in (Path(name), results / name) if is_one(place)]
        pattern = f"{glob.escape(name)}*"
        is_id = Path(name).name == name
        begins = [p for p in results.glob(pattern) if is_one(p)] if is_id else []
        if exact or len(begins) == 1:
            found.append((exact or begins)[0])
    return found


def _report_benches(
    names: Sequence[str],
    benches: Sequence[Path],
    out: Path | None,
    output: Output,
    archives: bool,
) -> None:
    """Several of one suite can share a report."""
    from tianji_cli.commands.bench_report import (
        show_comparison,
        write_archive,
        write_bench_report,
    )

    if len(benches) != len(names):
        raise ConfigError(
            "runs and benchmarks cannot share a report",
            where=", ".join(names),
            fix="report them one by one",
        )
    write = write_archive if archives else write_bench_report
    show_comparison(write(benches, out), output)
