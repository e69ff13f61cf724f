"""What `plan --simulate` predicts from a run on one host (learners that share batches: on two),
against runs on 1, 2, 4 and 8 hosts.

Environments wait without using a core, so that the two cores that all lab hosts share are not the
limit. Prints one row of JSON for each run; those in results/reference/planner were made by this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.helpers.lab_fixtures import lab_of
from tests.helpers.ssh_kit import SHORT, Bench
from tianji_cli.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SIZES = (1, 2, 4, 8)
ROLLOUT = 320
WORK = (
    *SHORT,
    *("-s", "env.num_envs=32", "-s", "env.step_latency_ms=40", "-s", "algorithm.rollout_steps=10"),
    *("-s", "algorithm.num_epochs=1", "-s", "stop.env_steps=null", "-s", "stop.seconds=20"),
    *("-s", "checkpoint.every_s=null"),
)
CLUSTER = "shared_cores: true\nactors_per_host: 1\nnetwork: {bandwidth_mbit_s: 1000}\n"
WITHIN = 0.15
CASES = {
    "tianji": ("hosts_per_group: 1", "tianji", ()),
    "coarse": ("", "single-learner-coarse", ("-s", "staleness.max_lag=8")),
    "synchronous": ("grow_batch: true", "synchronous", ()),
    "joint": ("grow_batch: true", "multi-learner", ()),
}
"""By name what its cluster adds, its policy, and settings of every run."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from lab_of(max(SIZES), tmp_path_factory.mktemp("planned") / "lab")


def sizes_of(case: str, hosts: int) -> tuple[str, ...]:
    """The settings with which `up` has as many actors, groups and rollouts as are simulated."""
    groups = hosts if case == "tianji" else 1
    actors = hosts if case in ("tianji", "joint") else max(hosts - 1, 1)
    rollouts = actors if case in ("synchronous", "joint") else 1
    return (
        *("-s", f"actors={actors}", "-s", f"groups={groups}"),
        *("-s", f"algorithm.batch_steps={ROLLOUT * rollouts}"),
        *("-s", f"algorithm.minibatch_steps={ROLLOUT * rollouts}"),
    )


def measured(bench: Bench, case: str, hosts: int, run: str, *more: str) -> float:
    _, policy, settings = CASES[case]
    limit = [word for name in bench.hosts[:hosts] for word in ("--limit", name)]
    words = (*WORK, *settings, *sizes_of(case, hosts), "--policy", policy, *limit, *more)
    command = bench.tianji("up", *words, run=run)
    assert command.wait(120) == 0, command.said
    return float(command.summary["collect_per_s"])


@pytest.mark.parametrize("case", CASES)
def test_it_predicts_env_steps_per_second_within_15_per_cent(bench: Bench, case: str):
    cluster = bench.results / "cluster.yaml"
    cluster.write_text(f"{CLUSTER}{CASES[case][0]}\n")
    sizes = [hosts for hosts in SIZES if hosts > 1 or case != "joint"]  # one learner has no other
    measured(bench, case, sizes[0], "first", "--profile")
    words = ",".join(map(str, sizes))
    plan = ("plan", "--simulate", words, "--from", "first", "--cluster", str(cluster), "--json")
    command = bench.tianji(*plan)
    assert command.wait(120) == 0, command.said
    found = json.loads(bench.out(command))["forecast"]["sizes"]
    errors = {}
    for size in found:
        rate = measured(bench, case, size["hosts"], f"on-{size['hosts']}")
        errors[size["hosts"]] = size["collect_per_s"] / rate - 1
        row = {"policy": CASES[case][1], "hosts": size["hosts"], "actors": size["actors"]}
        row |= {"groups": size["groups"], "measured_per_s": round(rate, 1)}
        row |= {"predicted_per_s": round(size["collect_per_s"], 1), "limit": size["limit"]}
        print(json.dumps(row))
    assert list(errors) == sizes
    assert all(abs(error) <= WITHIN for error in errors.values()), errors
