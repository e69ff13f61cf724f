"""Roles that are lost at any moment, with what they had still to say: a run's files agree even so.

Real roles and a real coordinator, in every order in which it may hear of what they did.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import PROTOCOL_VERSION
from engine.graph.cut import Cut
from engine.messages import (
    COORDINATOR,
    Alive,
    Joined,
    Probe,
    ProbeAnswered,
    Restart,
    RoleExited,
    Start,
    StopRequested,
)
from engine.progress import Resumed, RunCounters
from engine.replay.limiter import RateLimiter
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import (
    AbandonRollout,
    CollectRollout,
    Command,
    DrawSamples,
    EndRun,
    ExportWeights,
    LoadWeights,
    Role,
    SaveCheckpoint,
    Send,
    StartRun,
    Update,
    UpdateFromSamples,
    WriteTrace,
)
from engine.roles.coordinator.coordinator import CoordinatorRole
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import (
    CheckpointWritten,
    Event,
    RolloutAbandoned,
    RolloutCollected,
    SamplesDrawn,
    TimerFired,
    Updated,
    WeightsExported,
)
from engine.roles.learner import LearnerRole
from engine.roles.replay_buffer import ReplayBufferRole
from engine.rollout import Samples, SamplesInfo
from engine.spec import StalenessSpec, StopSpec
from engine.testing import make_experiment, make_rollout, make_weights
from engine.trace.records import Record
from engine.trace.summary import Summary
from tests.helpers.engine.lossy_wire import Wire
from tests.helpers.synthetic_run import manifest_of, write_rows
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

STEPS = 8
"""Of a rollout; two make a batch."""
SUPERVISOR = "supervisor-0"
STALENESS = StalenessSpec(max_lag=2)
INFO = SamplesInfo(env_steps=16, drawn_s=0.0, age_mean_s=0.0, age_max_s=0.0)
COUNTERS = RunCounters(
    elapsed_s=5.0, env_steps_collected=500, env_steps_consumed=400, env_steps_dropped=100
)
RESUMED = Resumed(
    run_id="before", checkpoint="", version=7, updates=7, counters=COUNTERS, resumes=1
)


class Probed(Wire):
    """Processes answer whether their loop turns, whatever their roles do."""

    def send(self, sender: str, receiver: str, message: Event) -> None:
        if isinstance(message, Probe):
            number = message.number
            sender, receiver, message = (
                receiver,
                sender,
                ProbeAnswered(process=receiver, number=number, longest_turn_s=0.1, work=number),
            )
        super().send(sender, receiver, message)


class Supervisor:
    """It says that it is there whenever it is asked, and starts actors again."""

    def __init__(self, restart: Callable[[str, int], None]) -> None:
        self.address = SUPERVISOR
        self._restart = restart

    def handle(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case Alive():
                return [Send(COORDINATOR, Alive(address=SUPERVISOR, host="box"))]
            case Restart(process=process, epoch=epoch):
                self._restart(process, epoch)
        return []


class World:
    """Groups of two actors each, a buffer and a learner, who take no time; a coordinator, and a
    supervisor that starts two actors again.

    Args:
        seed: Of the order in which everything happens.
        groups: How many.
        has_replay: Whether samples are drawn from a store.
        resumed: Where the run goes on from.
        is_fused: Whether each group is one process.
    """

    def __init__(
        self, seed: int, groups: int, has_replay: bool, resumed: Resumed | None, is_fused: bool
    ) -> None:
        self.choose = random.Random(seed)
        self.rows: list[Record] = []
        self.summary: Summary | None = None
        self._resumed = resumed
        self.version = resumed.version if resumed else 0
        actors = 2 * groups
        cut = Cut(policy="tianji", actors=actors, groups=groups, staleness=STALENESS)
        self.addresses = cut.addresses
        members = {name: f"worker-{cut.group_of_role(name)}" for name in cut.addresses}
        self.groups = Groups(cut, members if is_fused else {})
        self.experiment = msgspec.structs.replace(
            make_experiment(
                actors=actors,
                groups=groups,
                stop=StopSpec(env_steps=None),
                staleness=STALENESS,
                policy="tianji",
            ),
            restarts=2,
        )
        info = RunInfo(
            run_id="run", num_hosts=1, num_actors=actors, num_groups=groups, resumed=resumed
        )
        roles: dict[str, Role] = {
            COORDINATOR: CoordinatorRole(
                self.experiment, info, cut.addresses, (SUPERVISOR,), self.groups
            ),
            SUPERVISOR: Supervisor(self._restart),
        }
        for group in range(groups):
            buffer = f"buffer-{group}"
            roles[f"learner-{group}"] = LearnerRole(group, self.experiment, buffer, cut, resumed)
            roles[buffer] = self._buffer(group, has_replay)
            for actor in cut.actors_of(group):
                roles[f"actor-{actor}"] = ActorRole(actor, 0, buffer, f"learner-{group}")
        self._acts_with = dict.fromkeys(cut.addresses, self.version)
        self._versions = dict.fromkeys(cut.addresses, self.version)
        self._sequences = dict.fromkeys(cut.addresses, 0)
        self._stopped: set[str] = set()
        self._epochs = dict.fromkeys(cut.addresses, 0)
        self.wire = Probed(roles, self._perform, seed, 0.0)
        self.wire.handle(COORDINATOR, TimerFired())
        self.wire.handle(COORDINATOR, Alive(address=SUPERVISOR, host="box"))
        for name in cut.addresses:
            self._join(name)

    def _join(self, name: str) -> None:
        joined = Joined(address=name, host="box", pid=1, protocol=PROTOCOL_VERSION)
        self.wire.send(name, COORDINATOR, joined)

    def _restart(self, actor: str, epoch: int) -> None:
        number = int(actor.rpartition("-")[2])
        group = number % self.groups.count
        again = ActorRole(number, epoch, f"buffer-{group}", f"learner-{group}")
        self.wire.roles[actor] = again
        self._epochs[actor], self._sequences[actor] = epoch, 0
        self._stopped.discard(actor)
        self._join(actor)

    def _buffer(self, group: int, has_replay: bool) -> Role:
        if not has_replay:
            return BufferRole(group, STALENESS, 2, self.version, num_actors=2)
        limiter = RateLimiter(
            ratio=2.0, min_size=16, batch_samples=16, rollout_steps=8, tolerance=64
        )
        return ReplayBufferRole(group, limiter, 1000, None, self.version)

    def _perform(self, name: str, command: Command) -> list[Event]:
        match command:
            case StartRun(addresses=addresses, elapsed_s=elapsed_s):
                self.wire.now_s = max(self.wire.now_s, elapsed_s)
                for address in filter(self.wire.roles.__contains__, addresses):
                    self.wire.send(COORDINATOR, address, Start(origin_ns=0))
            case WriteTrace(records=records):
                self.rows += records
            case EndRun(summary=summary):
                self.summary = summary
            case LoadWeights(weights=weights):
                self._acts_with[name] = weights.version
            case CollectRollout(ticket=ticket):
                return [self._collected(name, ticket)]
            case AbandonRollout():
                is_first = name not in self._stopped
                self._stopped.add(name)
                most = STEPS - 1 if is_first and self._sequences[name] else 0
                return [RolloutAbandoned(self.choose.randint(0, most), 0.1, ())]
            case ExportWeights(version=version):
                return [WeightsExported(make_weights(version))]
            case Update():
                return [self._updated(name, {})]
            case UpdateFromSamples():
                return [self._updated(name, {self._versions[name]: 16})]
            case DrawSamples():
                return [SamplesDrawn(Samples(INFO, make_weights(0).buffer))]
            case SaveCheckpoint(is_final=is_final):
                return [CheckpointWritten("", is_final=is_final)]
        return []

    def _collected(self, name: str, ticket: int) -> RolloutCollected:
        sequence, self._sequences[name] = self._sequences[name], self._sequences[name] + 1
        rollout = make_rollout(
            actor=int(name.rpartition("-")[2]),
            epoch=self._epochs[name],
            sequence=sequence,
            ticket=ticket,
            version=self._acts_with[name],
            env_steps=STEPS,
        )
        return RolloutCollected(rollout, ())

    def _updated(self, name: str, by_version: dict[int, int]) -> Updated:
        version = self._versions[name] = self._versions[name] + 1
        weights = make_weights(version)
        return Updated(weights, 16, version, 0.1, {}, samples_by_version=by_version)

    def go_on(self, turns: int) -> None:
        """Lets so many messages arrive, in any order."""
        left = iter(range(turns))
        self.wire.run(lambda: self.summary is not None or next(left, None) is None)

    @property
    def processes(self) -> list[str]:
        """Those that are there, but for the coordinator's and the supervisor's."""
        living = set(self.wire.roles) & set(self.addresses)
        return sorted({self.groups.process_of(name) for name in living})

    def lose(self, process: str, *, is_told: bool) -> None:
        """A process is gone, or frozen for good; its supervisor tells of it, or cannot."""
        for name in self.groups.roles_in(process):
            self.wire.lose_role(name)
        if is_told:
            exited = RoleExited(process=process, host="box", cause="was killed", log_tail=[])
            self.wire.send(SUPERVISOR, COORDINATOR, exited)

    def end(self) -> None:
        if self.summary is None:
            self.wire.send("command", COORDINATOR, StopRequested(reason="interrupted"))
        self.wire.run(lambda: self.summary is not None)

    def disagreements(self, root: Path) -> list[object]:
        """What a report says of the files of this run."""
        paths = RunPaths(root)
        for directory in (paths.trace, paths.logs, paths.plots, paths.checkpoints):
            directory.mkdir(parents=True)
        manifest = manifest_of("run", None)
        manifest["experiment"] = msgspec.to_builtins(self.experiment)
        if self._resumed:
            manifest["resumed_from"] = msgspec.to_builtins(self._resumed)
        paths.manifest.write_bytes(msgspec.json.encode(manifest))
        paths.summary.write_bytes(msgspec.json.encode(self.summary))
        write_rows(paths.trace, self.rows)
        return list(rebuild_counters(load_run(paths)))


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("has_replay", [False, True])
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 2),
    is_resumed=st.booleans(),
    losses=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 7), st.booleans()), max_size=9),
)
@settings(max_examples=40, deadline=None)
def test_whoever_is_lost_with_what_it_had_to_say_the_files_agree(
    has_replay: bool,
    is_fused: bool,
    seed: int,
    groups: int,
    is_resumed: bool,
    losses: list[tuple[int, int, bool]],
):
    world = World(seed, groups, has_replay, RESUMED if is_resumed else None, is_fused)
    for turns, number, is_told in losses:
        world.go_on(turns)
        if number < len(world.processes) and world.summary is None:
            world.lose(world.processes[number], is_told=is_told)
    world.end()
    with tempfile.TemporaryDirectory() as directory:
        assert world.disagreements(Path(directory) / "run") == []
    assert world.summary is not None
    assert "ledger" not in (world.summary.error or "")


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_host_lost_with_all_roles_leaves_files_that_agree(
    seed: int, is_told: bool, tmp_path: Path
):
    world = World(seed, 1, has_replay=False, resumed=None, is_fused=False)
    world.go_on(500)
    for name in world.processes:
        world.lose(name, is_told=is_told)
    world.end()
    assert world.disagreements(tmp_path / "run") == []
