"""`tianji export`: the folder runs without TianJi, says where it comes from, and is there whole or
not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from space_envs import ENV_ID
from team_envs import MEMBERS

import tests.helpers.engine.exports  # noqa: F401 - registers Image-v0
from engine.errors import ConfigError, RunFailedError, TianJiError
from engine.export import formats
from engine.export.formats import FORMATS
from engine.spec import Experiment, StopSpec
from tests.helpers.engine.trained_runs import experiment_of, spaces_experiment, write_run
from tests.helpers.engine.trained_teams import convoy_experiment
from tianji_cli.commands.trained.export import ExportRequest, export_command
from tianji_cli.output import Output

FILES = {"README.md", "example.py", "policy.json", "recorded.npz", "requirements.txt"}
MORE = {
    "onnx": {"policy.onnx"},
    "torchscript": {"policy.pt"},
    "safetensors": {"policy.safetensors", "model.py"},
}
CARTPOLE = "id: CartPole-v1"
FORBIDS = """
import importlib.abc, runpy, sys, warnings
class Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("engine", "tianji_cli"):
            raise ImportError(f"{name} is of TianJi")
sys.meta_path.insert(0, Forbidden())
sys.dont_write_bytecode = True
warnings.simplefilter("error")
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    runpy.run_path(f"{folder}/example.py", run_name="__main__")
    sys.path.remove(folder)
    sys.modules.pop("model", None)
