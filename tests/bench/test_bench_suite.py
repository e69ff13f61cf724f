"""Suites are data: what they may say, and what the shipped ones do say."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from tianji_cli.baselines.registry import PEERS_BY_NAME
from tianji_cli.bench.suite import PEERS, load_suite, scalar_rows

SHIPPED = ("smoke", "cartpole", "classic")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_suites_can_be_used(name):
    suite = load_suite(name)
    assert suite.name == name
    for task in suite.tasks.values():
        assert task.algorithm.batch_steps % task.algorithm.minibatch_steps == 0
        assert "tianji" in task.peers
        assert task.stall_s < task.start_s + task.budget_s


def test_every_peer_has_an_adapter():
    assert tuple(PEERS_BY_NAME) == PEERS


@pytest.mark.parametrize("name", SHIPPED)
def test_the_parity_table_names_every_setting_of_every_peer(name):
    for task in load_suite(name).tasks.values():
        for peer in task.peers:
            rows = PEERS_BY_NAME[peer].parity(task)
            assert {row.setting for row in rows} >= set(scalar_rows(task))
            assert all(row.note for row in rows if row.match != "equal")


def test_overrides_are_differences():
    task = load_suite("smoke").tasks["ppo"]
    assert task.of("xingtian").envs_per_worker == 1
    assert task.of("rllib") == task
    rows = {row.setting: row for row in PEERS_BY_NAME["xingtian"].parity(task)}
    assert rows["envs_per_worker"].match == "different"
    assert rows["seed"].match == "not settable"
    assert rows["learning_rate"].match == "equal"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tasks.ppo.budget=1", ["unknown key 'budget'", "'budget_s'"]),
        ("tasks.ppo.budget_s=0", ["> 0"]),
        ("tasks.ppo.peers.rlib={}", ["unknown peer 'rlib'", "'rllib'"]),
        ("tasks.ppo.algorithm.minibatch_steps=300", ["300 does not divide the batch"]),
        ("tasks.ppo.algorithm.name=dqn", ["only ppo"]),
        ("tasks.ppo.threshold=.nan", ["can never be reached"]),
        ("tasks.ppo.min_s=1000", ["longer than budget_s"]),
    ],
)
def test_what_cannot_be_used_is_refused(setting, words):
    with pytest.raises(ConfigError) as caught:
        load_suite("smoke", [setting])
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_suite_suggests_one():
    with pytest.raises(ConfigError, match="did you mean 'cartpole'"):
        load_suite("cartpol")
