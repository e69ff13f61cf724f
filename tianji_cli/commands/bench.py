"""`tianji bench`: the same work on several systems, and who was faster by how much."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from engine.config_file import suggest
from engine.errors import ConfigError
from engine.search_path import look_in
from tianji_cli.baselines.base import Peer, PeerOptions
from tianji_cli.baselines.install import INSTALLABLE, install, is_installed
from tianji_cli.baselines.registry import PEERS_BY_NAME
from tianji_cli.bench.harness import (
    Bench,
    check_environments,
    check_games,
    find_peers,
    new_bench,
    read_bench,
    run_cells,
    with_peers_of_now,
)
from tianji_cli.bench.results import CellResult, is_bench
from tianji_cli.bench.schedule import planned_s, shortest_s
from tianji_cli.bench.suite import PEERS, Suite, load_suite
from tianji_cli.commands.bench_request import BenchRequest, Kind, chosen, conduct
from tianji_cli.commands.bench_scaling import scaling_command, wants_scaling
from tianji_cli.commands.bench_transport import transport_command, wants_transport
from tianji_cli.commands.study import study_command, wants_study
from tianji_cli.files import find_file
from tianji_cli.output import Output
from tianji_cli.render import units
from tianji_cli.render.bench_live import BenchDisplay

BUSY_CORES = 0.3


class InstalledDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `bench --install --json` prints: the interpreter of each peer."""

    schema_version: int = 1
    pythons: dict[str, str]


def bench_command(request: BenchRequest, output: Output) -> int:
    """Plans, asks, runs, reports.

    Returns:
        0; 8 with `--strict` and a cell that is missing, censored or failed; 130 if interrupted.

    Raises:
        TianJiError: Nothing could be started; says why.
    """
    _check_answerable(request)
    if request.resume is not None:
        request.refuse(
            dict.fromkeys(request.given, "a resumed benchmark keeps its settings"),
            "start a new one",
        )
    if wants_study(request):
        return study_command(request, output)
    if wants_scaling(request):
        return scaling_command(request, output)
    if wants_transport(request):
        return transport_command(request, output)
    what = f"the suite {request.suite} compares systems on this machine and takes no inventory"
    request.refuse({"--hosts": what})
    kind = Kind(is_bench, _planned, read_bench, _with_peers_of_now, _announce, _run, _report)
    return conduct(kind, request, output)


def install_command(names: Sequence[str], options: PeerOptions, output: Output) -> None:
    """Makes the environments of peers; see `tianji_cli.baselines.install`.

    Raises:
        ConfigError: A name that cannot be installed.
        PreflightError: An installation failed.
    """
    pythons = {}
    for name in names:
        pythons[name] = str(install(name, options.peers_dir, output.say))
        output.say(f"{name}: {pythons[name]}")
    if output.is_json:
        output.document(InstalledDocument(pythons=pythons))


def _check_answerable(request: BenchRequest) -> None:
    """Refuses to ask where nobody can answer, before anything takes time.

    Raises:
        ConfigError: Standard input is no terminal, and the answer was not given.
    """
    if not (request.yes or request.dry_run or sys.stdin.isatty()):
        raise ConfigError(
            "it asks before it starts, but standard input is not a terminal",
            where="bench",
            fix="add --yes",
        )


def _planned(request: BenchRequest, output: Output) -> Bench:
    suite = _only(load_suite(request.suite, request.settings), request.tasks)
    budget_s = request.checked_budget_s()
    if budget_s is not None:
        suite = _with_budget(suite, budget_s)
    look_in([str(find_file("experiments/bench", request.suite).parent.absolute())])
    check_games(suite)
    check_environments(suite)
    bench_id = request.new_id("bench", suite.name)
    names = _peer_names(request.compare, suite)
    peers = [PEERS_BY_NAME[name] for name in names]
    if request.yes and not request.skip_missing and not request.dry_run:
        _install_missing(peers, request, output)
    found = find_peers(
        peers, request.peer_options, skip_missing=request.skip_missing, say=output.say
    )
    seeds = range(request.seeds or suite.seeds)
    return new_bench(suite, peers, found, list(seeds), request.results / bench_id)


