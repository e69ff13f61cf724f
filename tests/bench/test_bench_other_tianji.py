"""Another installation of TianJi as a compared system: found, told apart, given the same work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.trace.records import Consumption
from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.comparison.results import Cell
from tianji_cli.bench.systems.base import CellPaths, Installed, SystemMissingError, SystemOptions
from tianji_cli.bench.systems.probe import options_of
from tianji_cli.bench.systems.raw import TrainedTotals
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME
from tianji_cli.bench.tasks.suite import OTHER, load_suite

SYSTEM = SYSTEMS_BY_NAME[OTHER]
HERE = SystemOptions(Path("/nowhere"), other_tianji=Path(sys.executable))


def test_it_runs_what_tianji_runs_with_the_same_settings():
    suite = load_suite("cartpole", ["tasks.dqn.peers.tianji.envs_per_worker=2"]).with_other()
    for task in suite.tasks.values():
        assert task.of(OTHER) == task.of("tianji")
        assert SYSTEM.refusal(task) is None
    assert suite.tasks["dqn"].of(OTHER).envs_per_worker == 2
    assert OTHER not in load_suite("cartpole").tasks["dqn"].systems


def test_settings_of_its_own_are_kept():
    suite = load_suite("cartpole", ["tasks.dqn.peers.other-tianji.envs_per_worker=2"])
    tasks = suite.with_other().tasks
    assert tasks["dqn"].of(OTHER).envs_per_worker == 2
    assert tasks["ppo-400"].of(OTHER).envs_per_worker == 8


def test_it_is_found_by_its_interpreter_and_said_with_its_commit(tmp_path):
    found = SYSTEM.prepare(HERE)
    assert found.python == os.path.abspath(sys.executable)
    assert set(found.versions) == {"python", "tianji", "torch", "gymnasium", "commit"}
    assert SYSTEM.prepare(options_of(found.python)).versions == found.versions
    with pytest.raises(SystemMissingError, match="no other TianJi was named") as caught:
        SYSTEM.prepare(SystemOptions(tmp_path))
    assert "--other-tianji" in caught.value.fix
    with pytest.raises(SystemMissingError, match="not installed"):
        SYSTEM.prepare(SystemOptions(tmp_path, other_tianji=tmp_path / "python"))


def test_its_experiment_names_only_what_differs_from_the_defaults(tmp_path):
    """An older one does not know every key of today."""
    task = load_suite("cartpole").with_other().tasks["ppo-400"]
    job = Cell(task="ppo-400", system=OTHER, seed=1).job(task.of(OTHER), tmp_path)
    found = Installed(python=sys.executable, versions={})
    command = SYSTEM.command(job, CellPaths(tmp_path), found)
    written = msgspec.json.decode((tmp_path / "experiment.json").read_bytes())
    assert written["network"] == {"name": "mlp"}
    assert set(written["env"]) == {"id", "num_envs", "kwargs"}
    experiment, _ = load_experiment(tmp_path / "experiment.json")
    assert experiment.network.hidden_sizes == task.network.hidden_sizes
    assert experiment.network.initialization == task.network.initialization
    assert "PYTHONPATH" in command.unset, "or it would find this TianJi"
    uniform = msgspec.structs.replace(
        task, network=msgspec.structs.replace(task.network, initialization="uniform")
    )
    SYSTEM.command(msgspec.structs.replace(job, task=uniform), CellPaths(tmp_path), found)
    written = msgspec.json.decode((tmp_path / "experiment.json").read_bytes())
    assert written["network"] == {"name": "mlp", "initialization": "uniform"}


@pytest.mark.slow
@pytest.mark.processes
def test_it_trains_and_its_trace_is_read_as_tianjis(tmp_path):
    task = load_suite("cartpole").with_other().tasks["ppo-400"]
    job = Cell(task="ppo-400", system=OTHER, seed=1).job(task.of(OTHER), tmp_path)
    paths = CellPaths(tmp_path)
    command = SYSTEM.command(job, paths, SYSTEM.prepare(HERE))
    began_s, feed = time.monotonic(), SYSTEM.feed(paths)
    environment = {k: v for k, v in os.environ.items() if k not in command.unset}
    argv = [*command.argv, "-s", "stop.env_steps=4000"]
    subprocess.run(argv, env=environment, cwd=REPOSITORY.parent, check=True, timeout=300)
    totals = [record for record in feed.poll() if isinstance(record, TrainedTotals)]
    assert totals[-1].env_steps >= 4000
    rows = SYSTEM.trace([], paths, began_s)
    assert max(row.env_steps_total for row in rows if isinstance(row, Consumption)) >= 4000
