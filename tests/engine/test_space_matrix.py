"""Every kind of space with every algorithm that suits it, under the policies that cut it
differently: some updates are trained, all actions are valid, and the ledger is balanced.

The environment itself refuses a wrong or masked action (tests/helpers/user_modules/space_envs.py),
which would fail the run. With $SPACE_TABLE set, what was trained is written to docs/spaces.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import space_envs
from space_envs import ACTIONS, ENV_ID, OBSERVATIONS, AnySpace

from engine.blueprint import make_blueprint
from engine.config.config_file import convert, parse_yaml
from engine.errors import ConfigError
from engine.graph.dataflow import build_graph
from engine.graph.policy import read_policy
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.spec import Experiment
from engine.trace.reader import read_table
from engine.trace.records import Event, Ledger
from engine.trace.summary import Summary
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import summary_of_up
from tests.helpers.space_table import ALGORITHMS, POLICIES, Case, Trained, write_table

ENV_STEPS = 400
REPLAYED = "{batch_size: 16, updates_per_batch: 4, min_replay_size: 64, replay_ratio: 3}"
SIZES = {
    "ppo": "{batch_steps: 64, minibatch_steps: 32, num_epochs: 2}",
    "impala": "{batch_steps: 64}",
    "dqn": REPLAYED,
    "apex": REPLAYED,
    "sac": REPLAYED,
    "td3": REPLAYED,
}
DISCRETE = ("discrete", "discrete with start")
"""Actions of which Q-learning chooses the best one."""
BOUNDED = ("box", "box of float64", "box of integers", "box 0-d", "box of rank 2")
"""Actions that are reals with two bounds, as SAC and TD3 need them."""
CASES = [
    *(Case(observation=kind) for kind in OBSERVATIONS),
    *(Case(action=kind) for kind in ACTIONS),
    *(Case(action=kind, mask="info") for kind in ACTIONS if "box" not in kind),
    Case(mask="observation"),
    Case(observation="nested", action="nested (hybrid)", mask="observation"),
    *(Case(observation=kind, core=core) for kind in ("box", "nested") for core in ("gru", "lstm")),
    Case(observation="dict", action="nested (hybrid)", mask="info", core="gru"),
    Case(observation="dict", mask="observation", core="lstm"),
    *(Case(observation=kind, action="box") for kind in ("image", "dict", "nested")),
]
FAST = {
    ("nested", "nested (hybrid)", "observation", ""),
    ("dict", "nested (hybrid)", "info", "gru"),
    ("dict", "discrete", "observation", "lstm"),
    ("tuple", "discrete", "none", ""),
    ("dict", "box", "none", ""),
}
"""Cases of `make test`, under `local` and `tianji`; all others have the mark `matrix`."""


def experiment_of(case: Case, algorithm: str, policy: str) -> Experiment:
    core = f", core: {{name: {case.core}, size: 8}}" if case.core else ""
    staleness = {"impala": "{mode: correct}", "ppo": "{mode: block}"}
    text = f"""
name: spaces
modules: [space_envs]
env:
  id: {ENV_ID}
  num_envs: 4
  kwargs: {{observation: {case.observation}, action: {case.action}, mask: {case.mask}}}
