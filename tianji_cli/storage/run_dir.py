"""The only module that names the files of a run."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import ConfigError, PreflightError
from engine.trace.warm_start import WEIGHTS_NAME

MIN_FREE_BYTES = 16 * 2**20
RESULTS_VARIABLE = "TIANJI_RESULTS"
DEFAULT_RESULTS = "results"
MAX_RUN_ID = 100
_RUN_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_RUN_ID - 1}}}")


JOB_NAME = "job.json"
JOB_FILES = frozenset((JOB_NAME, "job.sh", "job.log"))
"""What the submission of a run to a batch system writes there, before the run exists."""
ENTRIES = frozenset(
    (
        *JOB_FILES,
        *("manifest.json", "deployment.json", "summary.json", "state", "trace", "logs"),
        *("checkpoints", WEIGHTS_NAME, "plots", "report.html", "compared.json"),
        *("evaluations", "exports", "videos", "tracking"),
    )
)
"""What TianJi writes into a run's directory."""
_TEMPORARY = re.compile(r"\..+\.tmp")


def is_of_run(name: str) -> bool:
    """Whether an entry of a run's directory is one that TianJi writes."""
    return name in ENTRIES or bool(_TEMPORARY.fullmatch(name))


@dataclass(frozen=True)
class RunPaths:
    """Paths inside `results/<run-id>/`.

    Args:
        root: The run's own directory.
    """

    root: Path

    @property
    def run_id(self) -> str:
        return self.root.name

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def trace(self) -> Path:
        return self.root / "trace"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def initial_weights(self) -> Path:
        return self.root / WEIGHTS_NAME

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations"

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def tracking(self) -> Path:
        return self.root / "tracking"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def in_unicode(name: str) -> str:
    """A name as people and documents may be given it; bytes that are no UTF-8 become `\\xfc`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def elsewhere(results: Path) -> str:
    """The `--results` option for this directory; empty if it is the default."""
    usual = Path(os.environ.get(RESULTS_VARIABLE, DEFAULT_RESULTS))
    is_usual = results.absolute() == usual.absolute()
    return "" if is_usual else f" --results {shlex.quote(str(from_here(results)))}"


def from_here(path: Path) -> Path:
    """As it can be typed in the working directory: relative if it is below."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):  # it is elsewhere, or there is no working directory any more
        return path


def command_for(verb: str, root: Path) -> str:
    """A command for the run in a directory, as it can be typed here."""
    return f"tianji {verb} {shlex.quote(root.name)}{elsewhere(root.parent)}"


def new_run_id(name: str, now: datetime | None = None) -> str:
    """A sortable id: `20260131-235959-cartpole_ppo`."""
    return f"{(now or datetime.now(UTC)):%Y%m%d-%H%M%S}-{name}"


def check_run_id(run_id: str, where: str) -> str:
    """Raises ConfigError unless `run_id` is a plain file name."""
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"{run_id!r} cannot name a directory",
            where=where,
            fix="use letters, digits, '.', '_' and '-', at most 100, a letter or digit first",
        )
    return run_id


def probe_results(results: Path) -> None:
    """Checks, before anything starts, that a run can be written.

    Raises:
        PreflightError: The directory cannot be made or written, or its disk is (nearly) full.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as probe:
            probe.write(b"\0" * 2**20)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise PreflightError(
            f"results cannot be written: {error.strerror or error}",
            where=str(results),
            fix="free space or permissions there, or give another place with --results DIR",
        ) from error
    free_bytes = os.statvfs(results).f_bavail * os.statvfs(results).f_frsize
    if free_bytes < MIN_FREE_BYTES:
        raise PreflightError(
            f"only {free_bytes / 2**20:.1f} MiB are free, a run needs {MIN_FREE_BYTES // 2**20}",
            where=str(results),
            fix="free space there, or give another place with --results DIR",
        )


def claim_run(results: Path, run_id: str, *, is_of_job: bool = False) -> RunPaths:
    """Claims a run's name by creating its directory, which only one command can do; it stays empty.

    So two concurrent commands never have the same name.

    Args:
        results: The results directory.
        run_id: The name.
        is_of_job: A job runs this that has claimed it; its directory holds the job's files only.

    Raises:
        ConfigError: A run of that id exists, running or not; it is never overwritten.
        PreflightError: The directory cannot be made.
    """
    root = results / run_id
    try:
        root.mkdir(parents=True)
    except FileExistsError:
        if is_of_job and is_only_claimed(root):
            return RunPaths(root)
        raise _taken(root) from None
    except OSError as error:
        raise PreflightError(
            f"the run cannot be written: {error.strerror or error}", where=str(root)
        ) from error
    return RunPaths(root)


def claim_new_run(results: Path, name: str, now: datetime | None = None) -> RunPaths:
    """Claims an unused name: `20260131-235959-cartpole_ppo`, or one with a number appended.

    Raises:
        ConfigError: It cannot name a directory.
        PreflightError: The directory cannot be made.
    """
    first = new_run_id(name, now)
    for number in itertools.count(1):
        suffix = "" if number == 1 else f"-{number}"
        run_id = first[: MAX_RUN_ID - len(suffix)] + suffix
        with contextlib.suppress(ConfigError):
            return claim_run(results, run_id)
    raise AssertionError("there is no last number")


def _taken(root: Path) -> ConfigError:
    what = "a run of this name exists and is not overwritten"
    if _is_empty_directory(root):
        return ConfigError(
            f"{what}; its directory is empty, so it is starting, or was killed while starting",
            where=str(root),
            fix=f"choose another --name; if no `tianji up` runs: rmdir {shlex.quote(str(root))}",
        )
    return ConfigError(
        what,
        where=str(root),
        fix=f"choose another --name; {command_for('status', root)} says whether it still runs",
    )


def is_only_claimed(root: Path) -> bool:
    """Whether a directory was made for a job whose run has not begun there."""
    try:
        names = {entry.name for entry in root.iterdir()}
        return all(name in JOB_FILES or _TEMPORARY.fullmatch(name) for name in names)
    except OSError:
        return False


def _is_empty_directory(root: Path) -> bool:
    try:
        return not any(root.iterdir())
    except OSError:
        return False


def make_run_tree(paths: RunPaths, hosts: Iterable[str]) -> None:
    """Creates the subdirectories of a claimed run.

    Raises:
        OSError: They cannot be made.
    """
    for directory in (paths.trace, paths.logs, paths.checkpoints, paths.plots):
        directory.mkdir()
    for host in hosts:
        (paths.logs / host).mkdir()


@contextlib.contextmanager
def undone_unless_begun(paths: RunPaths) -> Iterator[None]:
    """Releases a claimed name, and removes its files, if the block fails."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for entry in [item for item in paths.root.iterdir() if item.name not in JOB_FILES]:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
        give_back(paths)
        raise


