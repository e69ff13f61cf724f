"""A thousand roles on a host: what is said, written and looked at grows with their number and not
with its square, and neither end of a pipe waits for the other. Counted, not timed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

import engine.supervision.host_state as scribe_module
import engine.supervision.worker_processes as children_module
from engine.clock import TimerQueue
from engine.control_protocol import Beat, CommonSpec, FromSupervisor, Prepare, WorkerSpec
from engine.graph.cut import single_cut
from engine.host.process_identity import ProcessId
from engine.host.tether import tethered
from engine.host.usage import usage_of
from engine.roles.coordinator.totals import RunInfo
from engine.spec import EnvSpec, Experiment
from engine.supervision.host_run import HostRun
from engine.supervision.host_state import HostState, StateWriter
from engine.supervision.json_lines import LineReader, write_line
from engine.supervision.worker_processes import WorkerProcesses
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.connectors.base import Connection
from tianji_cli.connectors.local import LocalNode
from tianji_cli.interrupts import Interrupts
from tianji_cli.planning.plan import make_plan
from tianji_cli.planning.wiring import HostSetup, wire
from tianji_cli.runs.channels import SupervisorChannels

PATIENCE_S = 30.0
DEAF = [sys.executable, "-c", "import time; time.sleep(600)"]
"""A process that reads nothing."""


def experiment(actors: int, policy: str = "tianji") -> Experiment:
    return Experiment(
        name="many",
        env=EnvSpec(id="CartPole-v1"),
        algorithm={"name": "ppo"},
        policy=policy,
        actors=actors,
    )


def launch_bytes(actors: int, *, tcp: bool, policy: str = "tianji") -> int:
    host = Host(name="a", address="127.0.0.1", connection="local", ports=(20_000, 40_000))
    made = make_plan(experiment(actors, policy), Inventory(source="test", hosts=(host,)))
    endpoint = "tcp://127.0.0.1:20000" if tcp else "ipc:///tmp/tianji-0-1-2-x/s100"
    names = [*made.host_of, *made.supervisors.values()] if tcp else []
    keys = dict.fromkeys(names, "k" * 40)
    setup = HostSetup(
        endpoints=(endpoint,) * len(made.servers), run_dir="/results/run", public_keys=keys
    )
    return sum(len(msgspec.json.encode(item)) for item in wire(made, {"a": setup}, "r").values())


@pytest.mark.parametrize("policy", ["tianji", "environments"])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_launch_grows_with_the_number_of_roles_and_not_with_its_square(tcp: bool, policy: str):
    small, large = (launch_bytes(100 * n, tcp=tcp, policy=policy) for n in (1, 10))
    assert large < 10.5 * small
    assert large < 1000 * (2600 if policy == "environments" else 1300)


@pytest.fixture
def deaf_children(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcesses]:
    monkeypatch.setattr(children_module, "tethered", lambda _: DEAF)
    children = WorkerProcesses({})
    yield children
    os.kill(children.pid, signal.SIGKILL)
    children.close()


def introduce(children: WorkerProcesses) -> None:
    children.introduce(
        CommonSpec(
            host="a",
            run_dir="/r",
            info=RunInfo(run_id="r", num_hosts=1, num_actors=1, num_groups=1),
            addresses=(),
            supervisors=(),
        )
    )


def test_a_supervisor_never_waits_for_its_forkserver(deaf_children: WorkerProcesses):
    introduce(deaf_children)
    for number in range(10_000):
        deaf_children.spawn(WorkerSpec(address=f"actor-{number}", roles=(f"actor-{number}",)))
    deaf_children.end_all()
    deaf_children.flush()
    assert deaf_children.unwritten_fd is not None
    assert len(deaf_children.running) == 10_000


def test_what_a_forkserver_has_not_read_yet_comes_in_order(monkeypatch: pytest.MonkeyPatch):
    """Far more than a pipe holds, to a process that writes each line back before it reads on."""
    echo = "import os\nfor line in open(0, 'rb'):\n os.write(1, line)\n"
    monkeypatch.setattr(children_module, "tethered", lambda _: [sys.executable, "-c", echo])
    children = WorkerProcesses({})
    echoed: LineReader[dict[str, object]] = LineReader(children.reader.fd, dict)
    for number in range(5000):
        children.spawn(WorkerSpec(address=f"actor-{number}", roles=(f"actor-{number}",)))
    seen: list[dict[str, object]] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(seen) < 5000:
        children.flush()
        seen.extend(echoed.read())
        assert time.monotonic() < deadline_s
    children.close()
    workers = [msgspec.convert(line["worker"], WorkerSpec) for line in seen]
    assert [worker.address for worker in workers] == [f"actor-{n}" for n in range(5000)]


@pytest.fixture
def local() -> Iterator[LocalNode]:
    node = LocalNode("a")
    yield node
    node.close()


@pytest.fixture
def deaf(local: LocalNode) -> Iterator[Connection]:
    """To a supervisor that reads nothing."""
    known = set(psutil.Process().children())
    connection = local.spawn(DEAF, {})
    yield connection
    for process in set(psutil.Process().children()) - known:
        process.kill()
    assert connection.wait(PATIENCE_S)


def test_a_command_whose_supervisor_reads_nothing_hears_ctrl_c(deaf: Connection):
    interrupts = Interrupts()
    with interrupts.installed():
        lines = SupervisorChannels({"a": deaf}, interrupts, set())
        for _ in range(20_000):
            assert lines.by_host["a"].tell(Beat())
        os.kill(os.getpid(), signal.SIGINT)
        assert next(iter(lines.reports(lambda: None))) == (None, None)
        assert interrupts.count == 1
        lines.close()


def test_a_supervisor_that_is_gone_is_said(local: LocalNode):
    connection = local.spawn(["true"], {})
    lines = SupervisorChannels({"a": connection}, Interrupts(), set())
    assert connection.wait(PATIENCE_S)
    assert not lines.by_host["a"].tell(Beat())
    lines.close()


def test_a_line_in_many_pieces_is_put_together_once():
    reading, writing = os.pipe()
    reader: LineReader[FromSupervisor] = LineReader(reading, list[str])
    words = ["x" * 1000] * 3000
    pid = os.fork()
    if pid == 0:
        write_line(writing, words)  # type: ignore[arg-type]
        write_line(writing, ["end"])  # type: ignore[arg-type]
        os._exit(0)
    os.close(writing)
    seen: list[object] = []
    while not reader.at_end:
        seen.extend(reader.read())
    os.waitpid(pid, 0)
    os.close(reading)
    assert seen == [words, ["end"]]


def test_the_state_is_written_once_for_all_that_changes_within_a_moment(
    deaf_children: WorkerProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[int] = []

    def write(_: Path, state: HostState) -> None:
        written.append(len(state.roles))

    monkeypatch.setattr(scribe_module, "write_state", write)
    clock = [0.0]
    timers = TimerQueue(lambda: clock[0])
    run = HostRun.__new__(HostRun)
    run.children = deaf_children
    run.prepare = Prepare(
        experiment=experiment(1),
        cut=single_cut(experiment(1)),
        run_id="r",
        run_dir=str(tmp_path),
        host="a",
    )
    monkeypatch.setattr(HostRun, "socket_dir", "")
    state_writer = StateWriter(tmp_path, run, timers)
    introduce(deaf_children)
    for number in range(1000):
        deaf_children.spawn(WorkerSpec(address=f"actor-{number}", roles=()))
        deaf_children.spawned(f"actor-{number}", os.getpid())
        state_writer.write_soon()
    assert written == []
    clock[0] = scribe_module.SOON_S
    timers.run_due()
    assert written == [1000]
    state_writer.write_soon()
    clock[0] += scribe_module.SOON_S
    timers.run_due()
    assert written == [1000, 1000]


def test_what_a_process_has_used_is_what_psutil_says():
    own = ProcessId.of(os.getpid())
    assert own is not None
    used, process = usage_of(own), psutil.Process()
    assert used is not None
    assert abs(used.rss_bytes - process.memory_info().rss) < 2**24
    assert used.num_threads == process.num_threads()
    times = process.cpu_times()
    assert abs(used.cpu_s - times.user - times.system) < 1.0


def test_a_process_that_is_gone_or_another_one_has_used_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    known = ProcessId.of(child.pid)
    assert known is not None
    child.wait()
    assert usage_of(known) is None
    own = ProcessId.of(os.getpid())
    assert own is not None
    assert usage_of(msgspec.structs.replace(own, started=own.started - 1)) is None


def test_a_tethered_child_whose_parent_is_gone_does_not_begin():
    command = tethered("no.such.module")
    position = command.index(str(os.getpid()))
    done = subprocess.run(
        [*command[:position], "1", *command[position + 1 :]], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGKILL, b"")


def test_a_tethered_child_is_the_module_with_its_arguments():
    done = subprocess.run(tethered("json.tool", "--help"), capture_output=True, check=True)
    assert b"usage" in done.stdout


PARENT = """
import os, sys
from engine.supervision.worker_processes import WorkerProcesses
print(WorkerProcesses({}).pid, flush=True)
sys.stdin.read()
"""
HANGS = "import os\nopen(os.environ['BEGUN'], 'w').close()\nimport time\ntime.sleep(600)\n"


def test_a_forkserver_that_is_still_importing_dies_with_its_supervisor(tmp_path: Path):
    """An import of PyTorch that takes for ever stands for one that takes seconds."""
    (tmp_path / "torch.py").write_text(HANGS)
    begun = tmp_path / "begun"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "BEGUN": str(begun)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert parent.stdout is not None
    forkserver = psutil.Process(int(parent.stdout.readline()))
    deadline_s = time.monotonic() + PATIENCE_S
    while not begun.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    parent.kill()
    try:
        forkserver.wait(PATIENCE_S)
    except psutil.TimeoutExpired:
        forkserver.kill()
        raise
    finally:
        parent.communicate()
