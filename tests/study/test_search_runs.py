"""Studies for real: runs side by side, and a search that is killed in the middle and resumed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from engine.config.config_file import load_experiment
from tests.helpers.running import start_tianji

pytestmark = [pytest.mark.processes, pytest.mark.slow]
TASK = """
tasks:
  t:
    experiment: cartpole_ppo
    settings: {learner.compile: "off", actors: 1, stop.return_threshold: null, stop.env_steps: 4000}
"""
SIDE_BY_SIDE = f"""
version: 1
kind: study
name: tiny
summary: Three variants
seeds: 1
budget_s: 60
{TASK}
    variants:
      a: {{}}
      b: {{algorithm.learning_rate: 0.001}}
      broken: {{env.id: "no_such_module:E-v0"}}
"""
SEARCH = f"""
version: 1
kind: study
name: tiny
summary: A search
seeds: 1
budget_s: 60
search:
  sampler: random
  trials: 3
  space:
    algorithm.learning_rate: {{type: float, low: 1.0e-4, high: 1.0e-2, log: true}}
{TASK}
"""
PRUNED = f"""
version: 1
kind: study
name: tiny
summary: A search in which the second trial learns nothing
seeds: 1
budget_s: 10
search:
  sampler: grid
  startup_trials: 1
  objective: final return
  seed: SEED
  space:
    algorithm.learning_rate: {{type: categorical, choices: [0.003, 1.0e-12]}}
{TASK.replace("stop.env_steps: 4000", "stop.env_steps: null")}
"""


def bench(cwd: Path, text: str, *more: str) -> subprocess.Popen[str]:
    (cwd / "tiny.yaml").write_text(text)
    return start_tianji(cwd, "bench", "tiny.yaml", "--yes", "--name", "mine", *more)


def runs_in(cwd: Path) -> list[dict[str, object]]:
    file = cwd / "results/mine/runs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def wait_for_line(command: subprocess.Popen[str], beginning: str) -> None:
    assert command.stderr is not None
    for line in command.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it never said {beginning}")


def wait_until_training(run: Path) -> None:
    """Until a run has finished an episode."""
    until_s = time.monotonic() + 60
    while not (run / "trace/episodes.jsonl").is_file():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_runs_side_by_side_share_cores_and_say_so(tmp_path: Path):
    command = bench(tmp_path, SIDE_BY_SIDE, "--parallel", "2", "--json")
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    runs = {run["cell"]["variant"]: run for run in runs_in(tmp_path)}  # type: ignore[index]
    assert {name: run["outcome"] for name, run in runs.items()} == {
        "a": "ended", "b": "ended", "broken": "failed",
    }  # fmt: skip
    assert any(run["num_beside"] == 1 for run in runs.values())
    for name in "ab":
        assert runs[name]["disagreements"] == 0
        processes = runs[name]["manifest"]["processes"].values()  # type: ignore[index]
        assert all(process["cores"] is None for process in processes), "nothing is pinned"
    (task,) = json.loads(out)["tasks"]
    assert "shared the cores" in task["times_not_compared"]
    assert all(item["consume_per_s"] is None for item in task["variants"])
    assert task["variants"][0]["final_return"] is not None
    inventories = list((tmp_path / "results/mine/runs").glob("*.inventory.json"))
    assert len(inventories) == 3


def test_ctrl_c_ends_all_runs_and_the_study_goes_on(tmp_path: Path):
    endless = SIDE_BY_SIDE.replace("stop.env_steps: 4000", "stop.env_steps: null")
    command = bench(tmp_path, endless, "--parallel", "3")
    for variant in "ab":
        wait_until_training(tmp_path / f"results/mine/runs/t-{variant}-seed0")
    children = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130, err
    assert "to resume: tianji bench --resume mine" in err
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert {run["cell"]["variant"] for run in runs_in(tmp_path)} <= {"broken"}  # type: ignore[index]
    study = tmp_path / "results/mine/study.json"
    study.write_text(study.read_text().replace('"stop.env_steps": null', '"stop.env_steps": 4000'))
    again = start_tianji(tmp_path, "bench", "--resume", "mine", "--yes", "--trust")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert len(runs_in(tmp_path)) == 3
    resumed = [run for run in runs_in(tmp_path) if run["outcome"] == "ended"]
    assert len(resumed) == 2


def test_a_search_that_is_killed_repeats_the_trial_that_was_running(tmp_path: Path):
    command = bench(tmp_path, SEARCH)
    wait_for_line(command, "[1/3]")
    wait_until_training(tmp_path / "results/mine/runs/t-trial1-seed0")
    command.kill()
    command.communicate(timeout=60)
    (first,) = runs_in(tmp_path)
    again = start_tianji(tmp_path, "--json", "bench", "--resume", "mine", "--yes")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    runs = runs_in(tmp_path)
    assert runs[0] == first
    assert len(runs) == 3
    with sqlite3.connect(tmp_path / "results/mine/search.db") as storage:
        states = [state for (state,) in storage.execute("SELECT state FROM trials ORDER BY number")]
    storage.close()
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    (task,) = json.loads(out)["tasks"]
    assert len(task["search"]["trials"]) == 3
    assert task["search"]["best"] in range(3)
    experiment, _ = load_experiment(tmp_path / "results/mine/best.yaml")
    best = task["search"]["trials"][task["search"]["best"]]
    assert experiment.algorithm["learning_rate"] == best["params"]["algorithm.learning_rate"]
    done = start_tianji(tmp_path, "plan", "-x", "results/mine/best.yaml")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 0, err


def test_a_run_below_the_median_is_ended_in_good_order_and_has_not_failed(tmp_path: Path):
    seed = next(seed for seed in range(9) if good_first(seed))
    command = bench(tmp_path, PRUNED.replace("SEED", str(seed)), "--json")
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    good, bad = runs_in(tmp_path)
    assert (good["outcome"], bad["outcome"]) == ("ended", "pruned")
    assert bad["disagreements"] == 0
    summary = bad["summary"]
    assert isinstance(summary, dict)
    assert summary["status"] == "interrupted", "ended by the protocol"
    assert summary["wall_s"] < 9
    assert max(map(int, bad["intermediate"])) >= 3  # type: ignore[arg-type, call-overload]
    (task,) = json.loads(out)["tasks"]
    assert [trial["state"] for trial in task["search"]["trials"]] == ["complete", "pruned"]
    assert task["search"]["best"] == 0
    assert "failed" not in err


def good_first(seed: int) -> bool:
    """Whether the grid begins with the setting that learns."""
    from tianji_cli.bench.search.space import grid_points
    from tianji_cli.bench.search.spec import CategoricalRange, Search

    space = {"k": CategoricalRange(choices=(0.003, 1e-12))}
    return grid_points(Search(sampler="grid", seed=seed, space=space))[0]["k"] == 0.003