def give_back(paths: RunPaths) -> None:
    """Releases the name of a run without files, so that it can be used again."""
    with contextlib.suppress(OSError):
        paths.root.rmdir()


def find_runs(results: Path) -> list[RunPaths]:
    """All runs in a results directory, oldest first by their manifest's time of writing.

    Unreadable entries, such as another user's, are skipped.

    Raises:
        ConfigError: The directory itself is not readable.
    """
    return [RunPaths(place) for _, place in directories_with(results, "manifest.json")]


def directories_with(results: Path, file_name: str) -> list[tuple[int, Path]]:
    """The directories in a results directory with a file of this name, oldest file first.

    Returns:
        When the file was written, in ns, and the directory.

    Raises:
        ConfigError: The directory itself may not be read.
    """
    try:
        entries = list(results.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(results)) from error
    times_ns = ((_written_ns(entry, file_name), entry) for entry in entries)
    found = [(time_ns, entry.name, entry) for time_ns, entry in times_ns if time_ns is not None]
    return [(time_ns, entry) for time_ns, _, entry in sorted(found)]


def _written_ns(root: Path, file_name: str = "manifest.json") -> int | None:
    """When a file in a directory was written; None if there is none."""
    try:
        found = (root / file_name).stat()
    except (OSError, ValueError):  # missing, not readable, or an invalid name
        return None
    return found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None


def resolve_run(results: Path, name: str | None) -> RunPaths:
    """Finds a run by id, unique prefix or path, or the newest; `STUDY/CELL` names one of a study or
    benchmark.

    Raises:
        ConfigError: There is none, or several start with that.
    """
    runs = find_runs(results)
    if name is None:
        if not runs:
            raise ConfigError("no run here yet", where=str(results), fix="tianji up")
        return runs[-1]
    if _written_ns(Path(name)) is not None:
        return RunPaths(Path(name).resolve())
    known = {paths.run_id: paths for paths in runs}
    if "/" in name:
        known = _runs_of_cells(results, name.partition("/")[0])
    matches = [paths for word, paths in known.items() if word == name] or [
        paths for word, paths in known.items() if name and word.startswith(name)
    ]
    if len(matches) == 1:
        return matches[0]
    problem = "several runs start with that" if matches else "no such run"
    raise ConfigError(
        f"{problem}: {name!r}",
        where=str(results),
        fix=f"tianji runs{elsewhere(results)} lists them",
    )


_CELLS = ("runs/*", "cells/*/run", "cells/*/*/run")
"""Where the runs of studies and benchmarks are, below their directories."""


def _runs_of_cells(results: Path, work: str) -> dict[str, RunPaths]:
    """The runs of a study or benchmark, by its id and the name of the cell: `study/cell`."""
    root = results / work
    found: dict[str, RunPaths] = {}
    if work in ("", ".", ".."):
        return found
    for place in (place for pattern in _CELLS for place in sorted(root.glob(pattern))):
        if _written_ns(place) is not None:
            cell = "/".join(place.relative_to(root).parts[1:]).removesuffix("/run")
            found[f"{work}/{cell}"] = RunPaths(place)
    return found
