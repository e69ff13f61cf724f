"""`tianji evaluate` and `tianji play` as they are typed, on runs that are there."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from PIL import Image

from engine.spec import EnvSpec, EvaluationSpec, WatchdogSpec
from engine.testing import make_experiment
from tests.helpers.engine.trained_runs import write_run
from tests.helpers.running import Command

pytestmark = pytest.mark.processes

Tianji = Callable[..., Command]
ENV = EnvSpec(id="played_env:Played-v0")
SMALL = ("--episodes", "12", "--trust")


def write(tmp_path: Path, name: str = "run", env: EnvSpec = ENV, **changes: object) -> Path:
    experiment = msgspec.structs.replace(
        make_experiment(env=env), evaluation=EvaluationSpec(episodes=4, seed=50), **changes
    )
    return write_run(tmp_path / "results" / name, experiment)


def answer(command: Command) -> dict[str, object]:
    code, out, err = command.end(120)
    assert code == 0, err
    document: dict[str, object] = json.loads(out)
    return document


def episodes_of(root: Path) -> list[dict[str, str]]:
    (path,) = (root / "evaluations").glob("*.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


def test_results_are_those_of_any_number_of_processes(tianji: Tianji, tmp_path: Path):
    one, other = write(tmp_path, "one"), write(tmp_path, "other")
    documents = []
    for name, cores in (("one", [min(os.sched_getaffinity(0))]), ("other", None)):
        before = os.sched_getaffinity(0)
        if cores:
            os.sched_setaffinity(0, cores)
        try:
            command = tianji("--json", "evaluate", name, *SMALL)
        finally:
            os.sched_setaffinity(0, before)
        (found,) = answer(command)["evaluations"]  # type: ignore[misc]
        documents.append(found["evaluation"])
    assert documents[0]["num_processes"] == 1
    assert documents[1]["num_processes"] == min(3, len(os.sched_getaffinity(0)))
    rows = episodes_of(one)
    assert rows == episodes_of(other)
    assert [int(row["episode"]) for row in rows] == list(range(12))
    assert [int(row["seed"]) for row in rows] == list(range(50, 62))
    assert documents[0]["returns"] == documents[1]["returns"]
    mean = np.mean([float(row["episode_return"]) for row in rows])
    assert documents[0]["returns"]["mean"] == pytest.approx(mean)
    assert len({row["length_env_steps"] for row in rows}) > 1


@pytest.mark.slow
def test_several_runs_are_compared_and_other_settings_overwrite_nothing(
    tianji: Tianji, tmp_path: Path
):
    write(tmp_path, "one")
    write(tmp_path, "other")
    code, out, err = tianji("evaluate", "one", "other", "one", *SMALL).end(120)
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines() if line.split()[1:2] == ["7"]] == [
        "one",
        "other",
    ]
    assert "12 episodes, greedy actions" in out
    code, _, err = tianji("evaluate", "one", *SMALL, "--sampled", "--seed", "3").end(120)
    assert code == 0, err
    names = [path.name for path in (tmp_path / "results/one/evaluations").glob("*.json")]
    assert sorted(name.rpartition("-")[0] for name in names) == [
        "v7-seed3-12-sampled",
        "v7-seed50-12",
    ]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("raises", "ValueError: the simulator fell over"),
        pytest.param("kills", "was killed by SIGKILL", marks=pytest.mark.slow),
        pytest.param("exits", "processes ended before", marks=pytest.mark.slow),
    ],
)
def test_what_goes_wrong_is_one_error(tianji: Tianji, tmp_path: Path, mode: str, words: str):
    root = write(tmp_path)
    command = tianji("evaluate", "run", *SMALL, "--env-kwargs", f"mode={mode}")
    code, out, err = command.end(120)
    assert (code, out) == (1, "")
    assert err.count("error: ") == 1
    assert words in err
    assert "Played-v0" in err
    assert not list((root / "evaluations").iterdir())


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_is_a_matter_of_configuration(
    tianji: Tianji, tmp_path: Path
):
    write(tmp_path)
    code, _, err = tianji("evaluate", "run", *SMALL, "--env-kwargs", "moed=good").end(120)
    assert code == 2
    assert "moed" in err


def test_modules_of_a_run_from_elsewhere_are_not_imported(tianji: Tianji, tmp_path: Path):
    write(tmp_path)
    for verb in ("evaluate", "play"):
        # what other tests have trusted is noted for this user
        command = tianji(verb, "run", XDG_STATE_HOME=str(tmp_path / "state"))
        code, _, err = command.end(120)
        assert code == 2
        assert "played_env" in err
        assert "--trust" in err


def hanging(tianji: Tianji, tmp_path: Path, mode: str) -> Command:
    """An evaluation whose processes all hang, and the process that one of them has left."""
    write(tmp_path)
    (tmp_path / "temporary").mkdir()
    own = {"TMPDIR": str(tmp_path / "temporary")}
    command = tianji("evaluate", "run", *SMALL, "--env-kwargs", f"mode={mode}", **own)
    wanted = min(3, len(os.sched_getaffinity(0)))
    hung = lambda: len(list(tmp_path.glob("hangs-*"))) == wanted  # noqa: E731
    command.wait_for(hung, "environments hang")
    command.look()
    return command


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_evaluation_leaves_nothing(tianji: Tianji, tmp_path: Path, number: int):
    command = hanging(tianji, tmp_path, "leaves")
    command.process.send_signal(number)
    code, out, err = command.end()
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert "Traceback" not in err
    assert command.alive() == []
    assert not list((tmp_path / "results/run/evaluations").iterdir())
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_processes_end_with_a_command_that_is_killed(tianji: Tianji, tmp_path: Path):
    command = hanging(tianji, tmp_path, "leaves")
    command.process.kill()
    command.process.wait()
    _, alive = psutil.wait_procs(command.alive(), timeout=30)
    assert alive == []


@pytest.mark.slow
def test_environments_that_stand_still_end_the_evaluation(tianji: Tianji, tmp_path: Path):
    write(tmp_path, watchdog=WatchdogSpec(stuck_s=None, stalled_s=8.0))
    command = tianji("evaluate", "run", *SMALL, "--env-kwargs", "mode=hangs")
    code, _, err = command.end(120)
    assert code == 1
    assert "no environment has taken a step for 8 s" in err


def test_play_writes_a_video_beside_the_run(tianji: Tianji, tmp_path: Path):
    root = write(tmp_path)
    video = tmp_path / "out.gif"
    played = answer(
        tianji("--json", "play", "run", "--video", str(video), "--episodes", "2", "--trust")
    )
    assert played["video"] == str(video)
    assert played["fps"] == 5
    lengths = [row["length_env_steps"] for row in played["episodes"]]  # type: ignore[attr-defined]
    expected = [age for length in lengths for age in range(length + 1)]
    with Image.open(video) as image:
        shown = []
        for number in range(image.n_frames):
            image.seek(number)
            shown += [image.convert("RGB").getpixel((5, 5))[0] // 20] * (  # type: ignore[index]
                image.info["duration"] // 200
            )
        assert image.size == (336, 224)
    assert shown == expected
    assert not (root / "videos").exists()
    code, out, err = tianji("play", "run", "--seed", "3", "--trust").end(120)
    assert code == 0, err
    (made,) = (root / "videos").iterdir()
    assert made.stem == "v7-seed3-1"
    assert "episode 0 (seed 3): return" in out
    assert str(made.relative_to(tmp_path)) in out


@pytest.mark.slow
def test_play_says_what_an_environment_raises(tianji: Tianji, tmp_path: Path):
    root = write(tmp_path)
    for mode, words in (("raises", "the simulator fell over"), ("exits", "os._exit(0) was called")):
        code, _, err = tianji("play", "run", "--trust", "--env-kwargs", f"mode={mode}").end(120)
        assert code == 1
        assert words in err
        assert "Traceback" not in err
    assert not list((root / "videos").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_video_is_not_kept(tianji: Tianji, tmp_path: Path, number: int):
    root = write(tmp_path)
    command = tianji("play", "run", "--trust", "--env-kwargs", "mode=hangs")
    command.wait_for(lambda: any(tmp_path.glob("hangs-*")), "the environment hangs")
    command.look()
    command.process.send_signal(number)
    code, out, err = command.end()
    assert (code, out) == (130, "")
    assert "interrupted; no video was written" in err
    assert "Traceback" not in err
    assert command.alive() == []
    assert not list((root / "videos").iterdir())


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_named_before_anything_is_played(
    tianji: Tianji, tmp_path: Path
):
    root = write(tmp_path)
    (root / "evaluations").symlink_to(tmp_path)
    code, _, err = tianji("evaluate", "run", *SMALL).end(120)
    assert code == 3
    assert "it leads out of" in err
    (root / "evaluations").unlink()
    (root / "evaluations").write_text("a file")
    code, _, err = tianji("evaluate", "run", *SMALL).end(120)
    assert code == 3
    assert "the evaluation cannot be written" in err


def test_a_window_needs_a_display(tianji: Tianji, tmp_path: Path):
    write(tmp_path)
    command = tianji("play", "run", "--human", DISPLAY="", WAYLAND_DISPLAY="", SDL_VIDEODRIVER="")
    code, _, err = command.end(120)
    assert code == 3
    assert "there is no display" in err
