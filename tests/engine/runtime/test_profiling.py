"""`profile=true`: rows for every role, whose sections add up to the run's wall time."""

from __future__ import annotations

import typing
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from engine.blueprint import make_blueprint
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.messages import COORDINATOR, Counters, Exit, Report, Start, Stop, Stopped
from engine.roles.commands import Command, Quit, Send, StartRun, Wake, WriteTrace
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import Event
from engine.runtime.inline import InlineRun
from engine.runtime.profiling import REPORT_S, SECTION_OF, ProfiledRole
from engine.spec import EnvSpec, Experiment, StopSpec
from engine.testing import make_experiment
from engine.timing import SECTIONS, Stopwatch
from engine.trace.reader import read_table
from engine.trace.records import Consumption, Production, Profile
from engine.trace.summary import Summary
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import make_codec


def run(root: Path, experiment: Experiment) -> Path:
    for name in ("trace", "checkpoints"):
        (root / name).mkdir(parents=True)
    graph = build_graph(read_policy("local"), experiment)
    info = RunInfo(run_id="run", num_hosts=1, num_actors=graph.count("actor"), num_groups=1)
    inline = InlineRun(
        make_blueprint(experiment), info, graph.processes[0].roles, root, lambda _: None
    )
    inline.run()
    return root / "trace"


def experiment_for(seconds: float, *, profile: bool) -> Experiment:
    experiment = make_experiment(
        actors=2, env=EnvSpec(id="CartPole-v1", num_envs=4), stop=StopSpec(seconds=seconds)
    )
    return msgspec.structs.replace(experiment, profile=profile)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("profiled") / "run", experiment_for(2.5, profile=True))


def by_role(trace: Path) -> dict[str, list[Profile]]:
    rows = defaultdict(list)
    for row in read_table(trace, Profile):
        rows[row.role].append(row)
    return rows


def test_without_being_asked_nothing_is_profiled(tmp_path: Path):
    trace = run(tmp_path / "run", experiment_for(0.2, profile=False))
    assert read_table(trace, Profile) == []
    assert read_table(trace, Production)


def test_every_role_accounts_for_the_whole_run(trace: Path):
    summary = msgspec.json.decode((trace.parent / "summary.json").read_bytes(), type=Summary)
    profile = by_role(trace)
    assert set(profile) == {"actor-0", "actor-1", "buffer-0", "learner-0", COORDINATOR}
    for role, rows in profile.items():
        assert len(rows) >= summary.wall_s / (REPORT_S + 0.5), role
        for row in rows:
            assert set(row.sections_s) <= set(SECTIONS)
            assert sum(row.sections_s.values()) == pytest.approx(row.wall_s, abs=1e-6)
        # The tenths in which it is begun and ended are some per cent of so short a run.
        assert sum(row.wall_s for row in rows) == pytest.approx(summary.wall_s, abs=0.3)
        assert rows[-1].t_s == pytest.approx(summary.wall_s, abs=0.3)


def test_sections_agree_with_what_a_learner_says_of_itself(trace: Path):
    profile = by_role(trace)
    update_s = sum(row.update_s for row in read_table(trace, Consumption))
    of_update = ("updating", "batching", "weights")
    learnt_s = sum(
        row.sections_s.get(name, 0.0) for row in profile["learner-0"] for name in of_update
    )
    # Both are wall time: what the machine gives to others between their marks is in one of them.
    assert 0.99 * update_s <= learnt_s <= 2 * update_s
    for section in ("environment", "inference", "recording", "others"):
        assert all(row.sections_s[section] > 0 for row in profile["actor-1"][:2])


def test_processor_time_is_that_of_the_role_at_work(trace: Path):
    profile = by_role(trace)
    wall_s = sum(row.wall_s for row in profile[COORDINATOR])
    cpu_s = {role: sum(row.cpu_s for row in rows) for role, rows in profile.items()}
    process_cpu_s = sum(row.process_cpu_s for row in profile[COORDINATOR])
    assert 0 < sum(cpu_s.values()) <= 1.02 * process_cpu_s <= 1.1 * wall_s
    assert cpu_s["learner-0"] > cpu_s["buffer-0"]


def test_every_command_that_a_body_performs_has_a_section():
    by_loop = {Send, Wake, StartRun, Quit}
    assert set(SECTION_OF) == set(typing.get_args(Command)) - by_loop
    assert set(SECTION_OF.values()) <= set(SECTIONS)


class Echo:
    """Answers `Stop` as roles do; each event takes a millisecond."""

    address = "actor-0"

    def __init__(self) -> None:
        self.wall_ns = 0

    def handle(self, event: Event, now_s: float) -> list[Command]:
        self.wall_ns += 1_000_000
        if isinstance(event, Stop):
            return [Send(COORDINATOR, Stopped(address=self.address, counters=Counters()))]
        return []


def rows_of(commands: list[Command]) -> list[Profile]:
    return [
        row
        for command in commands
        if isinstance(command, Send) and isinstance(command.message, Report)
        for row in command.message.records
        if isinstance(row, Profile)
    ]


def test_rows_cover_the_time_from_start_to_stop_without_gap_or_overlap():
    echo = Echo()
    watch = Stopwatch(lambda: echo.wall_ns, lambda: 0, lambda: 0)
    role = ProfiledRole(echo, "box", watch)
    assert role.handle(Exit(), 9.0) == [], "before the start nothing counts"
    assert role.handle(Start(origin_ns=0), 0.0) == []
    assert role.handle(Exit(), 0.9) == []
    first = rows_of(role.handle(Exit(), 1.1))
    assert role.handle(Exit(), 1.2) == []
    goodbye = role.handle(Stop(), 1.3)
    assert isinstance(goodbye[-1], Send)
    assert isinstance(goodbye[-1].message, Stopped), "the report comes before the last word"
    rows = [*first, *rows_of(goodbye)]
    assert [row.t_s for row in rows] == [1.1, 1.3]
    assert [row.wall_s for row in rows] == pytest.approx([0.002, 0.002])
    assert [row.sections_s for row in rows] == [{"control": 0.002}] * 2


class Idle:
    """A coordinator that has nothing to say."""

    address = COORDINATOR

    def handle(self, event: Event, now_s: float) -> list[Command]:
        return []


def test_the_coordinator_writes_its_rows_itself():
    """It used to report to itself, and a report that was due at the very end was lost."""
    role = ProfiledRole(Idle(), "coordinator", Stopwatch())
    role.handle(Start(origin_ns=0), 0.0)
    (command,) = role.handle(Stop(), REPORT_S)
    assert isinstance(command, WriteTrace)
    assert [type(row) for row in command.records] == [Profile]


def test_who_is_busy_and_only_looks_for_messages_does_not_wait(tmp_path: Path):
    """It may lose its core there: that is no time in which it had nothing to do."""
    stopwatch = Stopwatch()
    stopwatch.add_role("actor-0")
    stopwatch.give_turn("actor-0")
    wiring = Wiring(bind=f"ipc://{tmp_path / 's'}")
    with Sockets("actor-0", wiring, make_codec(), sections=stopwatch) as sockets:
        for _ in range(100):
            assert list(sockets.receive(0.0)) == []
        spent = stopwatch.read("actor-0").wall_ns
        assert spent["receiving"] > 0
        assert spent["waiting"] == 0
        assert list(sockets.receive(0.02)) == []
        assert stopwatch.read("actor-0").wall_ns["waiting"] >= 15_000_000
