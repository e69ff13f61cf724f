"""The user's own modules: what is sent to other hosts, and who is found first under one name."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.extensions import import_modules
from engine.host.host_check import LIST_NAME
from engine.search_path import OWN_ROOT, module_command, own_path, searched
from engine.spec import Experiment
from tianji_cli.provisioning import own_modules
from tianji_cli.provisioning.bundle import pack_modules
from tianji_cli.provisioning.own_modules import OwnModules, find_modules


def experiment(*modules: str, env: str = "CartPole-v1") -> Experiment:
    return msgspec.convert(
        {
            "name": "x",
            "env": {"id": env},
            "algorithm": {"name": "ppo"},
            "modules": modules,
            "stop": {"env_steps": 1},
        },
        Experiment,
    )


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py").replace("INIT", "__init__")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def found(root: Path, *modules: str, env: str = "CartPole-v1") -> OwnModules:
    return find_modules(experiment(*modules, env=env), [str(root)])


def test_nothing_of_ones_own_is_nothing_to_send(tmp_path: Path):
    write(tmp_path, other_py="")
    assert found(tmp_path).files == {}
    assert found(tmp_path, "numpy", "json", "engine.spec").files == {}


def test_a_module_and_what_it_imports_from_beside_it(tmp_path: Path):
    write(
        tmp_path,
        corridor_py="import numpy\nimport helper\nfrom grids.small import x\n",
        helper_py="def f():\n    import late\n",
        late_py="",
        unused_py="",
        grids__INIT_py="",
        grids__small_py="from . import levels\nx = 1",
        grids__levels_py="",
        grids__map_txt="###",
    )
    modules = found(tmp_path, "corridor")
    assert sorted(modules.files) == [
        *("corridor.py", "grids/__init__.py", "grids/levels.py", "grids/map_txt", "grids/small.py"),
        *("helper.py", "late.py"),
    ]
    assert modules.words.startswith("corridor.py, helper.py, grids/, late.py (7 files, ")


def test_the_module_of_an_environments_id(tmp_path: Path):
    write(tmp_path, mine_py="x = 1")
    assert list(found(tmp_path, env="mine:Mine-v0").files) == ["mine.py"]


def test_the_modules_of_wrappers(tmp_path: Path):
    write(tmp_path, frames_py="import helper", helper_py="", other_py="")
    given = experiment("json", env="CartPole-v1")
    wrappers = ({"name": "frames:Crop"}, {"name": "FlattenObservation"}, {"name": "numpy:x"})
    env = msgspec.structs.replace(given.env, wrappers=wrappers)
    modules = find_modules(msgspec.structs.replace(given, env=env), [str(tmp_path)])
    assert sorted(modules.files) == ["frames.py", "helper.py"]


@pytest.mark.parametrize("name", ["", ".", "..a", "a-b"])
def test_a_name_that_no_module_can_have_sends_nothing(tmp_path: Path, name: str):
    write(tmp_path, mine_py="", secrets__x_py="")
    assert not found(tmp_path, name).files
    assert not found(tmp_path, env=f"{name}:Mine-v0").files


def test_an_entry_point_is_an_import(tmp_path: Path):
    text = "import gymnasium\ngymnasium.register('A-v0', entry_point='mazes.deep:Maze')\n"
    write(tmp_path, mine_py=text, mazes__deep_py="", mazes__more_py="")
    assert sorted(found(tmp_path, "mine").files) == ["mazes/deep.py", "mazes/more.py", "mine.py"]


def test_a_submodule_brings_its_package_whole(tmp_path: Path):
    write(tmp_path, lab__INIT_py="", lab__envs__INIT_py="", lab__envs__grid_py="", lab__util_py="")
    (tmp_path / "lab" / "__pycache__").mkdir()
    (tmp_path / "lab" / "__pycache__" / "util.pyc").write_bytes(b"no")
    (tmp_path / "lab" / ".secret").write_text("no")
    files = found(tmp_path, "lab.envs.grid").files
    assert sorted(files) == [
        *("lab/__init__.py", "lab/envs/__init__.py", "lab/envs/grid.py", "lab/util.py")
    ]


@pytest.mark.parametrize("name", ["token", "secrets", "types", "numpy", "engine"])
def test_what_python_finds_elsewhere_is_not_sent(tmp_path: Path, name: str):
    (tmp_path / f"{name}.py").write_text("")
    write(tmp_path, mine_py=f"import {name}")
    assert list(found(tmp_path, "mine", name).files) == ["mine.py"]


def test_modules_that_import_each_other_are_sent_once(tmp_path: Path):
    write(tmp_path, one_py="import two", two_py="import one")
    assert sorted(found(tmp_path, "one").files) == ["one.py", "two.py"]


def test_the_working_directory_counts_before_the_experiments(tmp_path: Path):
    here, beside = write(tmp_path / "a", m_py="a"), write(tmp_path / "b", m_py="b", n_py="b")
    modules = find_modules(experiment("m", "n"), [str(here), str(beside)])
    assert modules.files == {"m.py": b"a", "n.py": b"b"}


def test_too_much_is_not_sent_and_that_is_said(tmp_path: Path, monkeypatch):
    write(tmp_path, lab__INIT_py="", lab__data_txt="x" * 100)
    monkeypatch.setattr(own_modules, "MAX_BYTES", 99)
    modules = found(tmp_path, "lab")
    assert not modules.files
    assert str(tmp_path / "lab" / "data_txt") in modules.problem
    monkeypatch.setattr(own_modules, "MAX_FILES", 1)
    assert "more than 1 files" in found(tmp_path, "lab").problem


def test_a_file_that_python_cannot_read_is_sent_as_it_is(tmp_path: Path):
    write(tmp_path, broken_py="def (:")
    assert found(tmp_path, "broken").files == {"broken.py": b"def (:"}


def test_equal_modules_have_equal_names_and_long_paths_fit():
    files = {f"{'d' * 90}/{'e' * 90}/{'f' * 90}.py": b"x", "ä.py": b"y"}
    bundle = pack_modules(files)
    assert bundle == pack_modules(dict(reversed(files.items())))
    with tarfile.open(fileobj=io.BytesIO(bundle.data)) as archive:
        assert sorted(archive.getnames()) == sorted([*files, LIST_NAME])


SHADOWS = (
    "token",
    "secrets",
    "random",
    "enum",
    "logging",
    "types",
    "queue",
    "engine",
    "tianji_cli",
)
SHADOWS += ("torch", "numpy", "zmq", "psutil")


def shadowed(directory: Path, names: tuple[str, ...] = SHADOWS) -> Path:
    """A directory whose files must not be taken for others of their names."""
    for name in names:
        (directory / name).mkdir()
        text = f"raise SystemExit('{name} of the working directory was imported')\n"
        (directory / name / "__init__.py").write_text(text)
        (directory / f"{name}.py").write_text(text)
    return directory


MODULES = (
    "engine.supervision.supervisor",
    "engine.runtime.forkserver",
    "engine.supervision.run_inspector",
)


@pytest.mark.parametrize("module", MODULES)
def test_processes_of_a_run_do_not_import_what_lies_in_the_working_directory(
    tmp_path: Path, module: str
):
    """They end at once, as nobody speaks to them; how, is not the point here."""
    env = {**os.environ, "PYTHONPATH": own_path(os.environ.get("PYTHONPATH"))}
    done = subprocess.run(
        module_command(sys.executable, module),
        cwd=shadowed(tmp_path),
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "was imported" not in done.stdout + done.stderr
    assert "No module named" not in done.stderr


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["-m", "tianji_cli.main"], OWN_ROOT),
        (["-P", "-m", "tianji_cli.main"], f"{OWN_ROOT}{os.pathsep}"),
        (["-P", "-m", "tianji_cli"], f"{os.pathsep}{OWN_ROOT}"),
        (["-P", "-m", "tianji_cli"], f".{os.pathsep}{OWN_ROOT}"),
    ],
)
def test_the_command_does_not_either(tmp_path: Path, words: list[str], path: str):
    """`types` and its like are read by `python -m` itself, before any of us can be asked; and so is
    a `tianji_cli` that stands before ours."""
    names = ("token", "secrets", "queue", "torch", "psutil", "rich")
    if path.startswith(OWN_ROOT):
        names += ("engine",) if words[0] == "-m" else ("engine", "tianji_cli")
    done = subprocess.run(
        [sys.executable, *words, "version"],
        cwd=shadowed(tmp_path, names),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tianji" in done.stdout


def test_a_module_is_looked_for_in_the_working_directory_after_all_else(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, token_py="1 / 0", own_module_a_py="x = 1"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("engine.search_path._directories", [])
    import_modules(["own_module_a"])
    assert sys.path[-1] == str(tmp_path)
    assert searched() == (str(tmp_path),)
    with pytest.raises(ConfigError, match="'token' is a module of Python itself") as error:
        import_modules(["token"])
    assert error.value.fix == "give yours another name"


def test_what_a_module_lacks_is_told_apart_from_a_missing_module(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, own_module_b_py="import no_such_library"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("engine.search_path._directories", [])
    with pytest.raises(ConfigError) as error:
        import_modules(["own_module_b"])
    assert "it imports 'no_such_library': install that" in error.value.fix
    with pytest.raises(ConfigError) as error:
        import_modules(["own_module_c"], where="env.id")
    assert error.value.where == "env.id"
    assert f"it is neither in {tmp_path} nor where" in error.value.fix
    assert "TIANJI_MODULES=DIRECTORY names another place" in error.value.fix
    with pytest.raises(ConfigError) as error:
        import_modules(["engine.mine"])
    assert "TianJi's own package" in error.value.fix


def test_a_path_of_ones_own_keeps_its_place(tmp_path: Path):
    assert own_path(None) == OWN_ROOT
    assert own_path("/x:/y") == f"{OWN_ROOT}:/x:/y"
    assert own_path(f"{OWN_ROOT}:/x") == f"{OWN_ROOT}:/x"


def test_an_installation_is_added_only_where_it_would_be_hidden(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("engine.search_path._installed", lambda: {OWN_ROOT})
    assert own_path(None) == ""
    assert own_path("/x") == "/x"
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").touch()
    assert own_path(str(tmp_path)) == f"{OWN_ROOT}:{tmp_path}"