algorithm: {{name: {algorithm}, rollout_steps: 8, {SIZES[algorithm].strip("{}")}}}
network: {{hidden_sizes: [8]{core}}}
policy: {policy}
actors: 2
staleness: {staleness.get(algorithm, "{mode: unbounded}")}
learner: {{compile: 'off'}}
checkpoint: {{every_s: null}}
stop: {{env_steps: {ENV_STEPS}}}
"""
    return convert(parse_yaml(text, source="matrix"), Experiment)


def train(root: Path, experiment: Experiment) -> Summary:
    """All roles of a policy in one thread; learners that update together in processes."""
    if experiment.policy == "multi-learner":
        return train_by_command(root, experiment)
    graph = build_graph(read_policy(experiment.policy), experiment)
    experiment = msgspec.structs.replace(experiment, staleness=graph.cut.staleness)
    blueprint = make_blueprint(experiment, graph.cut, rehearses=True)
    for folder in ("trace", "checkpoints"):
        (root / folder).mkdir()
    info = RunInfo(
        run_id="run",
        num_hosts=1,
        num_actors=graph.count("actor"),
        num_groups=graph.count("learner"),
    )
    InlineRun(blueprint, info, graph.cut.addresses, root, lambda progress: None).run()
    return msgspec.json.decode((root / "summary.json").read_bytes(), type=Summary)


def train_by_command(root: Path, experiment: Experiment) -> Summary:
    """As a user would, since two learners that wait for each other need two processes."""
    (root / "spaces.yaml").write_bytes(msgspec.yaml.encode(msgspec.to_builtins(experiment)))
    modules = {"TIANJI_MODULES": str(Path(space_envs.__file__).parent)}
    words = ("-x", "spaces.yaml", "--name", "run", "--results", ".")
    summary = msgspec.convert(summary_of_up(root, *words, env=modules), Summary)
    (root / "run" / "trace").rename(root / "trace")
    events = read_table(root / "trace", Event)
    assert {row.role for row in events if row.kind == "joined"} >= {"learner-0", "learner-1"}
    return summary


@dataclass(frozen=True)
class Cell:
    case: Case
    algorithm: str
    policy: str

    @property
    def is_suitable(self) -> bool:
        case = self.case
        if self.algorithm in ("sac", "td3"):
            return case.action in BOUNDED and not case.core
        return self.algorithm in ("ppo", "impala") or case.action in DISCRETE

    @property
    def is_fast(self) -> bool:
        case = self.case
        key = (case.observation, case.action, case.mask, case.core)
        return key in FAST and self.policy in ("local", "tianji")


CELLS = [Cell(c, a, p) for c in CASES for a in ALGORITHMS for p in POLICIES]


def marked(cell: Cell) -> object:
    marks = () if cell.is_fast else (pytest.mark.matrix,)
    return pytest.param(cell, id=f"{cell.case}-{cell.algorithm}-{cell.policy}", marks=marks)


@pytest.fixture(scope="module")
def trained() -> Iterator[list[Trained]]:
    seen: list[Trained] = []
    yield seen
    if os.environ.get("SPACE_TABLE"):
        write_table(REPOSITORY / "docs" / "spaces.md", CASES, seen)


@pytest.mark.parametrize("cell", [marked(cell) for cell in CELLS if cell.is_suitable])
def test_updates_are_trained_on_valid_actions(tmp_path: Path, cell: Cell, trained: list[Trained]):
    summary = train(tmp_path, experiment_of(cell.case, cell.algorithm, cell.policy))
    assert (summary.status, summary.error) == ("ok", None)
    assert summary.weights_version >= 3
    assert summary.env_steps_consumed >= ENV_STEPS
    kept = summary.env_steps_consumed + summary.env_steps_dropped
    assert summary.env_steps_collected == kept + summary.env_steps_in_flight
    rows = read_table(tmp_path / "trace", Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in rows)
    trained.append(Trained(cell.case, cell.algorithm, cell.policy))


@pytest.mark.parametrize("algorithm", ["dqn", "apex"])
@pytest.mark.parametrize("action", [kind for kind in ACTIONS if kind not in DISCRETE])
def test_q_learning_refuses_what_it_cannot_choose(action: str, algorithm: str):
    with pytest.raises(ConfigError) as caught:
        make_blueprint(experiment_of(Case(action=action), algorithm, "local"))
    assert caught.value.where == "env.id"


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
@pytest.mark.parametrize("action", [kind for kind in ACTIONS if kind not in BOUNDED])
def test_critics_of_actions_refuse_what_has_no_bounds(action: str, algorithm: str):
    with pytest.raises(ConfigError) as caught:
        make_blueprint(experiment_of(Case(action=action), algorithm, "local"))
    assert caught.value.where == "env.id"


@pytest.mark.parametrize("mask", ["none", "info", "observation"])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_environment_takes_samples_of_its_space_and_nothing_else(action: str, mask: str):
    env = AnySpace(action=action, mask="none" if mask == "none" else mask)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    space = env.action_space
    space.seed(0)
    if mask == "none":
        for _ in range(5):
            assert -1.0 <= env.step(space.sample())[1] <= 1.0
        wrong = ({"a": 1}, (1, 2, 3, 4), "text")
        for action_ in wrong:
            with pytest.raises((AssertionError, ValueError, TypeError, KeyError)):
                env.step(action_)
        return
    flat = info["action_mask"] if mask == "info" else observation["action_mask"]
    if not len(flat):
        return
    outcomes = set()
    for _ in range(60):
        try:
            env.step(space.sample())
            outcomes.add("taken")
        except AssertionError as error:
            outcomes.add("masked out" if "masked out" in str(error) else str(error))
    assert "masked out" in outcomes
    assert outcomes <= {"taken", "masked out"}
