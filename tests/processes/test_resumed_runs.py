"""`up --resume`: what dies is named with the next command, and that command goes on."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.checkpoint_file import read_info
from tests.helpers.running import EAGER, rows, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

OFTEN = (*EAGER, "-s", "stop.return_threshold=null", "-s", "checkpoint.every_s=0.5")


def limit(env_steps: int) -> tuple[str, str]:
    return "-s", f"stop.env_steps={env_steps}"


def summary(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "summary.json").read_text())
    return found


def balanced(run: Path) -> bool:
    ledger = rows(run, "ledger")
    return bool(ledger) and all(
        row["collected"] == row["consumed"] + row["dropped"] + row["in_flight"] for row in ledger
    )


@pytest.mark.parametrize("address", ["learner-0", "buffer-0"])
def test_a_killed_heart_names_the_next_command_and_that_goes_on(tianji, tmp_path, address):
    first, second = tmp_path / "results/run", tmp_path / "results/second"
    command = tianji("up", "--name", "run", *OFTEN, *limit(10_000_000))
    wait_for(lambda: len(list(first.glob("checkpoints/v*.json"))) > 1, 60, "two checkpoints")
    command.role(address).send_signal(signal.SIGKILL)
    code, _, err = command.end()
    assert code == 1
    assert address in err
    assert "tianji up --resume run" in err
    saved = choose_checkpoint(first / "checkpoints", "last").info
    steps = saved.counters.env_steps_consumed
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}

    more = limit(steps + 20_000)
    again = tianji("up", "--resume", "run", "--name", "second", "-s", "actors=3", *more)
    code, _, err = again.end(60)
    assert code == 0, err
    assert f"resumes run from version {saved.version}: {steps:,} env steps consumed" in err
    assert "restored: network, optimiser" in err
    result = summary(second)
    assert result["resumed_from"] == "run"
    assert result["num_actors"] == 3
    assert result["weights_version"] > saved.version
    assert steps + 20_000 <= result["env_steps_consumed"] < steps + 30_000
    assert min(row["version"] for row in rows(second, "consumption")) == saved.version
    assert min(row["t_s"] for row in rows(second, "consumption")) > saved.counters.elapsed_s
    assert balanced(second)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == before

    report = tianji("report", "second", "--json")
    assert json.loads(report.end(60)[1])["runs"][0]["disagreements"] == []


@pytest.mark.slow
def test_the_curve_goes_on(tianji, tmp_path):
    """What was learnt is there: the first episodes after it are as good as the last before it."""
    tianji("up", "--name", "run", *OFTEN, *limit(40_000)).end(100)
    tianji("up", "--resume", "run", "--name", "second", *limit(60_000)).end(60)
    returns = [
        [float(row["episode_return"]) for row in rows(tmp_path / "results" / name, "episodes")]
        for name in ("run", "second")
    ]
    begin, last, first = returns[0][:50], returns[0][-50:], returns[1][:50]
    learnt = sum(last) / 50 - sum(begin) / 50
    assert learnt > 30, "the first run learns"
    assert sum(first) / 50 > sum(begin) / 50 + learnt / 3, (begin, last, first)
    xs = [row["env_steps_collected"] for row in rows(tmp_path / "results/second", "episodes")]
    assert min(xs) > 40_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        ("tianji", "-s", "groups=2"),
        ("central",),
        ("multi-learner", "-s", "algorithm.batch_steps=800"),
        ("environments",),
        ("impala", "-x", "cartpole_impala"),
        ("apex", "-x", "cartpole_apex", "-s", "algorithm.min_replay_size=500"),
    ],
    ids=lambda policy: policy[0],
)
def test_every_kind_of_cut_goes_on(tianji, tmp_path, policy):
    command = tianji("up", "--name", "run", "--policy", *policy, *OFTEN, *limit(5_000))
    code, _, err = command.end(60)
    assert code == 0, err
    code, _, err = tianji("up", "--resume", "run", "--name", "second", *limit(10_000)).end(60)
    assert code == 0, err
    before, after = (summary(tmp_path / "results" / name) for name in ("run", "second"))
    assert after["weights_version"] > before["weights_version"]
    assert after["env_steps_consumed"] >= 10_000
    assert balanced(tmp_path / "results/second")
    report = tianji("report", "second", "--json")
    assert json.loads(report.end(60)[1])["runs"][0]["disagreements"] == []


def test_replay_and_the_debug_twin_go_on(tianji, tmp_path):
    dqn = ("-x", "cartpole_dqn", "--policy", "local", "-s", "algorithm.min_replay_size=500")
    tianji("up", "--name", "run", *dqn, *OFTEN, *limit(2_000)).end(60)
    code, _, err = tianji("up", "--resume", "run", "--name", "second", *limit(4_000)).end(60)
    assert code == 0, err
    assert "the replay store is filled again (500 env steps first)" in err
    assert "target network" in err
    assert summary(tmp_path / "results/second")["env_steps_consumed"] >= 4_000
    first = rows(tmp_path / "results/second", "replay")[0]
    assert first["size_env_steps"] < 500, "its contents were not saved"


def test_a_run_that_still_runs_is_not_resumed(tianji, training):
    code, _, err = tianji("up", "--resume", "run").end(30)
    assert code == 2
    assert "it still runs" in err
    assert "tianji down run" in err


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a short run with several checkpoints."""
    from tianji_cli.commands.run_request import UpRequest
    from tianji_cli.commands.up import up
    from tianji_cli.output import Output

    results = tmp_path_factory.mktemp("ended")
    settings = ("policy=local", "stop.env_steps=12000", "checkpoint.every_s=0.05")
    request = UpRequest(None, "cartpole_ppo", settings, results, "run")
    assert up(request, Output(verbosity=-1)) == 0
    return results


