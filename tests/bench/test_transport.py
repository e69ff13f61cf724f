"""Transport: suites, blocks, ratios, what is refused; the course on real processes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from engine.errors import ConfigError
from tests.helpers.paths import REPOSITORY
from tests.helpers.ports import find_free_ports
from tests.helpers.running import no_new_descriptor, run_tianji
from tianji_cli.bench.kinds import TRANSPORT, kind_of_suite, read_suite
from tianji_cli.bench.machine import Load, this_machine
from tianji_cli.bench.systems.base import SystemMissingError, SystemOptions
from tianji_cli.bench.transport.compare import compare
from tianji_cli.bench.transport.hosts import Hosts
from tianji_cli.bench.transport.methods import METHODS, Found, Place, find
from tianji_cli.bench.transport.programs.harness import WrongBytesError, measure
from tianji_cli.bench.transport.programs.workers import Ends, pattern
from tianji_cli.bench.transport.records import (
    Point,
    TransportCell,
    TransportFiles,
    TransportManifest,
    TransportResult,
    make_cells,
)
from tianji_cli.bench.transport.run_cell import conclude
from tianji_cli.bench.transport.suite import load_transport_suite
from tianji_cli.commands.benchmarks.bench_transport import report_transport
from tianji_cli.config.inventory import load_inventory
from tianji_cli.connectors.local import LocalNode
from tianji_cli.git_state import GitState
from tianji_cli.output import Output
from tianji_cli.render.bench.figures_transport import transport_figure
from tianji_cli.storage.json_files import write_json

ROOT = REPOSITORY
SMALL, LARGE = 1024, 65536
HERE = Found(command=[sys.executable], versions={})


def manifest_of(place: Place = "one host", senders: str = "[1,4]") -> TransportManifest:
    suite = load_transport_suite(
        "transport", [f"sizes_bytes=[{SMALL},{LARGE}]", f"senders={senders}"]
    )
    found = {name: HERE for name, method in METHODS.items() if place in method.places}
    return TransportManifest(
        bench_id="b",
        argv=[],
        suite=suite,
        num_blocks=2,
        cells=make_cells(suite, place, list(found), 2),
        found=found,
        missing={"ray": "Ray is not installed"},
        machine=this_machine(),
        git=GitState(commit=None, dirty=None),
        started_at="",
    )


def result(
    manifest: TransportManifest, cell: TransportCell, rates: dict[int, float]
) -> TransportResult:
    """`rates` in bytes per second by size; none is a failure."""
    points = [
        Point(size_bytes=size, messages=100, seconds=100 * size / rate, latencies_s=[1e-5, 3e-5])
        for size, rate in rates.items()
    ]
    return TransportResult(
        cell=cell,
        outcome="ok" if points else "failed",
        points=points,
        started_at="",
        wall_s=1.0,
        load=Load(average_1min=0.0, busy_cores=0.0),
        machine_id=manifest.machine.id,
    )


def results_of(manifest: TransportManifest) -> dict[TransportCell, TransportResult]:
    """The limit is 10 GB/s in block 0 and 20 in block 1; TianJi has 80 %, pyzmq 20 %."""
    share = {"limit": 1.0, "tianji": 0.8}
    found = {}
    for cell in manifest.cells:
        rate = share.get(cell.method, 0.2) * 1e10 * (1 + cell.block)
        rates = {} if cell.method == "mpi4py" else {SMALL: rate / 10, LARGE: rate}
        found[cell] = result(manifest, cell, rates)
    return found


def test_the_shipped_suite_measures_everything_the_issue_names():
    assert kind_of_suite(read_suite("transport")) is TRANSPORT
    suite = load_transport_suite("transport")
    assert (min(suite.sizes_bytes), max(suite.sizes_bytes)) == (1024, 64 * 2**20)
    assert suite.senders == (1, 2, 4, 8)
    assert set(suite.methods) == set(METHODS)


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("methods=[tianjy]", "unknown method 'tianjy'"),
        ("sizes_bytes=[1000001]", "1000001 bytes"),
        ("senders=[100]", "at most 64"),
        ("sizes_bytes=[]", "must be given"),
    ],
)
def test_what_cannot_be_measured_is_refused(setting: str, word: str):
    with pytest.raises(ConfigError, match=word):
        load_transport_suite("transport", [setting])


def test_the_limit_is_that_of_two_processes_and_no_run_goes_without_keys():
    cells = {(cell.method, cell.senders) for cell in manifest_of().cells}
    assert {("limit", 1), ("tianji", 1), ("tianji", 4)} <= cells
    assert ("limit", 4) not in cells
    assert "tianji-plain" not in {method for method, _ in cells}


def test_ratios_are_paired_by_block():
    manifest = manifest_of()
    comparison = compare(manifest, results_of(manifest))
    rows = {(row.method, row.senders): row for row in comparison.rows}
    ours = rows["tianji", 4].rates[1]
    assert ours.of_limit is not None
    assert ours.of_limit.estimate == pytest.approx(0.8)
    assert ours.of_limit.low == pytest.approx(0.8)
    theirs = rows["pyzmq-ipc", 4].rates[1]
    assert theirs.ours is not None
    assert theirs.ours.estimate == pytest.approx(4.0)
    assert ours.messages_per_s == pytest.approx(ours.bytes_per_s.estimate / LARGE)
    assert rows["tianji", 1].latencies[0].p50_s == pytest.approx(2e-5)
    assert rows["mpi4py", 1].num_failed == 2
    notes = " ".join(comparison.notes)
    assert "Ray is not installed" in notes
    assert "mpi4py, buffers, 1 sender: 2 failed" in notes


def test_between_hosts_the_wire_is_what_iperf3_gets():
    manifest = manifest_of("between hosts")
    assert {cell.method for cell in manifest.cells} == {
        "tianji",
        "tianji-plain",
        "pyzmq-tcp",
        "pyzmq-tcp-copy",
        "iperf3",
    }
    comparison = compare(manifest, results_of(manifest))
    (row,) = [r for r in comparison.rows if (r.method, r.senders) == ("tianji", 4)]
    assert row.rates[1].of_limit is not None
    assert row.rates[1].of_limit.estimate == pytest.approx(4.0)


def test_the_figure_draws_every_method_and_a_report_can_be_made_again(tmp_path: Path):
    manifest = manifest_of()
    paths = TransportFiles(tmp_path / "b")
    paths.root.mkdir()
    write_json(paths.manifest, manifest)
    for cell, one in results_of(manifest).items():
        paths.cell(cell).mkdir(parents=True)
        paths.write_result(cell, one)
    first = report_transport(paths.root, tmp_path / "kept", Output(verbosity=-1))
    assert report_transport(tmp_path / "kept", None, Output(verbosity=-1)) == first
    assert (tmp_path / "kept/plots/transport.svg").is_file()
    axes = transport_figure(first).axes
    assert [len(each.get_legend_handles_labels()[1]) for each in axes] == [11, 10]


@pytest.mark.parametrize(
    "said", [b"\xff", b'{"points": 1}', b'{"a":' * 100_000, b'{"points": ["\xff"]}']
)
def test_what_cannot_be_read_is_a_failed_cell(said: bytes):
    manifest = manifest_of()
    found = conclude(manifest, manifest.cells[0], [], lambda: said)
    assert (found.outcome, found.points) == ("failed", [])
    assert "cannot be read" in found.detail


def test_a_method_that_is_not_known_here_is_one_error(tmp_path: Path):
    paths, manifest = TransportFiles(tmp_path), manifest_of()
    (cell, *_) = manifest.cells
    strange = msgspec.structs.replace(cell, method="carrier-pigeon")
    for changed in (
        msgspec.structs.replace(manifest, cells=[strange]),
        msgspec.structs.replace(manifest, found={"carrier-pigeon": HERE}),
        msgspec.structs.replace(manifest, missing={"carrier-pigeon": "it is winter"}),
    ):
        write_json(paths.manifest, changed)
        with pytest.raises(ConfigError, match="unknown methods: carrier-pigeon"):
            report_transport(tmp_path, None, Output(verbosity=-1))


def test_what_is_not_installed_is_named_with_what_to_do(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TIANJI_XINGTIAN_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = SystemOptions(tmp_path)
    for name, word in (
        ("ray", "--install rllib"),
        ("xingtian", "TIANJI_XINGTIAN_PYTHON="),
        ("iperf3", "apt-get"),
        ("mpi4py", "pip install mpi4py"),
    ):
        with pytest.raises(SystemMissingError) as caught:
            find(METHODS[name], options)
        assert word in str(caught.value.fix)
    assert find(METHODS["tianji"], options).command == [sys.executable]


class Damaging(Ends):
    """Delivers what was sent, but for one byte at the end of a later message."""

    is_pulled = True

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        self._source = pattern(0, size_bytes)
        self._left = int(job["options"]["good"])

    def receive(self, target: np.ndarray, count: int) -> None:
        for _ in range(count):
            np.copyto(target, self._source)
            self._left -= 1
        if self._left < 0:
            target[-1] ^= 1


def job_of(directory: Path, **words: object) -> dict[str, Any]:
    return {
        "senders": 1,
        "sizes_bytes": [SMALL],
        "measure_s": 0.01,
        "latency_sizes_bytes": [],
        "latency_repeats": 0,
        "shares_clock": True,
        "scratch": str(directory),
        "control": str(directory / "control"),
        "output": str(directory / "points.json"),
        "options": {},
        **words,
    }


@pytest.mark.parametrize("good", [0, 3, 5], ids=["at once", "later", "while timed"])
def test_one_wrong_byte_is_noticed(tmp_path: Path, good: int):
    with pytest.raises(WrongBytesError):
        measure(Damaging, job_of(tmp_path, options={"good": good}))


def run_ends(module: str, job: dict[str, Any], *words: str) -> list[dict[str, Any]]:
    path = Path(job["scratch"]) / "job.json"
    path.write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-m", f"tianji_cli.bench.transport.programs.{module}", str(path), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points: list[dict[str, Any]] = json.loads(Path(job["output"]).read_text())["points"]
    return points


@pytest.mark.processes
@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        ("tianji_channel", {}, ()),
        ("memory", {}, ("limit",)),
        ("pyzmq_pipe", {"transport": "ipc", "copy": False}, ()),
        ("pyzmq_pipe", {"transport": "tcp", "copy": True}, ()),
    ],
)
def test_real_ends_deliver_every_byte(
    tmp_path: Path, module: str, options: dict[str, object], words: tuple[str, ...]
):
    senders = 1 if module == "memory" else 2
    job = job_of(tmp_path, senders=senders, sizes_bytes=[SMALL, 2**20], options=options)
    points = run_ends(module, job, *words)
    assert [point["size_bytes"] for point in points] == [SMALL, 2**20]
    assert all(point["seconds"] >= 0.01 and point["messages"] >= senders for point in points)
    assert set(os.listdir(tmp_path)) <= {"job.json", "points.json", "control", "buffer-0", "pipe"}


@pytest.mark.processes
def test_single_messages_are_timed(tmp_path: Path):
    job = job_of(tmp_path, latency_sizes_bytes=[SMALL], latency_repeats=20)
    ((latencies),) = [point["latencies_s"] for point in run_ends("tianji_channel", job)]
    assert len(latencies) == 20
    assert all(0 < latency < 5 for latency in latencies)


def tianji(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", *words],
        env={
            **os.environ,
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "PYTHONPATH": str(ROOT),
            "TIANJI_XINGTIAN_PYTHON": str(directory / "none"),
            "TIANJI_RESULTS": str(directory),
        },
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.mark.processes
def test_the_command_measures_reports_and_can_go_on(tmp_path: Path):
    settings = ["senders=[1]", "methods=[limit,tianji,memcpy,xingtian]", "measure_s=0.01"]
    settings += [f"sizes_bytes=[{SMALL}]", "latency_repeats=5"]
    words = ["--seeds", "1", "--name", "b", *(w for s in settings for w in ("-s", s))]
    first = tianji(tmp_path, "bench", "transport", "--yes", "--json", *words)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert {row["method"] for row in document["rows"]} == {"limit", "tianji", "memcpy"}
    assert "XingTian is not installed" in document["missing"]["xingtian"]
    assert (tmp_path / "b/plots/transport.png").is_file()
    (tmp_path / "b/cells/memcpy-1-block0/cell.json").unlink()
    again = tianji(tmp_path, "bench", "--resume", "b", "--yes")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "b/cells/memcpy-1-block0/cell.json").is_file()
    report = tianji(tmp_path, "report", "b")
    assert report.returncode == 0, report.stderr
    assert "limit: both copies, spinning" in report.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--compare", "rllib"], "choose with -s methods"),
        (["--hosts", "one.yaml"], "needs two hosts"),
        (["-s", "methods=[limit]"], "TianJi's own channel is not among"),
    ],
)
def test_wrong_words_are_refused(tmp_path: Path, words: list[str], expected: str):
    alone = tmp_path / "one.yaml"
    alone.write_text("version: 1\nhosts: {box: {address: 192.0.2.1}}\n")
    words = [str(alone) if word == alone.name else word for word in words]
    done = run_tianji(tmp_path, "bench", "transport", "--dry-run", *words)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr


@pytest.mark.processes
def test_a_program_that_ended_before_it_got_its_job_is_a_failed_cell(tmp_path: Path):
    path, python = tmp_path / "hosts.yaml", tmp_path / "python"
    path.write_text(
        f"version: 1\ndefaults: {{address: 127.0.0.1, workdir: {tmp_path}/work,"
        f" python: {sys.executable}}}\nhosts: {{a: , b: }}\n"
    )
    python.write_text("#!/bin/sh\nexec <&-\necho no room for it >&2\nsleep 0.2\n")
    python.chmod(0o755)

    class LateNode(LocalNode):
        """Its programs are gone, or deaf, by the time that they are spoken to."""

        def spawn(self, command, env, directory=None):  # type: ignore[no-untyped-def]
            started = super().spawn([str(python), *command[1:]], env, directory)
            time.sleep(0.1)
            return started

    manifest = msgspec.structs.replace(
        manifest_of("between hosts", "[2]"), hosts=list(load_inventory(path).hosts)
    )
    reach = lambda host, _: LateNode(host.name)  # noqa: E731
    with Hosts(manifest.hosts, "b", reach) as hosts, no_new_descriptor():
        found = hosts.run_cell(manifest, manifest.cells[0])
    assert found.outcome == "failed"
    assert "no room for it" in found.detail


@pytest.mark.processes
@pytest.mark.parametrize(
    "method",  # the next test runs the last, too
    ["tianji", *(pytest.param(m, marks=pytest.mark.slow) for m in ("tianji-plain", "pyzmq-tcp"))],
)
def test_programs_on_hosts_get_their_job_and_are_gone_afterwards(tmp_path: Path, method: str):
    """Both hosts are this machine; the connector is the real one for it."""
    path = tmp_path / "hosts.yaml"
    path.write_text(
        f"version: 1\ndefaults: {{address: 127.0.0.1, workdir: {tmp_path}/work,"
        f" python: {sys.executable}, ports: 29700-29899}}\nhosts: {{a: , b: }}\n"
    )
    manifest = msgspec.structs.replace(
        manifest_of("between hosts", "[2]"), hosts=list(load_inventory(path).hosts)
    )
    manifest = msgspec.structs.replace(
        manifest, suite=msgspec.structs.replace(manifest.suite, measure_s=0.01, latency_repeats=3)
    )
    cell = next(cell for cell in manifest.cells if cell.method == method)
    reach = lambda host, _: LocalNode(host.name)  # noqa: E731
    with Hosts(manifest.hosts, "b", reach) as hosts, no_new_descriptor():
        found = hosts.run_cell(manifest, cell)
    assert found.outcome == "ok", found.detail
    assert set(found.versions) == {"a", "b"}
    assert found.versions["a"]["numpy"] == np.__version__
    assert [point.size_bytes for point in found.points] == [SMALL, LARGE]
    module = f"tianji_cli.bench.transport.programs.{METHODS[method].module}"
    mine = [p for p in psutil.process_iter(["cmdline"]) if module in (p.info["cmdline"] or [])]
    assert not [p for p in mine if str(tmp_path) in str(p.environ())]


@pytest.mark.processes
def test_ports_that_somebody_has_are_gone_around(tmp_path: Path):
    """One for its control lines, and one for its messages: at the third place all are free."""
    taken = []
    with contextlib.ExitStack() as stack:
        first = find_free_ports("127.0.0.1", range(29100, 29400), 1)[0]
        for port in (first, first + 4 + 1):
            with contextlib.suppress(OSError):  # somebody else has it: all the better
                taken.append(stack.enter_context(socket.create_server(("127.0.0.1", port))))
        path = tmp_path / "hosts.yaml"
        path.write_text(
            f"version: 1\ndefaults: {{address: 127.0.0.1, workdir: {tmp_path}/work,"
            f" python: {sys.executable}, ports: {first}-{first + 99}}}\nhosts: {{a: , b: }}\n"
        )
        manifest = msgspec.structs.replace(
            manifest_of("between hosts", "[2]"), hosts=list(load_inventory(path).hosts)
        )
        suite = msgspec.structs.replace(manifest.suite, measure_s=0.01, latency_repeats=3)
        manifest = msgspec.structs.replace(manifest, suite=suite)
        cell = next(cell for cell in manifest.cells if cell.method == "pyzmq-tcp")
        with Hosts(manifest.hosts, "b", lambda host, _: LocalNode(host.name)) as hosts:
            found = hosts.run_cell(manifest, cell)
    assert found.outcome == "ok", found.detail
