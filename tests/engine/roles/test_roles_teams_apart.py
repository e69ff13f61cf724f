"""A team whose policies have actors and learners of their own, around environments of all."""

from __future__ import annotations

import pytest

from engine.graph.cut import Cut
from engine.messages import (
    COORDINATOR,
    Start,
    StepRequested,
    StepTaken,
    Stop,
    Stopped,
    TicketGranted,
    TicketRequested,
)
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import (
    CollectRollout,
    Command,
    ExportModel,
    ExportWeights,
    LoadWeights,
    Role,
    Send,
    StepEnvironment,
    TakeStep,
    Update,
)
from engine.roles.coordinator.groups import Groups
from engine.roles.environment import EnvironmentRole
from engine.roles.events import (
    EnvironmentStepped,
    Event,
    RolloutCollected,
    StepWanted,
    Updated,
    WeightsExported,
)
from engine.roles.learner import LearnerRole
from engine.spec import StalenessSpec, StopSpec
from engine.testing import (
    has,
    make_experiment,
    make_rollout,
    make_weights,
    only,
    rollout_arrival,
    sent,
)
from engine.trace.records import Ledger
from tests.helpers.engine.lossy_wire import Wire

STEPS = 4
"""Of a rollout; two make a batch."""
UPDATES = 25


def cut(groups: int, environments: int, max_lag: int = 1) -> Cut:
    return Cut(
        policy="environments",
        actors=groups * environments,
        groups=groups,
        merge="assemble",
        has_remote_env=True,
        staleness=StalenessSpec(max_lag=max_lag),
    )


def request(actor: int, number: int, action: bytes = b"chosen") -> StepRequested:
    return StepRequested(actor=f"actor-{actor}", number=number, action=action)


def stepped(number: int) -> EnvironmentStepped:
    return EnvironmentStepped(StepTaken(number=number, observation=b"seen"))


def asked(role: EnvironmentRole, actor: int, number: int, action: bytes = b"") -> list[Command]:
    return role.handle(request(actor, number, action), 0.0)


def test_a_step_is_taken_once_all_actors_have_chosen_and_told_to_all():
    role = EnvironmentRole(0, ["actor-0", "actor-1"])
    assert asked(role, 1, 1, b"one") == []
    assert only(asked(role, 0, 1, b"nil"), StepEnvironment).actions == (b"nil", b"one")
    assert [command.to for command in role.handle(stepped(1), 0.0)] == ["actor-0", "actor-1"]


def test_who_has_not_heard_of_a_step_is_told_again_though_another_wants_the_next():
    role = EnvironmentRole(0, ["actor-0", "actor-1"])
    asked(role, 0, 1)
    asked(role, 1, 1)
    assert asked(role, 0, 1) == [], "it is being taken"
    role.handle(stepped(1), 0.0)
    assert asked(role, 0, 2) == []
    (again,) = sent(asked(role, 1, 1), StepTaken, "actor-1")
    assert again.number == 1
    assert asked(role, 0, 2) == [], "the other has not chosen yet"
    assert has(asked(role, 1, 2), StepEnvironment)
    assert sent(role.handle(Stop(), 0.0), Stopped, COORDINATOR)


def test_an_actor_of_other_environments_is_refused_by_name():
    with pytest.raises(RuntimeError, match=r"environment-0 cannot handle StepRequested.*actor-7"):
        asked(EnvironmentRole(0, ["actor-0"]), 7, 1)


def test_tickets_go_round_in_the_same_order_whoever_asks_first():
    buffer = BufferRole(0, StalenessSpec(max_lag=0), 1, 0, 2, ["actor-0", "actor-2"])

    def ask(actor: str, last_ticket: int = -1) -> list[TicketGranted]:
        wanted = TicketRequested(actor=actor, held_version=0, last_ticket=last_ticket)
        return [item.message for item in buffer.handle(wanted, 0.0) if isinstance(item, Send)]  # type: ignore[misc]

    assert ask("actor-2") == [], "it is the other's turn"
    (first, second) = ask("actor-0")
    assert (first.ticket, second.ticket) == (0, 1)
    assert [item.ticket for item in ask("actor-2")] == [1], "it did not hear of it"
    commands = buffer.handle(rollout_arrival(actor=2, ticket=1), 0.0)
    assert not sent(commands, TicketGranted, "actor-2"), "once more the other comes first"