"""
"""Runs examples where nothing of TianJi can be imported and no warning is tolerated."""

Exported = Callable[..., Path]


class Heard(Output):
    """Keeps the one document."""

    def document(self, document: object) -> None:
        self.told = msgspec.to_builtins(document)


@pytest.fixture
def export(tmp_path: Path) -> Exported:
    """Exports a run of the results directory; returns the folder."""

    def run(name: str, format_name: str, out: Path | None = None, checkpoint: str = "last") -> Path:
        request = ExportRequest(name, tmp_path / "results", format_name, out, checkpoint, True)
        output = Heard(is_json=True)
        assert export_command(request, output) == 0
        folder = Path(output.told["path"])
        said = json.loads((folder / "policy.json").read_bytes())
        assert said.keys() == output.told["policy"].keys()
        return folder

    return run


def written(tmp_path: Path, name: str, experiment: Experiment, **more: Any) -> Path:  # noqa: ANN401
    return write_run(tmp_path / "results" / name, experiment, is_lively=True, **more)


def run_examples(*folders: Path, python: str = sys.executable) -> list[str]:
    """What examples print, in an interpreter of its own without TianJi."""
    command = [python, "-I", "-c", FORBIDS, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_of_a_cartpole(format_name: str, tmp_path: Path, export: Exported):
    root = written(tmp_path, "cart", experiment_of(CARTPOLE))
    folder = export("cart", format_name)
    assert folder == root / "exports" / f"{format_name}-v7"
    assert {path.name for path in folder.iterdir()} == FILES | MORE[format_name]
    for path in folder.iterdir():
        assert str(Path.home()).encode() not in path.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in path.read_bytes(), path
        assert path.stat().st_mode & 0o777 == 0o644
    document = json.loads((folder / "policy.json").read_text())
    (given,), (chosen,) = document["inputs"], document["outputs"]
    assert (given["name"], given["dtype"], given["shape"]) == (
        "observation",
        "float32",
        ["batch", 4],
    )
    assert (chosen["name"], chosen["dtype"], chosen["shape"]) == ("action", "int64", ["batch"])
    assert chosen["space"] == {"kind": "Discrete", "n": 2, "start": 0}
    if format_name == "onnx":
        assert run_examples(folder) == ["64 observations: the same actions"]


def test_onnx_with_memory_masks_and_several_inputs_and_outputs(tmp_path: Path, export: Exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    experiment = spaces_experiment("nested", "nested (hybrid)", "observation", "lstm")
    written(tmp_path, "hybrid", experiment)
    folder = export("hybrid", "onnx", tmp_path / "deep" / "er" / "out")
    document = json.loads((folder / "policy.json").read_text())
    assert [port["name"] for port in document["inputs"]][-3:] == [
        *("observation.d.f", "action_mask", "state"),
    ]
    names = [port["name"] for port in document["outputs"]]
    assert names == ["action.arm.0", "action.arm.1", "action.mode", "next_state"]
    policy = onnxruntime.InferenceSession(folder / "policy.onnx")
    assert [one.shape[0] for one in (*policy.get_inputs(), *policy.get_outputs())] == ["batch"] * 10
    env = gymnasium.make(ENV_ID, observation="nested", action="nested (hybrid)", mask="observation")
    observation, _ = env.reset(seed=1)
    state = np.zeros((1, 16), np.float32)
    for _ in range(5):  # the environment refuses what is not exactly one of its actions
        inputs = {
            "observation.a%2Eb.0": np.asarray(observation["a.b"][0], "int64")[None],
            "observation.a%2Eb.1.c": np.asarray(observation["a.b"][1]["c"], "int16")[None],
            "observation.d.e": np.asarray(observation["d"]["e"], "int64")[None],
            "observation.d.f": np.asarray(observation["d"]["f"], "float32")[None],
            "action_mask": np.asarray(observation["action_mask"]).reshape(1, -1) != 0,
            "state": state,
        }
        card = (folder / "README.md").read_text()
        assert all(f'"{name}": ' in card for name in inputs)
        arm, force, mode, state = policy.run(names, inputs)
        observation, *_ = env.step({"arm": (arm[0], force[0]), "mode": mode[0]})


CARDS = {
    "normalised": experiment_of("id: Pendulum-v1", network="normalize_observation: true"),
    "hybrid": spaces_experiment("tuple", "tuple (hybrid)", "info", "gru"),
    "squashed": spaces_experiment("discrete with start", "box 0-d", env="squash_actions: true"),
    "wrapped": experiment_of(
        f"{CARTPOLE}, wrappers: [{{name: 'engine.envs.observation_wrappers:HideEntries',"
        " entries: [1, 3]}]"
    ),
    "team": convoy_experiment("maddpg"),
    "team with memory": convoy_experiment("ippo", "gru"),
}


@pytest.mark.parametrize("name", CARDS)
def test_the_program_of_the_card_plays(name: str, tmp_path: Path, export: Exported):
    """The environment itself refuses what is not exactly one of its actions."""
    written(tmp_path, name, CARDS[name])
    folder = export(name, "torchscript")
    card = (folder / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    ended: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript
        exec(program.replace('"policy.pt"', repr(str(folder / "policy.pt"))), ended)
    assert ended["has_ended"] if "has_ended" in ended else not ended["env"].agents
    assert ("HideEntries" in card) == (name == "wrapped")


def test_examples_of_pytorch_run_without_tianji(tmp_path: Path, export: Exported):
    written(tmp_path, "hybrid", CARDS["hybrid"])
    written(tmp_path, "cart", experiment_of(CARTPOLE))
    runs, both = ("hybrid", "cart"), ("torchscript", "safetensors")
    folders = [export(run, one) for run in runs for one in both]
    assert run_examples(*folders) == ["64 observations: the same actions"] * 4


def test_the_card_says_where_weights_come_from(tmp_path: Path, export: Exported):
    root = written(tmp_path, "told", experiment_of(CARTPOLE, core="gru"))
    manifest = json.loads((root / "manifest.json").read_bytes())
    manifest["git"] = {"commit": "abc123", "dirty": True}
    manifest["versions"] = {"tianji": "0.1.0", "torch": "2.99"}
    manifest["seeds"] = [17]
    (root / "manifest.json").write_text(json.dumps(manifest))
    card = (export("told", "torchscript") / "README.md").read_text()
    for words in (
        *("version 7 of the run `told`", "`abc123` with changes", "torch 2.99", "| seeds | 17 |"),
        *("| return | not known |", "100 env steps", "gru of 8 units", "licence"),
    ):
        assert words in card, words


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "123.5: mean of 100 separate episodes"),
        ({"version": 8}, "not known"),
        ({"is_sampled": True}, "not known"),
        ({"env_kwargs": {"sutton_barto_reward": True}}, "not known"),
    ],
)
def test_the_return_is_that_of_an_evaluation_of_these_weights(
    changes: dict[str, object], expected: str, tmp_path: Path, export: Exported
):
    root = written(tmp_path, "judged", experiment_of(CARTPOLE))
    evaluation = {"version": 7, "is_sampled": False, "env_kwargs": {}, "episodes": 100, "seed": 5}
    (root / "evaluations").mkdir()
    for number, more in enumerate(({"episodes": 10, "returns": {"mean": 9.0}} | changes, changes)):
        document = {**evaluation, "returns": {"mean": 123.5}, **more}
        (root / "evaluations" / f"{number}.json").write_text(json.dumps(document))
    (root / "evaluations" / "damaged.json").write_text("{")
    assert f"| return | {expected}" in (export("judged", "torchscript") / "README.md").read_text()


def test_the_return_of_a_policy_is_not_that_of_its_team(tmp_path: Path, export: Exported):
    team = convoy_experiment("ippo")
    experiment = msgspec.structs.replace(
        team, stop=StopSpec(env_steps=1, return_of=next(iter(MEMBERS)))
    )
    root = written(tmp_path, "judged", experiment)
    (root / "evaluations").mkdir()
    evaluation = {"version": 7, "is_sampled": False, "env_kwargs": {}, "episodes": 100, "seed": 5}
    document = {**evaluation, "returns": {"mean": 123.5}}
    (root / "evaluations" / "old.json").write_text(json.dumps(document))
    card = (export("judged", "torchscript") / "README.md").read_text()
    assert "| return | not known |" in card, "it knew the team's only"
    policy = experiment.stop.return_of
    within = {"agent_returns": {"ann": 1.5, "bob": 2.0}, "policy_returns": {policy: 3.5}}
    (root / "evaluations" / "new.json").write_text(json.dumps({**document, **within}))
    card = (export("judged", "torchscript", tmp_path / "again") / "README.md").read_text()
    assert "| return | 3.5: mean of 100 separate episodes" in card
    assert f"returns of {policy} |" in card
    assert "| return by agent | ann 1.5, bob 2 |" in card


def test_nothing_is_overwritten(tmp_path: Path, export: Exported):
    written(tmp_path, "cart", experiment_of(CARTPOLE))
    out = tmp_path / "out"
    out.mkdir()
    assert export("cart", "torchscript", out) == out  # an empty directory is none
    before = sorted(path.name for path in out.iterdir())
    a_file = tmp_path / "file"
    a_file.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (out, a_file, tmp_path / "link"):
        with pytest.raises(ConfigError, match="nothing is overwritten"):
            export("cart", "torchscript", taken)
    assert sorted(path.name for path in out.iterdir()) == before
    assert a_file.read_text() == "mine"


@pytest.mark.parametrize("error", [RunFailedError("it differs"), KeyboardInterrupt(), OSError(28)])
def test_a_failed_export_leaves_nothing(
    error: BaseException, tmp_path: Path, export: Exported, monkeypatch: pytest.MonkeyPatch
):
    root = written(tmp_path, "cart", experiment_of(CARTPOLE))
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(formats, "check_agreement", fail)
    for out in (None, tmp_path / "deep" / "out"):
        if isinstance(error, KeyboardInterrupt):
            request = ExportRequest("cart", tmp_path / "results", "torchscript", out, "last", True)
            assert export_command(request, Output(verbosity=-1)) == 130
        else:
            with pytest.raises((TianJiError, OSError)):
                export("cart", "torchscript", out)
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert root.is_dir()


def test_what_is_missing_or_unknown_is_said(
    tmp_path: Path, export: Exported, monkeypatch: pytest.MonkeyPatch
):
    written(tmp_path, "cart", experiment_of(CARTPOLE))
    with pytest.raises(ConfigError, match="unknown format 'onx'") as unknown:
        export("cart", "onx")
    assert "onnx" in unknown.value.fix
    monkeypatch.setattr(formats, "is_installed", lambda package: package == "onnx")
    with pytest.raises(ConfigError, match="onnx needs onnxscript, onnxruntime") as missing:
        export("cart", "onnx")
    assert "pip install" in missing.value.fix
    with pytest.raises(ConfigError, match="no checkpoint of version 6"):
        export("cart", "torchscript", checkpoint="6")


def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path, export: Exported):
    root = written(tmp_path, "cart", experiment_of(CARTPOLE))
    (tmp_path / "elsewhere").mkdir()
    (root / "exports").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TianJiError, match="leads out of"):
        export("cart", "torchscript")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_bfloat16_is_exported_in_single_precision(tmp_path: Path, export: Exported):
    network = "name: minatar_cnn, precision: bfloat16"
    env = "id: Image-v0, kwargs: {shape: '4, 10, 10'}"
    written(tmp_path, "half", experiment_of(env, network=network))
    for one in ("torchscript", "safetensors"):
        folder = export("half", one)
        precision = json.loads((folder / "policy.json").read_text())["precision"]
        assert (precision["trained"], precision["exported"]) == ("bfloat16", "float32")
        assert 0.5 <= precision["same_actions"] <= 1.0
        assert "trained in bfloat16" in (folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("format_name", FORMATS)
def test_a_fresh_environment_is_enough(format_name: str, tmp_path: Path, export: Exported):
    """Only what requirements.txt says is installed, and nothing of TianJi."""
    written(tmp_path, "hybrid", CARDS["hybrid"])
    folder = export("hybrid", format_name)
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    words = [python, "-m", "pip", "install", "-q", "-r", str(folder / "requirements.txt")]
    installed = subprocess.run(words, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"pip cannot install it here: {installed.stderr[-200:]}")
    assert run_examples(folder, python=python) == ["64 observations: the same actions"]
