"""Every shipped experiment under every distribution policy: it can run, or is refused by name.

What is refused, and why, is the table in docs/policies.md; nothing else may be.
"""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium
import msgspec
import numpy as np
import pytest
from torch import Tensor

from engine import blueprint as blueprint_module
from engine.algorithms.base import Spaces
from engine.blueprint import Blueprint, make_blueprint
from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.graph.cut import Cut
from engine.graph.dataflow import DataflowGraph, build_graph
from engine.graph.policy import built_in_policies, read_policy
from engine.roles.coordinator.totals import RunInfo
from engine.runtime.inline import InlineRun
from engine.spec import Experiment
from engine.trace.reader import read_table
from engine.trace.records import Ledger
from engine.trace.summary import Summary
from tests.helpers.paths import REPOSITORY

ROOT = REPOSITORY
EXPERIMENTS = {
    path.stem: path
    for path in sorted((ROOT / "experiments").glob("*.yaml"))
    if "\nalgorithm:" in path.read_text() and "\nenv:" in path.read_text()
}
POLICIES = built_in_policies()
SHARING = ("multi-learner", "gpu-only")
"""Policies whose learners share batches, as many as there are actors."""
PACKAGED = ("ALE/", "MinAtar/", "MiniGrid-", "LunarLander", "HalfCheetah-", "Hopper-")
"""Environments of packages that need not be installed."""
REASONS = {
    "impala": "does not correct for stale samples",
    "apex": "does not learn from replayed samples",
    "gpu-only": "has no torch version|wrappers go around single environments",
}
"""What a refusal says; no other policy refuses any experiment."""


def refusals_in_docs() -> set[tuple[str, str]]:
    """(experiment, policy) of each refusal that the documentation names."""
    text = (ROOT / "docs" / "policies.md").read_text()
    table = text.partition("## Pairs that are refused")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    return {
        (experiment, policy.strip(" `"))
        for policy, experiments, _ in rows
        for experiment in re.findall(r"`(\w+)`", experiments)
    }


REFUSED = refusals_in_docs()


def spaces_without_package(env_id: str) -> Spaces:
    """Of environments whose package may not be installed here: a plan can be made all the same."""
    box = gymnasium.spaces.Box
    if env_id.startswith("ALE/"):
        return Spaces(box(0, 255, (4, 84, 84), np.uint8), gymnasium.spaces.Discrete(6))
    if env_id.startswith("MiniGrid-"):  # wrapped, so that only the image is left
        return Spaces(box(0, 255, (7, 7, 3), np.uint8), gymnasium.spaces.Discrete(7))
    if env_id.startswith("MinAtar/"):
        return Spaces(box(0, 1, (10, 10, 4), np.bool_), gymnasium.spaces.Discrete(3))
    if env_id.startswith("HalfCheetah-"):
        return Spaces(box(-np.inf, np.inf, (17,), np.float64), box(-1, 1, (6,), np.float32))
    if env_id.startswith("Hopper-"):
        return Spaces(box(-np.inf, np.inf, (11,), np.float64), box(-1, 1, (3,), np.float32))
    return Spaces(box(-np.inf, np.inf, (8,), np.float32), gymnasium.spaces.Discrete(4))


@pytest.fixture
def _without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = blueprint_module._look_at_environment

    def look(experiment: Experiment, cut: Cut, rehearses: bool) -> tuple[Spaces, Tensor | None]:
        if cut.is_on_device or not experiment.env.id.startswith(PACKAGED):
            return real(experiment, cut, rehearses)
        return spaces_without_package(experiment.env.id), None

    def import_all(experiment: Experiment) -> None:
        if not experiment.env.id.startswith(PACKAGED):
            real_import(experiment)

    real_import = blueprint_module.import_all
    monkeypatch.setattr(blueprint_module, "import_all", import_all)
    monkeypatch.setattr(blueprint_module, "_look_at_environment", look)


