"""`tianji list` tells what there is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.algorithms.registry import ALGORITHMS, Entry
from engine.envs.make import make_vector_env
from engine.graph.policy import built_in_policies
from engine.spec import EnvSpec
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import run_tianji
from tianji_cli.commands.start.list_tables import keys_list
from tianji_cli.reference import environments as environments_module
from tianji_cli.reference.algorithms import algorithms
from tianji_cli.reference.contents import chapters, key_rows
from tianji_cli.reference.environments import EnvironmentRow, environments, look_at
from tianji_cli.reference.files import experiments, inventories, suites
from tianji_cli.reference.rows import KINDS, matching


def listed(cwd: Path, *words: str) -> dict[str, Any]:
    result = run_tianji(cwd, "list", *words, "--json")
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


NAMES = {
    "environments": "CartPole-v1",
    "algorithms": "ppo",
    "policies": "tianji",
    "experiments": "cartpole_ppo",
    "suites": "smoke",
    "inventories": "local",
    "keys": "staleness.max_lag",
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "keys"])
def test_every_kind_is_one_document(kind: str, tmp_path: Path) -> None:
    document = listed(tmp_path, kind)
    assert (document["schema_version"], document["kind"]) == (1, kind)
    assert NAMES[kind] in {
        row["id" if kind == "environments" else "name"] for row in document["rows"]
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("algorithms", "keys")])
def test_every_kind_is_a_table(kind: str, tmp_path: Path) -> None:
    result = run_tianji(tmp_path, "list", kind)
    assert result.returncode == 0, result.stderr
    assert NAMES[kind] in result.stdout.split()


def test_keys_are_paragraphs() -> None:
    row, *_ = matching(key_rows(chapters()), ["staleness.max_lag"])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(keys_list([row]))
    assert console.export_text().split("\n")[:2] == [
        "staleness.max_lag  experiment",
        "  whole number, at least 0 or auto (weights versions); default 1                ",
    ]


def test_without_a_kind_the_kinds_are_listed(tmp_path: Path) -> None:
    assert set(KINDS) <= set(run_tianji(tmp_path, "list").stdout.split())


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    result = run_tianji(tmp_path, "list", "algoritms")
    assert result.returncode == 2
    assert "did you mean 'algorithms'?" in result.stderr


def test_all_words_of_a_filter_must_occur(tmp_path: Path) -> None:
    rows = listed(tmp_path, "experiments", "PPO", "pendulum")["rows"]
    assert "pendulum_ppo" in {row["name"] for row in rows}
    for text in (json.dumps(row).lower() for row in rows):
        assert "ppo" in text
        assert "pendulum" in text
    result = run_tianji(tmp_path, "list", "experiments", "ppo", "zzz")
    assert result.returncode == 0
    assert "no experiments match ppo zzz" in result.stderr


def test_own_files_come_first_and_broken_ones_say_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "experiments" / "deep"
    folder.mkdir(parents=True)
    shipped = (REPOSITORY / "experiments/cartpole_ppo.yaml").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(shipped, encoding="utf-8")
    (folder / "broken.yaml").write_text("env: {idd: X}\n", encoding="utf-8")
    (folder / "suite.yaml").write_text("kind: study\nsummary: S\ntasks: {a: {}}\n")
    (folder / "no_kind.yaml").write_text("kind: stdy\n")
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories/two.yaml").write_text("hosts: {a: {}, b: {}}\n")
    monkeypatch.chdir(tmp_path)
    broken, mine, *others = experiments()
    assert (mine.name, mine.algorithm) == ("experiments/deep/mine.yaml", "ppo")
    assert mine.until == "475, or 2M steps"
    assert "unknown key 'idd'" in broken.about
    assert len(others) >= 16
    assert all(row.is_shipped for row in others)
    wrong, study, *rest = suites()
    assert study.name == "experiments/deep/suite.yaml"
    assert (study.kind, study.tasks) == ("study", ("a",))
    assert "unknown kind of benchmark 'stdy'" in wrong.about
    assert {row.name for row in rest} >= {"smoke", "scaling", "transport", "staleness"}
    assert inventories()[0].hosts == ("a", "b")


def test_in_the_checkout_nothing_is_listed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for rows in (experiments(), suites(), inventories()):
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)


def test_what_an_algorithm_can_do_is_found_out_by_making_it(monkeypatch) -> None:
    rows = {row.name: row for row in algorithms()}
    assert rows.keys() >= {"ppo", "impala", "dqn", "apex"}
    assert rows["ppo"].actions == ("discrete", "multi-discrete", "continuous", "hybrid")
    assert rows["dqn"].actions == ("discrete",)
    assert (rows["ppo"].samples, rows["apex"].samples) == ("queue", "replay")
    assert (rows["ppo"].corrects_staleness, rows["impala"].corrects_staleness) == (False, True)
    assert all(row.about for row in rows.values())
    assert (rows["ppo"].has_memory, rows["sac"].has_memory) == (True, False)
    assert (rows["ppo"].agents, rows["maddpg"].agents) == ("one", "several")
    assert len(rows["maddpg"].actions) == 4
    dqn = ALGORITHMS["dqn"]
    monkeypatch.setitem(ALGORITHMS, "own", Entry(dqn.config, dqn.make))
    assert "own" in {row.name for row in algorithms()}


def test_policies_are_those_that_come_with_tianji(tmp_path: Path) -> None:
    names = [row["name"] for row in listed(tmp_path, "policies")["rows"]]
    assert names == built_in_policies()


def test_listed_environments_can_be_made_and_only_the_newest_are() -> None:
    rows, _ = environments()
    ids = {row.id for row in rows}
    assert {"CartPole-v1", "Pendulum-v1", "Taxi-v4"} <= ids
    assert not {"CartPole-v0", "phys2d/CartPole-v1", "HalfCheetah-v2"} & ids
    for row in rows:
        if row.family in ("classic control", "toy text"):
            make_vector_env(EnvSpec(id=row.id, num_envs=1)).close()


def test_a_missing_package_is_named_with_its_command(monkeypatch) -> None:
    monkeypatch.setattr(environments_module, "_is_here", lambda package: False)
    rows, missing = environments()
    assert {row.family for row in rows} <= {"classic control", "toy text", "matrix games"}
    packages = {"ale-py", "minatar", "mujoco", "minigrid", "pettingzoo", "lbforaging"}
    assert {family.package for family in missing} >= packages
    assert all("pip install" in family.install for family in missing)


def test_spaces_are_told_and_so_is_what_needs_a_wrapper() -> None:
    pytest.importorskip("minigrid")
    row = look_at(EnvironmentRow(id="CartPole-v1", family="classic control"))
    assert (row.observation, row.action, row.problem) == ("Box(4, float32)", "Discrete(2)", "")
    environments()
    row = look_at(EnvironmentRow(id="MiniGrid-DoorKey-5x5-v0", family="MiniGrid"))
    assert "image: Box(7 x 7 x 3, uint8), mission: MissionSpace" in row.observation
    assert "mission" in row.problem
    assert "0x" not in row.problem


def test_environments_of_several_agents_are_listed_with_their_agents() -> None:
    pytest.importorskip("mpe2")
    rows = {row.id: row for row in environments()[0]}
    assert "pettingzoo:butterfly.pistonball_v6" not in rows  # needs pymunk, which no extra installs
    spread = look_at(rows["pettingzoo:mpe2.simple_spread_v3"])
    assert (spread.observation, spread.action) == ("3 x Box(18, float32)", "3 x Discrete(5)")
    speaker = look_at(rows["pettingzoo:mpe2.simple_speaker_listener_v4"])
    assert speaker.action == "speaker_0: Discrete(3), listener_0: Discrete(5)"
    assert look_at(rows["TwoStep-v0"]).action == "2 x Discrete(2)"


def test_a_team_that_cannot_be_made_is_listed_with_the_reason() -> None:
    pytest.importorskip("mpe2")
    row = look_at(EnvironmentRow(id="pettingzoo:mpe2.nothing_v1", family="PettingZoo"))
    assert "has a module 'mpe2.nothing_v1'" in row.problem
    assert row.advice == row.problem
    assert (row.observation, row.action) == ("", "")


def test_what_needs_no_torch_does_not_import_it() -> None:
    probe = (
        "import sys\n"
        "import tianji_cli.main\n"
        "from tianji_cli.commands.start.list_command import _rows\n"
        "assert all(map(_rows, ('policies', 'experiments', 'suites', 'inventories')))\n"
        "print(*{'torch', 'gymnasium', 'pandas'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == ""