def _install_missing(peers: Sequence[Peer], request: BenchRequest, output: Output) -> None:
    """`--yes` also means: fetch what PyPI has."""
    peers_dir = request.peer_options.peers_dir
    for peer in peers:
        if peer.name in INSTALLABLE and not is_installed(peer.name, peers_dir):
            install(peer.name, peers_dir, output.say)


def _only(suite: Suite, names: Sequence[str]) -> Suite:
    return msgspec.structs.replace(suite, tasks=chosen(suite.tasks, names))


def _with_budget(suite: Suite, budget_s: float) -> Suite:
    tasks = {
        name: msgspec.structs.replace(task, budget_s=budget_s, min_s=min(task.min_s, budget_s))
        for name, task in suite.tasks.items()
    }
    return msgspec.structs.replace(suite, tasks=tasks)


def _peer_names(compare: str, suite: Suite) -> tuple[str, ...]:
    """TianJi and the peers of `--compare`, as far as they can do the suite."""
    wanted = [word.strip() for word in compare.split(",") if word.strip()]
    for word in wanted:
        if word not in PEERS:
            raise ConfigError(f"unknown peer {word!r}", where="--compare", fix=suggest(word, PEERS))
    names = suite.peers_of(["tianji", *wanted])
    unable = [word for word in wanted if word not in names]
    if unable:
        able = [peer for peer in suite.peers_of(PEERS) if peer != "tianji"]
        reasons = {PEERS_BY_NAME[peer].refusal(t) for peer in unable for t in suite.tasks.values()}
        known = "; ".join(sorted(reason for reason in reasons if reason))
        raise ConfigError(
            f"the suite has no task for {', '.join(unable)}" + (f": {known}" if known else ""),
            where="--compare",
            fix=f"the suite has tasks for {', '.join(able)}",
        )
    return names


def _with_peers_of_now(bench: Bench) -> Bench:
    return with_peers_of_now(bench, PEERS_BY_NAME)


def _announce(bench: Bench, output: Output) -> None:
    """What will be done and how long it takes, before anything starts."""
    manifest, cells = bench.manifest, bench.open_cells
    suite = manifest.suite
    names = ", ".join(PEERS_BY_NAME[name].title for name in manifest.peers)
    output.say(f"{manifest.bench_id}: {suite.summary}")
    blocks = units.plural(len(manifest.seeds), "block")
    output.say(f"{names}; {blocks}, each in random order; one cell at a time")
    for task, reasons in manifest.unable.items():
        for reason in reasons.values():
            output.say(f"  not in {task}: {reason}")
    longest, shortest = planned_s(suite, cells), shortest_s(suite, cells)
    done = f" ({bench.num_done} of {len(manifest.cells)} done)" if bench.num_done else ""
    output.say(
        f"{units.plural(len(cells), 'cell')}{done}, between {units.seconds(shortest)} and"
        f" {units.seconds(longest)} in all"
    )
    if output.verbosity > 0:
        for cell in cells:
            output.say(f"  {cell.name}")


def _run(bench: Bench, output: Output) -> None:
    display = BenchDisplay(
        output.notes,
        len(bench.manifest.cells),
        bench.num_done,
        is_animated=output.is_animated,
        is_quiet=output.verbosity < 0,
    )

    def finished(result: CellResult) -> None:
        display.finished(result)
        if result.load is not None and result.load.busy_cores > BUSY_CORES:
            output.say(
                f"  note: {result.load.busy_cores:.1f} cores were busy just before this cell"
            )

    try:
        run_cells(bench, PEERS_BY_NAME, display.show, finished, output.say)
    finally:
        display.close()


def _report(bench: Bench, output: Output) -> bool:
    from tianji_cli.commands.bench_report import show_comparison, write_bench_report

    report = write_bench_report([bench.paths.root], None)
    show_comparison(report, output)
    return all(
        peer.outcomes.get("reached", 0) == peer.num_cells
        for task in report.comparison.tasks
        for peer in task.peers
    )
