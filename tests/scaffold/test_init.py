"""`tianji init` writes what runs at once, and overwrites nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from engine.algorithms.registry import ALGORITHMS
from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.extensions import import_modules
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import EAGER, run_tianji, summary_of_up
from tianji_cli.commands.start.init_command import project_for, write_project
from tianji_cli.config.inventory import load_inventory
from tianji_cli.scaffold.project import KnownEnvironment, known_algorithms, make_project

BUILT_IN = [
    name
    for name, entry in ALGORITHMS.items()
    if entry.config.__module__.startswith("engine.") and not entry.for_teams
]
"""The environment of a new project is for one agent."""


def written_by(cwd: Path, *words: str) -> list[Path]:
    result = run_tianji(cwd, "init", *words, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    return [cwd / document["directory"] / name for name in document["files"]]


def test_every_algorithm_has_a_template() -> None:
    assert known_algorithms() == sorted(BUILT_IN)


@pytest.mark.parametrize("algorithm", BUILT_IN)
def test_what_is_written_can_be_read(algorithm: str, tmp_path: Path) -> None:
    project = make_project(algorithm)
    write_project(project, tmp_path)
    experiment, _ = load_experiment(tmp_path / project.experiment)
    assert experiment.name == f"docking_{algorithm}" == Path(project.experiment).stem
    assert experiment.modules == ("docking",)
    assert [h.name for h in load_inventory(tmp_path / "inventories/hosts.yaml").hosts] == [
        "localhost"
    ]
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all(command in readme for command in project.commands)
    assert all(file.path in readme for file in project.files if not file.is_optional)
    assert not re.search(r"\$\w", "".join(file.text for file in project.files))


def test_the_commented_host_is_one(tmp_path: Path) -> None:
    text = next(f.text for f in make_project("ppo").files if f.path == "inventories/hosts.yaml")
    (tmp_path / "hosts.yaml").write_text(re.sub(r"^  # (?=  |\w+:)", "  ", text, flags=re.M))
    hosts = load_inventory(tmp_path / "hosts.yaml").hosts
    assert [host.name for host in hosts] == ["localhost", "box1", "box2"]
    assert hosts[2].user == "me"


def test_the_environment_keeps_gymnasiums_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(make_project("ppo"), tmp_path)
    monkeypatch.chdir(tmp_path)
    import_modules(["docking"])
    try:
        env = gymnasium.make("Docking-v0", render_mode="rgb_array")
        check_env(env.unwrapped)
        env.reset(seed=0)
        assert len({env.render().tobytes(), (env.step(2), env.render())[1].tobytes()}) == 2
        assert env.spec is not None
        assert env.spec.max_episode_steps == 100
    finally:
        gymnasium.registry.pop("Docking-v0")
        sys.modules.pop("docking")


def test_the_environment_is_formatted_as_the_code_is(tmp_path: Path) -> None:
    write_project(make_project("ppo"), tmp_path)
    config = ("--config", str(REPOSITORY / "pyproject.toml"))
    command = [sys.executable, "-m", "ruff", "format", "--check", *config, "docking.py"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)


@pytest.mark.processes
@pytest.mark.parametrize("algorithm", ["ppo"])
def test_what_is_written_trains(algorithm: str, tmp_path: Path) -> None:
    written_by(tmp_path, "mine", "--algorithm", algorithm)
    words = ("-x", f"experiments/docking_{algorithm}.yaml", *EAGER, "-s", "stop.env_steps=4000")
    summary = summary_of_up(tmp_path / "mine", *words)
    assert summary["status"] == "ok"
    assert int(str(summary["env_steps_consumed"])) >= 4000


def test_a_file_that_is_there_is_not_overwritten_and_nothing_else_is_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "inventories").mkdir()
    mine = tmp_path / "inventories/hosts.yaml"
    mine.write_text("mine\n")
    result = run_tianji(tmp_path, "init")
    assert result.returncode == 2
    assert "not overwritten" in result.stderr
    assert "inventories/hosts.yaml" in result.stderr
    assert mine.read_text() == "mine\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "docking.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(ConfigError, match="not overwritten"):
        write_project(make_project("ppo"), tmp_path)
    assert not (tmp_path / "elsewhere.py").exists()


def test_a_readme_of_ones_own_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine\n")
    files = written_by(tmp_path, ".")
    assert {path.name for path in files} == {"docking.py", "docking_ppo.yaml", "hosts.yaml"}
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_what_was_begun_is_removed_if_it_cannot_be_finished(tmp_path: Path) -> None:
    (tmp_path / "inventories").write_text("a file\n")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_project(make_project("ppo"), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["inventories"]


def test_an_environment_that_exists_is_started_from(tmp_path: Path) -> None:
    files = written_by(tmp_path, "taxi", "--env", "Taxi-v4", "--algorithm", "dqn")
    assert [path.name for path in files] == ["taxi_dqn.yaml", "hosts.yaml", "README.md"]
    experiment, _ = load_experiment(files[0])
    assert (experiment.env.id, experiment.algorithm_name) == ("Taxi-v4", "dqn")
    assert experiment.stop.return_threshold == 8


def test_for_an_environment_that_tianji_ships_its_own_experiment_is_written() -> None:
    shipped = REPOSITORY / "experiments/pendulum_ppo.yaml"
    assert project_for("Pendulum-v1", "ppo").files[0].text == shipped.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("env_id", "algorithm", "option", "message"),
    [
        ("CartPol-v1", "ppo", "--env", "unknown environment"),
        ("Pendulum-v1", "dqn", "--env", "needs discrete actions"),
        ("no_such_module:Env-v0", "ppo", "--env", "no_such_module"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    env_id: str, algorithm: str, option: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        project_for(env_id, algorithm)
    assert error.value.where == option


def test_an_unknown_algorithm_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    result = run_tianji(tmp_path, "init", "--algorithm", "pppo")
    assert result.returncode == 2
    assert "did you mean 'ppo'?" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("env_id", "line"),
    [
        ("MiniGrid-Empty-5x5-v0", "wrappers:"),
        ("BabyAI-GoToObj-v0", "wrappers:"),
        ("ALE/Breakout-v5", "clip_reward: true"),
    ],
)
def test_families_get_what_they_need(env_id: str, line: str) -> None:
    assert line in make_project("ppo", KnownEnvironment(env_id)).files[0].text