def plan(name: str, policy: str, *settings: str) -> tuple[Blueprint, DataflowGraph]:
    """As `up` would, as far as there are no hosts in it yet."""
    experiment, _ = load_experiment(EXPERIMENTS[name], [f"policy={policy}", *settings])
    graph = build_graph(read_policy(policy), experiment)
    experiment = msgspec.structs.replace(experiment, staleness=graph.cut.staleness)
    return make_blueprint(experiment, graph.cut), graph


def test_the_documentation_names_experiments_and_policies_that_there_are():
    assert {name for name, _ in REFUSED} <= set(EXPERIMENTS)
    assert {policy for _, policy in REFUSED} == set(REASONS)
    assert len(EXPERIMENTS) >= 11
    assert len(REFUSED) <= 45


@pytest.mark.usefixtures("_without_packages")
@pytest.mark.parametrize(
    ("policy", "actors"),
    [(policy, None) for policy in POLICIES] + [(policy, n) for policy in SHARING for n in (1, 3)],
)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_pair_can_be_run_or_is_refused_for_a_documented_reason(
    name: str, policy: str, actors: int | None
):
    settings = [] if actors is None else [f"actors={actors}"]
    if (name, policy) in REFUSED:
        with pytest.raises(ConfigError, match=REASONS[policy]) as info:
            plan(name, policy, *settings)
        assert info.value.where in ("policy", "env.id", "env.wrappers")
        assert info.value.fix
        return
    blueprint, graph = plan(name, policy, *settings)
    assert (blueprint.rollouts_per_batch > 0) != (blueprint.replay is not None)
    if not graph.cut.is_joint:
        return
    samples = blueprint.algorithm.samples()
    parts = [blueprint.of_group(group) for group in range(graph.cut.groups)]
    if samples.replay is None:
        steps = [part.rollouts_per_batch * part.layout.num_envs for part in parts]
        assert sum(steps) * samples.rollout_steps == samples.batch_steps
    else:
        assert sum(part.samples.num_envs for part in parts) == samples.replay.batch_size


REPLAYED = ("batch_size=16", "updates_per_batch=4", "min_replay_size=64", "replay_ratio=3")
TINY = {
    "acrobot_ppo": ("batch_steps=64", "minibatch_steps=32", "num_epochs=2"),
    "cartpole_impala": ("batch_steps=64",),
    "cartpole_dqn": REPLAYED,
    "cartpole_apex": REPLAYED,
    "pendulum_sac": REPLAYED,
    "pendulum_td3": REPLAYED,
    "two_step_qmix": REPLAYED,
}
"""One experiment of each algorithm; the first normalises observations."""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", TINY)
def test_every_algorithm_trains_under_every_policy_that_suits_it(
    tmp_path: Path, name: str, policy: str
):
    """All roles in one thread; learners that meet in every update need a process each, so they are
    one here, and several in tests/processes."""
    if (name, policy) in REFUSED:
        pytest.skip("refused, as documented")
    sizes = [f"algorithm.{size}" for size in ("rollout_steps=8", *TINY[name])]
    stop = ("stop.env_steps=300", "stop.return_threshold=null", "stop.judge=training")
    few = (
        "actors=1" if policy in SHARING else "actors=2",
        "checkpoint.every_s=null",
        "learner.compile=off",
    )
    blueprint, graph = plan(name, policy, *sizes, *stop, *few, "evaluation=null")
    for folder in ("trace", "checkpoints"):
        (tmp_path / folder).mkdir()
    info = RunInfo(
        run_id="run",
        num_hosts=1,
        num_actors=graph.count("actor"),
        num_groups=graph.count("learner"),
    )
    addresses = graph.cut.addresses
    InlineRun(blueprint, info, addresses, tmp_path, lambda progress: None).run()
    summary = msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Summary)
    assert (summary.status, summary.error) == ("ok", None)
    assert summary.weights_version >= 3
    assert summary.env_steps_consumed >= 300
    kept = summary.env_steps_consumed + summary.env_steps_dropped
    assert summary.env_steps_collected == kept + summary.env_steps_in_flight
    rows = read_table(tmp_path / "trace", Ledger)
    assert all(row.collected == row.consumed + row.dropped + row.in_flight for row in rows)
