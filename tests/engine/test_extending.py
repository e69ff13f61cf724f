"""The worked example of docs/extending.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.extensions import import_modules
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import summary_of_up

ROOT = REPOSITORY


def code_blocks(section: str = "Worked example") -> list[tuple[str, str]]:
    """Language and text of the blocks of a section."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.processes
@pytest.mark.parametrize(
    "policy", ["local", "tianji", pytest.param("gpu-only", marks=pytest.mark.slow)]
)
def test_the_worked_example_learns(policy: str, tmp_path: Path):
    blocks = dict(code_blocks())
    (tmp_path / "corridor.py").write_text(blocks["python"], encoding="utf-8")
    (tmp_path / "corridor.yaml").write_text(blocks["yaml"], encoding="utf-8")
    assert "tianji up -x corridor.yaml" in blocks["sh"]
    one_actor = ("-s", "actors=1") if policy == "gpu-only" else ()
    summary = summary_of_up(tmp_path, "-x", "corridor.yaml", "--policy", policy, *one_actor)
    assert summary["reached"] is True
    assert summary["algorithm"] == "reinforce"


SPACES = "Any observation, any action, any memory"


@pytest.mark.processes
@pytest.mark.parametrize("number", range(3))
def test_examples_of_other_spaces_run(number: int, tmp_path: Path):
    blocks = code_blocks(SPACES)
    (module,) = (text for language, text in blocks if language == "python")
    (tmp_path / "workshop.py").write_text(module, encoding="utf-8")
    experiments = [text for language, text in blocks if language == "yaml"]
    assert len(experiments) == 3
    (tmp_path / "own.yaml").write_text(experiments[number], encoding="utf-8")
    policy = "multi-learner" if "core:" in experiments[number] else "local"
    quick = ("--policy", policy, "-s", "stop.env_steps=700")
    summary = summary_of_up(tmp_path, "-x", "own.yaml", *quick)
    assert int(str(summary["env_steps_consumed"])) >= 700


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'no_such_module' cannot be imported") as error:
        import_modules(["no_such_module"])
    assert error.value.where == "modules"
    (tmp_path / "broken_module.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        import_modules(["broken_module"])
