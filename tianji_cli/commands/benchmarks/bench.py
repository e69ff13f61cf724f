"""`tianji bench`: the same work on several systems, and which is faster, by how much."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import msgspec

from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.search_path import look_in
from tianji_cli import units
from tianji_cli.bench.comparison.harness import (
    Bench,
    CellRunner,
    check_environments,
    check_games,
    find_systems,
    new_bench,
    with_systems_of_now,
)
from tianji_cli.bench.comparison.results import (
    BenchFiles,
    BenchManifest,
    Cell,
    CellResult,
    planned_s,
    shortest_s,
)
from tianji_cli.bench.comparison.run_cell import Seen
from tianji_cli.bench.kinds import find_suite, kind_of_suite, read_suite
from tianji_cli.bench.systems.base import System, SystemOptions
from tianji_cli.bench.systems.install import INSTALLABLE, install, is_installed
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME
from tianji_cli.bench.tasks.suite import ALSO_CALLED, OTHER, SYSTEMS, Suite, load_suite
from tianji_cli.commands.benchmarks.bench_request import BenchRequest, chosen
from tianji_cli.commands.benchmarks.conduct import Kind, conduct, implementation
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay, result_text, seen_text


class InstalledDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `bench --install --json` prints: the interpreter of each baseline."""

    schema_version: int = 1
    pythons: dict[str, str]


def bench_command(request: BenchRequest, output: Output) -> int:
    """Determines the kind of benchmark; then plans, asks, runs and reports.

    Returns:
        0; 8 with `--strict` and a cell that is missing, censored or failed; 130 if interrupted.

    Raises:
        TianJiError: Nothing could be started; says why.
    """
    _check_answerable(request)
    if request.resume is not None:
        defining = request.given.keys() - {"--parallel"}
        request.refuse(
            dict.fromkeys(defining, "a resumed benchmark keeps its settings"),
            "start a new one",
        )
        info, root = request.resumed()
    else:
        info, root = kind_of_suite(read_suite(request.suite)), None
    kind = implementation(info)
    request.refuse(kind.unused)
    return conduct(kind, request, output, root)


def install_command(names: Sequence[str], options: SystemOptions, output: Output) -> None:
    """Makes the environments of baselines; see `tianji_cli.bench.systems.install`.

    Raises:
        ConfigError: A name that cannot be installed.
        PreflightError: An installation failed.
    """
    pythons = {}
    for name in names:
        pythons[name] = str(install(name, options.systems_dir, output.say))
        output.say(f"{name}: {pythons[name]}")
    if output.is_json:
        output.document(InstalledDocument(pythons=pythons))


def _check_answerable(request: BenchRequest) -> None:
    """Refuses to ask without a terminal, before anything takes time.

    Raises:
        ConfigError: Standard input is not a terminal, and there is no `--yes`.
    """
    if not (request.yes or request.dry_run or sys.stdin.isatty()):
        raise ConfigError(
            "it asks before it starts, but standard input is not a terminal",
            where="bench",
            fix="add --yes",
        )


def _install_missing(systems: Sequence[System], request: BenchRequest, output: Output) -> None:
    """Installs missing baselines: `--yes` includes downloads from PyPI."""
    systems_dir = request.system_options.systems_dir
    for system in systems:
        if system.name in INSTALLABLE and not is_installed(system.name, systems_dir):
            install(system.name, systems_dir, output.say)


def _only(suite: Suite, names: Sequence[str]) -> Suite:
    return msgspec.structs.replace(suite, tasks=chosen(suite.tasks, names))


def _with_budget(suite: Suite, budget_s: float) -> Suite:
    tasks = {
        name: msgspec.structs.replace(task, budget_s=budget_s, min_s=min(task.min_s, budget_s))
        for name, task in suite.tasks.items()
    }
    return msgspec.structs.replace(suite, tasks=tasks)


def _words(compare: str) -> list[str]:
    """The systems that `--compare` names, each once, by their one name."""
    words = [word.strip() for word in compare.split(",") if word.strip()]
    return list(dict.fromkeys(ALSO_CALLED.get(word, word) for word in words))