@pytest.fixture
def own_copy(ended: Path, tmp_path: Path) -> Path:
    shutil.copytree(ended, tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "of 12,000 env steps already"),
        (("-s", "env.id=Acrobot-v1"), '"Acrobot-v1" here, but "CartPole-v1" in the checkpoint'),
        (("-s", "network.hidden_sizes=[8]"), "network.hidden_sizes"),
        (("-s", "algorithm.discount=0.5"), "algorithm.discount"),
        (("--seed", "7"), "7 here, but 0 in the checkpoint"),
        (("-x", "cartpole_impala"), "algorithm."),
    ],
)
def test_what_cannot_go_on_is_refused_before_anything_starts(tianji, own_copy, arguments, words):
    code, _, err = tianji("up", "--resume", "run", "--name", "second", *arguments).end(30)
    assert code == 2, err
    assert words in err
    assert "fix:" in err
    assert not (own_copy / "second").exists()


def test_an_unknown_run_is_refused(tianji, own_copy):
    code, _, err = tianji("up", "--resume", "nowhere").end(30)
    assert code == 2
    assert "no such run" in err


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tianji, own_copy, witness):
    checkpoints = own_copy / "run/checkpoints"
    newest, before = sorted(checkpoints.glob("v*.json"), reverse=True)[:2]
    tensors = checkpoints / read_info(newest).tensors_name
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    more = (*limit(13_000), "-s", "checkpoint.every_s=60")
    code, _, err = tianji("up", "--resume", "run", "--name", "second", *more).end(60)
    assert code == 0, err
    assert "does not have the checksum" in err
    assert newest.name in err
    assert f"version {read_info(before).version}:" in err
    witness(
        "damaged checkpoint", "named with its checksum, the one before was gone on from, exit 0"
    )


def test_without_a_whole_checkpoint_each_reason_is_told(tianji, own_copy):
    tensors = list((own_copy / "run/checkpoints").glob("*.safetensors"))
    for path in tensors:
        path.write_bytes(b"\x80\x04cposix\nsystem\n")
    code, _, err = tianji("up", "--resume", "run").end(30)
    assert code == 2
    assert "no checkpoint to resume from" in err
    assert err.count("bytes where") == len(tensors) >= 2


def test_what_may_change_can_be_changed_and_no_advice_contradicts(tianji, tmp_path):
    words = ("--policy", "local", *OFTEN)
    assert tianji("up", "--name", "run", *words, *limit(1_000)).end(60)[0] == 0
    again = ("up", "--resume", "run", *limit(3_000))
    code, _, err = tianji(*again, "-s", "env.num_envs=16").end(60)
    assert code == 2
    assert "400 is not a multiple of a rollout's 800 steps" in err
    assert "8 would fit" in err
    assert "try 800" not in err
    assert "keeps its algorithm.batch_steps" in err
    code, _, err = tianji(*again, "-s", "env.num_envs=4", "--name", "fewer").end(60)
    assert code == 0, err
    episodes = ("-s", "evaluation.episodes=2", "--name", "judged")
    code, _, err = tianji(*again, *episodes).end(60)
    assert code == 0, err
    recorded = json.loads((tmp_path / "results/judged/manifest.json").read_text())["experiment"]
    assert recorded["evaluation"]["episodes"] == 2
