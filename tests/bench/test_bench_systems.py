"""What is known of each system, from its recorded output and without it being installed."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, PreflightError
from engine.trace.records import Episode, Production
from tests.helpers.bench.bench_fakes import make_task
from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.systems.base import (
    CellPaths,
    Installed,
    Job,
    SystemMissingError,
    SystemOptions,
)
from tianji_cli.bench.systems.convert import to_trace
from tianji_cli.bench.systems.install import INSTALLABLE, install
from tianji_cli.bench.systems.raw import Claimed, GarbageError, RawFeed, Steps, decode
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME
from tianji_cli.bench.systems.rllib import parse_results
from tianji_cli.bench.systems.tianji import TianjiFeed, experiment_of
from tianji_cli.bench.systems.xingtian import PYTHON_VARIABLE
from tianji_cli.bench.systems.xingtian_config import configuration
from tianji_cli.bench.systems.xingtian_output import StatisticsFeed, parse_statistics
from tianji_cli.bench.tasks.suite import load_suite
from tianji_cli.bench.tasks.work import BenchEnv

RECORDED = Path(__file__).parent / "recorded"
DRIVERS = REPOSITORY / "tianji_cli" / "bench" / "systems" / "drivers"


def lines_of(name: str) -> list[str]:
    return (RECORDED / name).read_text(encoding="utf-8").splitlines(keepends=True)


def job_of(system: str, **changes: object) -> Job:
    task = make_task([system], **changes)
    return Job(system=system, task_name="t", task=task, seed=3, scratch="/tmp/none")


def test_xingtians_own_output_is_read():
    blocks = parse_statistics(lines_of("xingtian-0.3.0.log"))
    assert len(blocks) >= 8
    assert [block.steps for block in blocks] == sorted(block.steps for block in blocks)
    second = blocks[1]
    assert (second.train_count, second.steps) == (54, 10269)
    assert second.figures["step_per_second"] == 875.0
    assert second.figures["train_reward_avg"] == 100.03
    assert second.figures["mean_wait_sample_ms"] == 69.075263


def test_a_block_that_is_still_being_printed_is_left_out():
    lines = lines_of("xingtian-0.3.0.log")
    count = len(parse_statistics(lines))
    last = max(i for i, line in enumerate(lines) if "Task:" in line)
    assert len(parse_statistics(lines[: last + 2])) == count - 1


def test_xingtians_words_are_stamped_once_and_read_again_later(tmp_path):
    paths = CellPaths(tmp_path)
    paths.raw.mkdir()
    paths.output.write_text("".join(lines_of("xingtian-0.3.0.log")), encoding="utf-8")
    feed = StatisticsFeed(paths, is_bounded=True)
    first = feed.poll()
    assert feed.poll() == []
    assert {type(record) for record in first} == {Claimed}
    assert RawFeed(paths.raw).poll() == first


@pytest.mark.parametrize(("task", "is_received"), [("ppo-400", False), ("dqn", True)])
def test_xingtians_dqn_counts_what_has_arrived(tmp_path, task, is_received):
    paths = CellPaths(tmp_path)
    paths.raw.mkdir()
    job = msgspec.structs.replace(job_of("xingtian"), task=of("cartpole", task, "xingtian"))
    paths.job.write_bytes(msgspec.json.encode(job))
    paths.output.write_text("".join(lines_of("xingtian-0.3.0.log")), encoding="utf-8")
    first = SYSTEMS_BY_NAME["xingtian"].feed(paths).poll()
    assert [record.is_received for record in first] == [is_received] * len(first)
    assert first


def test_rllibs_own_results_are_read_and_nan_is_unknown():
    lines = lines_of("rllib-2.60.0.txt")
    results = parse_results([*lines, '{"episode_return_mean": NaN, "cut'])
    assert len(results) == len([line for line in lines if line.endswith("\n")])
    assert results[0].num_env_steps_sampled_lifetime == 807.0
    assert results[0].episode_return_mean == pytest.approx(18.39, abs=0.01)
    nan = json.dumps(msgspec.to_builtins(results[0])).replace("18.389705882352942", "NaN") + "\n"
    assert parse_results([nan])[0].episode_return_mean is None


def test_rllibs_recorded_run_becomes_trace_tables(tmp_path):
    for path in RECORDED.glob("rllib-*.jsonl"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = to_trace(RawFeed(tmp_path).poll(), 5534.0)
    assert sum(row.env_steps for row in rows if isinstance(row, Production)) > 100
    episodes = [row for row in rows if isinstance(row, Episode)]
    assert all(row.episode_return == row.length_env_steps > 0 for row in episodes)


def test_a_feed_follows_growing_files_and_waits_for_whole_lines(tmp_path):
    feed, path = RawFeed(tmp_path), tmp_path / "env-1.jsonl"
    assert feed.poll() == []
    path.write_text('{"kind": "steps", "t": 1.0, "total": 5}\n{"kind": "st')
    assert feed.poll() == [Steps(t=1.0, source="env-1", total=5)]
    with path.open("a") as file:
        file.write('eps", "t": 2.0, "total": 9}\n')
    assert feed.poll() == [Steps(t=2.0, source="env-1", total=9)]


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b'{"kind": "new", "t": 1}', b"\xff\xfe", b'{"t": 1}']
)
def test_garbage_is_named(line):
    with pytest.raises(GarbageError, match="env-1 holds"):
        decode(line, "env-1")


def test_xingtian_gets_the_tasks_settings(tmp_path):
    text = json.dumps(configuration(make_task(["xingtian"], rollout_steps=500), tmp_path))
    config = json.loads(text)
    model = config["model_para"]["actor"]["model_config"]
    assert model["CRITIC_LOSS_COEF"] == 1.0  # its own loss is halved: 2 x 0.5
    assert (model["LR"], model["NUM_SGD_ITER"], model["hidden_sizes"]) == (3e-4, 8, [64, 64])
    assert config["agent_para"]["agent_config"]["max_steps"] == 500
    assert config["env_num"] == 2


def test_xingtian_gets_dqn_and_atari_as_its_own_examples_have_them(tmp_path):
    config = json.loads(json.dumps(configuration(of("cartpole", "dqn", "xingtian"), tmp_path)))
    algorithm = config["alg_para"]["alg_config"]
    assert config["alg_para"]["alg_name"] == "DQN"
    assert (algorithm["prepare_times_per_train"], algorithm["learning_starts"]) == (4, 1000)
    assert config["agent_para"]["agent_config"]["episode_count"] == 5000  # of each explorer
    config = json.loads(json.dumps(configuration(of("atari", "assault", "xingtian"), tmp_path)))
    assert config["env_para"]["env_info"]["name"] == "AssaultNoFrameskip-v4"
    assert config["agent_para"]["agent_name"] == "AtariPpo"
    assert config["model_para"]["actor"]["model_config"]["hidden_sizes"] == [512]


def of(suite: str, task: str, system: str):
    return load_suite(suite).tasks[task].of(system)


@pytest.mark.parametrize(
    ("system", "suite", "task", "words"),
    [
        ("sample-factory", "cartpole", "dqn", "Sample Factory has no DQN"),
        ("xingtian", "atari", "pong-impala", "XingTian's IMPALA is not set up here"),
        ("single-process", "atari", "pong-impala", "has no IMPALA"),
        ("xingtian", "minatar", "breakout", "those of MinAtar/Breakout-v1 are unknown"),
        ("sb3", "atari", "pong-impala", "SB3 has no IMPALA"),
        ("rejax", "atari", "pong", "set up here are CartPole-v1, Acrobot-v1, Pendulum-v1, no ALE"),
        ("rejax", "continuous", "hopper-td3", "rejax's TD3 is not set up here"),
        ("rejax", "continuous", "hopper-sac", "no Hopper-v5"),
        ("rllib", "continuous", "hopper-sac", "RLlib's SAC is not set up here"),
        ("rllib", "continuous", "hopper-td3", "RLlib has no TD3"),
        ("xingtian", "continuous", "pendulum-sac", "those of Pendulum-v1 are unknown"),
    ],
)
def test_what_a_system_cannot_do_it_says(system, suite, task, words):
    work = load_suite(suite).tasks[task]
    assert system not in work.systems
    assert words in SYSTEMS_BY_NAME[system].refusal(work)


def test_nobody_does_what_is_unknown_to_it():
    task = make_task(["xingtian"], env=BenchEnv(id="Nowhere-v0"))
    assert "Nowhere-v0" in SYSTEMS_BY_NAME["xingtian"].refusal(task)


def test_xingtian_kills_by_name_only_in_its_own_session(tmp_path):
    job = msgspec.structs.replace(job_of("xingtian"), scratch=str(tmp_path / "home"))
    installed = Installed(python="/opt/xt/bin/python", versions={})
    command = SYSTEMS_BY_NAME["xingtian"].command(job, CellPaths(tmp_path), installed)
    tools, own = command.env["PATH"].split(":")[:2]
    assert own == "/opt/xt/bin"
    assert "pkill -s 0" in (Path(tools) / "pkill").read_text()
    assert command.env["HOME"] == str(tmp_path / "home")


def tianjis_experiment(job, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_bytes(msgspec.json.encode(experiment_of(job)))
    return load_experiment(path)[0]


def test_as_many_batches_wait_for_tianjis_impala_as_for_rllibs(tmp_path):
    job = msgspec.structs.replace(job_of("tianji"), task=of("atari", "pong-impala", "tianji"))
    staleness = tianjis_experiment(job, tmp_path).staleness
    assert (staleness.mode, staleness.max_queued_rollouts) == ("correct", 3 * 640 // (8 * 20))


def test_tianjis_experiment_is_a_real_one(tmp_path):
    experiment = tianjis_experiment(job_of("tianji"), tmp_path)
    assert experiment.algorithm["rollout_steps"] == 25
    assert (experiment.actors, experiment.env.num_envs, experiment.seed) == (2, 8, 3)


def test_tianjis_rows_have_the_exact_time_of_its_clock(tmp_path):
    (tmp_path / "production.jsonl").write_text(
        '{"table":"production","t_s":1.0,"actor":0,"epoch":0,"sequence":0,"env_steps":50,'
        '"env_steps_total":50,"version_min":0,"version_max":0,"collect_s":0.5,"wait_s":0.0}\n'
    )
    feed = TianjiFeed(tmp_path)
    assert feed.poll() == []
    (tmp_path / "events.jsonl").write_text(
        '{"table":"events","t_s":-1.0,"kind":"joined","host":"h","role":"actor-0","detail":""}\n'
        '{"table":"events","t_s":0.0,"kind":"started","host":"","role":"coordinator","detail":"",'
        '"origin_s":1234.5}\n'
    )
    assert [(record.t, record.total) for record in feed.poll()] == [(1235.0, 0), (1235.5, 50)]
    assert feed.poll() == []


def test_tianjis_dqn_is_the_tasks(tmp_path):
    job = msgspec.structs.replace(job_of("tianji"), task=of("cartpole", "dqn", "tianji"))
    experiment = tianjis_experiment(job, tmp_path)
    assert experiment.staleness.mode == "unbounded"
    assert (experiment.algorithm["replay_ratio"], experiment.actors) == (8.0, 2)


def test_tianjis_sac_is_the_tasks():
    wanted = msgspec.structs.replace(of("continuous", "hopper-td3", "tianji"), threads=2)
    job = msgspec.structs.replace(job_of("tianji"), task=wanted)
    experiment = experiment_of(job)
    algorithm, task = experiment["algorithm"], job.task.algorithm
    assert experiment["staleness"] == {"mode": "unbounded"}
    assert experiment["learner"] == {"threads": 2}
    assert (algorithm["name"], algorithm["policy_noise"]) == ("td3", 0.2)
    assert {name: algorithm[name] for name in task.__struct_fields__} == msgspec.structs.asdict(
        task
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_sizes": (32, 32)}, "rejax's DQN has networks of 64 x 64 only"),
        ({"name": "minatar_cnn"}, "rejax has fully connected networks only"),
    ],
)
def test_rejax_refuses_networks_that_it_has_not(change, words):
    task = load_suite("cartpole").tasks["dqn"]
    network = msgspec.structs.replace(task.network, **change)
    changed = msgspec.structs.replace(task, network=network)
    assert SYSTEMS_BY_NAME["rejax"].refusal(changed) == words


def test_rejax_refuses_a_replay_ratio_that_is_no_whole_number_of_steps():
    suite = load_suite("cartpole", ["tasks.dqn.algorithm.replay_ratio=6"])
    assert "a whole number of optimiser steps" in SYSTEMS_BY_NAME["rejax"].refusal(
        suite.tasks["dqn"]
    )


def test_rejax_computes_on_one_thread_of_the_cpu(tmp_path):
    installed = Installed(python="/opt/rejax/bin/python", versions={})
    command = SYSTEMS_BY_NAME["rejax"].command(job_of("rejax"), CellPaths(tmp_path), installed)
    assert command.argv[2].endswith("rejax_driver.py")
    assert command.env["JAX_PLATFORMS"] == "cpu"
    assert "intra_op_parallelism_threads=1" in command.env["XLA_FLAGS"]
    assert command.env["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("name", ["rllib", "sample-factory", "sb3", "rejax"])
def test_a_missing_system_says_how_to_get_it(tmp_path, name):
    with pytest.raises(SystemMissingError) as caught:
        SYSTEMS_BY_NAME[name].prepare(SystemOptions(tmp_path))
    assert f"tianji bench --install {name}" in caught.value.fix
    assert caught.value.exit_code == 3


def test_xingtian_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(SystemMissingError, match="no XingTian installation was named") as caught:
        SYSTEMS_BY_NAME["xingtian"].prepare(SystemOptions(tmp_path))
    for word in (PYTHON_VARIABLE, "--xingtian-python", "tensorflow 1.15.0"):
        assert word in caught.value.fix
    with pytest.raises(ConfigError, match="cannot be installed"):
        install("xingtian", tmp_path, print)


def test_a_failed_installation_names_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr("tianji_cli.bench.systems.install._base_python", lambda: "/nowhere/python")
    with pytest.raises(PreflightError, match="/nowhere/python does not start"):
        install("rllib", tmp_path, lambda _: None)


def test_versions_are_pinned():
    assert INSTALLABLE["rllib"].packages[:2] == ("torch==2.13.0", "ray[rllib]==2.60.0")
    for system in INSTALLABLE.values():
        assert all(re.search(r"==\d", package) for package in system.packages)


def test_sb3_is_not_ready_without_what_gymnasiums_mujoco_imports():
    """Gymnasium names imageio in its extra `mujoco` only, which would fetch more than is needed."""
    sb3 = INSTALLABLE["sb3"]
    assert "imageio" in sb3.modules
    assert any(package.startswith("imageio==") for package in sb3.packages)


@pytest.mark.parametrize("name", ["recorder.py", "xingtian_site/sitecustomize.py"])
def test_what_runs_in_xingtian_is_python_3_7(name):
    ast.parse((DRIVERS / name).read_text(encoding="utf-8"), feature_version=(3, 7))
