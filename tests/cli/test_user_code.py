"""Whatever user code does to its process, the command writes and says what it would have."""

from __future__ import annotations

import json
import locale
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.files import read_umask
from engine.host.user_code import restored_process
from tests.helpers.paths import REPOSITORY
from tianji_cli.interrupts import Interrupts

MISCHIEF = {
    "changes": "os.chdir('elsewhere'); os.umask(0o777); locale.setlocale(locale.LC_ALL, 'C');"
    " [signal.signal(n, signal.SIG_IGN) for n in (2, 15, 1)];"
    " sys.stdout = io.StringIO(); sys.stderr = None",
    "takes away": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); sys.stdout.close()",
}
MODULE = """
import io, locale, os, signal, sys
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

DONE = []

def act(moment):
    if moment == {moment!r} and not DONE:
        DONE.append(moment)
        {act}

act("import")

class Restless(CartPoleEnv):
    def reset(self, **options):
        act("reset")
        return super().reset(**options)

gymnasium.register("Restless-v0", Restless, max_episode_steps=500)
"""
SHORT = ("-s", "env.id=restless:Restless-v0", "-s", "stop.env_steps=1600")
SHORT += ("-s", "stop.return_threshold=null", "-s", "checkpoint.every_s=0.2", "-s", "seed=3")
SHORT += ("-s", "learner.compile=off")


def up(directory: Path, *words: str, env: dict[str, str] | None = None) -> tuple[int, bytes, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", "up", *SHORT, *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{directory}", **(env or {})},
        capture_output=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("policy", "mischief", "moment"),
    [
        ("local", "changes", "import"),
        ("local", "takes away", "reset"),
        ("tianji", "changes", "reset"),
        pytest.param("local", "changes", "reset", marks=pytest.mark.slow),
        pytest.param("local", "takes away", "import", marks=pytest.mark.slow),
        pytest.param("tianji", "changes", "import", marks=pytest.mark.slow),
    ],
)
def test_results_are_whole_and_where_they_were_wanted(
    tmp_path: Path, policy: str, mischief: str, moment: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    text = MODULE.format(moment=moment, act=MISCHIEF[mischief])
    (tmp_path / "restless.py").write_text(text)
    code, out, err = up(
        tmp_path, "--json", "--name", "run", "--results", "kept", "--policy", policy
    )
    assert code == 0, err
    assert json.loads(out)["status"] == "ok"
    run = tmp_path / "kept" / "run"
    assert json.loads((run / "summary.json").read_text())["env_steps_consumed"] >= 1600
    assert (run / "trace" / "production.jsonl").stat().st_size > 0
    saved = list((run / "checkpoints").glob("v*.json"))
    assert saved
    for path in (run / "summary.json", *saved, *run.rglob("*.log"), *run.rglob("*.jsonl")):
        assert path.stat().st_mode & 0o400, f"{path} cannot be read by its owner"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["run"]


def test_the_process_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (os.getcwd(), read_umask(), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr)
    words = locale.setlocale(locale.LC_ALL)
    (tmp_path / "moved").mkdir()
    os.chdir("moved")
    with pytest.raises(ZeroDivisionError), restored_process():  # noqa: PT012
        os.chdir("/")
        (tmp_path / "moved").rename(tmp_path / "again")
        os.umask(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        locale.setlocale(locale.LC_ALL, "C")
        raise ZeroDivisionError
    assert os.getcwd() == str(tmp_path / "again")
    after = (read_umask(), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr)
    assert after == before[1:]
    assert locale.setlocale(locale.LC_ALL) == words


def test_a_library_that_takes_signals_over_does_not_keep_them() -> None:
    interrupts = Interrupts()
    with interrupts.installed():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupts.insist()
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 1
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    interrupts.insist()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