def test_the_parts_of_a_cut_say_who_acts_where():
    apart = cut(groups=3, environments=2)
    assert [list(apart.actors_in(number)) for number in range(2)] == [[0, 1, 2], [3, 4, 5]]
    assert [apart.environment_of(actor) for actor in range(6)] == [0, 0, 0, 1, 1, 1]
    assert list(apart.actors_of(1)) == [1, 4], "one in each environment"
    assert apart.group_of_role("environment-1") is None
    assert "environment-1" in apart.addresses
    assert "environment-2" not in apart.addresses
    assert "reducer-0" in apart.addresses


def test_without_one_policy_s_learner_a_run_cannot_go_on():
    assert Groups(cut(groups=3, environments=1), {}).lose(["learner-1", "actor-1"]) == []


class Bodies:
    """Actors, environments and learners that take no time."""

    def __init__(self, of: Cut) -> None:
        self.cut = of
        self.versions = [0] * of.groups
        self.acts_with: dict[str, int] = {}
        self.tickets: dict[str, int] = {}
        self.sequences: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.stepped: dict[str, list[int]] = {}

    def perform(self, name: str, command: Command) -> list[Event]:
        group = self.cut.group_of_role(name) or 0
        match command:
            case LoadWeights(weights=weights):
                self.acts_with[name] = weights.version
            case CollectRollout(ticket=ticket):
                self.tickets[name] = ticket
                return [self.want_step(name)]
            case StepEnvironment(number=number, actions=actions):
                assert len(actions) == self.cut.groups
                self.stepped.setdefault(name, []).append(number)
                return [stepped(number)]
            case TakeStep(taken=taken):
                is_complete = taken.number % STEPS == 0
                return [self.collected(name) if is_complete else self.want_step(name)]
            case ExportWeights(version=version):
                return [WeightsExported(make_weights(version))]
            case Update(rollouts=rollouts):
                lags = [self.versions[group] - item.info.version_min for item in rollouts]
                assert max(lags) <= self.cut.staleness.max_lag
                self.versions[group] += 1
                version = self.versions[group]
                return [Updated(make_weights(version), STEPS, version, 0.1, {})]
            case ExportModel():
                return []
        return []

    def want_step(self, name: str) -> StepWanted:
        self.asked[name] = self.asked.get(name, 0) + 1
        return StepWanted(self.asked[name], b"action")

    def collected(self, name: str) -> RolloutCollected:
        sequence = self.sequences.get(name, 0)
        self.sequences[name] = sequence + 1
        rollout = make_rollout(
            actor=int(name.partition("-")[2]),
            sequence=sequence,
            ticket=self.tickets[name],
            version=self.acts_with.get(name, 0),
            env_steps=STEPS,
        )
        return RolloutCollected(rollout, ())


@pytest.mark.parametrize(("max_lag", "breaks"), [(0, 0.0), (1, 0.0), (0, 0.01), (2, 0.02)])
@pytest.mark.parametrize("seed", range(4))
def test_buffers_that_grant_few_tickets_never_wait_for_each_other(
    max_lag: int, breaks: float, seed: int
):
    """With three environments and tickets for one or two batches of two rollouts, first come, first
    served would soon have let the actors of one policy begin where those of another may not."""
    of, experiment = cut(2, 3, max_lag), make_experiment(stop=StopSpec(env_steps=None))
    bodies, roles = Bodies(of), dict[str, Role]()
    for group in range(of.groups):
        order = [f"actor-{number}" for number in of.actors_of(group)]
        roles[f"buffer-{group}"] = BufferRole(group, of.staleness, 2, 0, len(order), order)
        roles[f"learner-{group}"] = LearnerRole(group, experiment, f"buffer-{group}", of)
    for actor in range(of.actors):
        group, where = of.group_of(actor), of.environment_of(actor)
        roles[f"actor-{actor}"] = ActorRole(
            actor, 0, f"buffer-{group}", f"learner-{group}", f"environment-{where}"
        )
    for number in range(of.num_environments):
        actors = [f"actor-{actor}" for actor in of.actors_in(number)]
        roles[f"environment-{number}"] = EnvironmentRole(number, actors)
    wire = Wire(roles, bodies.perform, seed, breaks)
    for name in roles:
        wire.handle(name, Start(origin_ns=0))
    wire.run(lambda: min(bodies.versions) >= UPDATES)
    for taken in bodies.stepped.values():
        assert taken == list(range(1, len(taken) + 1)), "each step once, in order"
    rows = [row for row in wire.records if isinstance(row, Ledger)]
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in rows)
    assert (wire.num_lost > 0) == (breaks > 0)