def _system_names(wanted: Sequence[str], suite: Suite) -> tuple[str, ...]:
    """TianJi and the baselines of `--compare` that can run the suite."""
    for word in wanted:
        if word not in SYSTEMS:
            raise ConfigError(
                f"unknown system {word!r}", where="--compare", fix=suggest(word, SYSTEMS)
            )
    names = suite.systems_of(["tianji", *wanted])
    unable = [word for word in wanted if word not in names]
    if unable:
        able = [system for system in suite.systems_of(SYSTEMS) if system != "tianji"]
        reasons = {
            SYSTEMS_BY_NAME[system].refusal(t) for system in unable for t in suite.tasks.values()
        }
        known = "; ".join(sorted(reason for reason in reasons if reason))
        raise ConfigError(
            f"the suite has no task for {', '.join(unable)}" + (f": {known}" if known else ""),
            where="--compare",
            fix=f"the suite has tasks for {', '.join(able)}",
        )
    return names


class ComparisonKind(Kind[BenchFiles, BenchManifest, Cell, CellResult]):
    """The same work on several systems."""

    files = BenchFiles
    unused: ClassVar[Mapping[str, str]] = {
        "--hosts": "a comparison of systems runs on this machine and takes no inventory",
        "--parallel": "a comparison of systems runs one cell at a time, for fair times",
    }
    can_merge = True

    def plan(self, request: BenchRequest, output: Output) -> Bench:
        suite = _only(load_suite(request.suite, request.settings), request.tasks)
        budget_s = request.checked_budget_s()
        if budget_s is not None:
            suite = _with_budget(suite, budget_s)
        look_in([str(find_suite(request.suite).parent.absolute())])
        check_games(suite)
        check_environments(suite)
        bench_id = request.new_id("bench", suite.name)
        words = _words(request.compare)
        if OTHER in words:
            suite = suite.with_other()
        names = _system_names(words, suite)
        systems = [SYSTEMS_BY_NAME[name] for name in names]
        if request.yes and not request.skip_missing and not request.dry_run:
            _install_missing(systems, request, output)
        found = find_systems(
            systems,
            request.system_options,
            suite,
            skip_missing=request.skip_missing,
            say=output.say,
        )
        seeds = range(request.seeds or suite.seeds)
        return new_bench(suite, systems, found, list(seeds), request.results / bench_id)

    def renew(self, work: Bench) -> Bench:
        return with_systems_of_now(work, SYSTEMS_BY_NAME)

    def announce(self, work: Bench) -> Iterator[str]:
        manifest, cells = work.manifest, work.open_cells
        names = ", ".join(SYSTEMS_BY_NAME[name].title for name in manifest.systems)
        blocks = units.plural(len(manifest.seeds), "block")
        yield f"{names}; {blocks}, each in random order; one cell at a time"
        for task, reasons in manifest.unable.items():
            yield from (f"  not in {task}: {reason}" for reason in reasons.values())
        longest, shortest = planned_s(manifest.suite, cells), shortest_s(manifest.suite, cells)
        done = f" ({work.num_done} of {len(manifest.cells)} done)" if work.num_done else ""
        yield (
            f"{units.plural(len(cells), 'cell')}{done}, between {units.seconds(shortest)} and"
            f" {units.seconds(longest)} in all"
        )

    def runner(self, work: Bench, display: BenchDisplay, held: ExitStack) -> CellRunner:
        def show(cell: Cell, seen: Seen) -> None:
            display.show(f"{cell.name}: {seen_text(seen)}")

        return CellRunner(work, SYSTEMS_BY_NAME, show, display.say)

    def line(self, result: CellResult) -> str:
        return result_text(result)

    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        from tianji_cli.commands.benchmarks.bench_report import (
            show_comparison,
            write_archive,
            write_bench_report,
        )

        report = (write_archive if archives else write_bench_report)(roots, out)
        show_comparison(report, output)
        return all(
            system.outcomes.get("reached", 0) == system.num_cells
            for task in report.comparison.tasks
            for system in task.systems
        )


KIND = ComparisonKind()
