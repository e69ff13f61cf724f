"""Ten minutes of faults in a random order, on a lab of real hosts.

    python tests/faults/random_faults.py --seed 1 --out DIR          on actors and links
    python tests/faults/random_faults.py --seed 1 --out DIR --severe on everything
    python tests/faults/random_faults.py --replay DIR/schedule.json --out DIR2

`schedule.json` and `faults.jsonl` in DIR say what was planned, and what was done with which proof;
`outcome.json` what came of it. Needs what `tianji lab` needs.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.faults.chaos import Chaos  # noqa: E402
from tests.faults.schedule import make_schedule, read_schedule, write_schedule  # noqa: E402
from tests.helpers.ssh_kit import REPOSITORY, Bench, Command  # noqa: E402
from tianji_cli.analysis.check import rebuild_counters  # noqa: E402
from tianji_cli.analysis.convergence import threshold_crossing  # noqa: E402
from tianji_cli.analysis.history import check_history  # noqa: E402
from tianji_cli.analysis.run import load_run  # noqa: E402
from tianji_cli.analysis.verify import examine_runs  # noqa: E402
from tianji_cli.lab import Lab  # noqa: E402
from tianji_cli.storage.run_dir import RunPaths  # noqa: E402

NUM_HOSTS = 4
THRESHOLD = 475.0
SETTINGS = (
    *("-s", "learner.compile=off", "-s", "stop.env_steps=null", "-s", "stop.return_threshold=null"),
    *("-s", f"actors={NUM_HOSTS - 1}", "-s", "env.step_latency_ms=8", "-s", "restarts=1000"),
    *("-s", "checkpoint.every_s=5", "-s", "stop.seconds=100000"),  # until it is interrupted
)

NAMED = re.compile(r"error: .*(learner-0|buffer-0|coordinator|forkserver|actor-\d|tj\d)", re.DOTALL)
"""How a run that a fault has ended says so."""


def judge(command: Command) -> dict[str, object]:
    """What a run's files say of it; asserts what must hold of every run."""
    run = load_run(RunPaths(command.run_dir))
    history = check_history(run)
    assert not history, f"{command.run_dir.name}: {history[:5]}"
    found: dict[str, object] = {"run": command.run_dir.name, "exit_code": command.code}
    if run.summary is not None:
        summary = run.summary
        wrong = rebuild_counters(run)
        assert not wrong, f"{command.run_dir.name}: {wrong[:5]}"
        (examined,) = examine_runs([RunPaths(command.run_dir)])
        crossing = threshold_crossing(examined.curves.episodes, THRESHOLD)
        found |= {
            "status": summary.status,
            "error": (summary.error or "").splitlines()[:1],
            "wall_s": round(summary.wall_s, 1),
            "env_steps_collected": summary.env_steps_collected,
            "env_steps_consumed": summary.env_steps_consumed,
            "env_steps_dropped": summary.env_steps_dropped,
            "env_steps_in_flight": summary.env_steps_in_flight,
            "lag_max": summary.lag.max,
            "restarts": summary.restarts,
            "return_mean": summary.return_mean,
            "threshold_at_s": crossing.t_s if crossing else None,
            "threshold_at_env_steps": crossing.env_steps if crossing else None,
        }
    return found


def hit_actors_and_links(chaos: Chaos) -> dict[str, object]:
    """One run, that none of the faults may end."""
    command = chaos.bench.tianji("up", *SETTINGS, run="random")
    command.wait_for_training()
    chaos.began_s = time.monotonic()
    chaos.pursue(command)
    assert command.process.poll() is None, f"it ended early:\n{command.said}"
    chaos.recover()
    command.process.send_signal(signal.SIGINT)
    assert command.wait(120) == 130, command.said
    found = judge(command)
    assert found["status"] == "interrupted"
    chaos.bench.assert_nothing_left(within_s=30)
    return {"runs": [found]}


def hit_everything(chaos: Chaos) -> dict[str, object]:
    """Runs that go on from each other, as each ends by name."""
    runs: list[dict[str, object]] = []
    origin: tuple[str, ...] = ()
    at_s = 0.0
    while not chaos.is_over:
        command = chaos.bench.tianji("up", *origin, *SETTINGS, run=f"random-{len(runs)}")
        command.wait_for_training()
        chaos.began_s = time.monotonic() - at_s  # the schedule waits while no run is under way
        chaos.pursue(command)
        at_s = chaos.elapsed_s
        if chaos.is_over and command.process.poll() is None:
            command.process.send_signal(signal.SIGINT)
        command.wait(120)
        chaos.recover()
        runs.append(end_of(command, chaos))
        if list(command.run_dir.glob("checkpoints/v*.json")):
            origin = ("--resume", command.run_dir.name)
    return {"runs": runs}


def end_of(command: Command, chaos: Chaos) -> dict[str, object]:
    """A run has ended: by name, in good order, or with its command; `down` leaves nothing."""
    was_killed = command.code == -signal.SIGKILL
    if not was_killed:
        assert command.code in (0, 1, 7, 130), f"exit code {command.code}:\n{command.said}"
        if command.code == 1:
            assert NAMED.search(command.said), command.said
    down = chaos.bench.tianji("down", command.run_dir.name)
    assert down.wait(90) == 0, down.said
    chaos.bench.assert_nothing_left(within_s=40)
    return {**judge(command), "said": command.said.strip().splitlines()[-3:]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--faults", type=int, default=125)
    parser.add_argument("--severe", action="store_true")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args(arguments)
    out = wanted.out.resolve()  # commands are started elsewhere
    out.mkdir(parents=True)
    hide = [REPOSITORY / "engine", REPOSITORY / "tianji_cli"]
    with Lab.up(hosts=NUM_HOSTS, directory=out / "lab", hide=hide) as lab:
        hosts = [host.name for host in lab.hosts][1:]
        schedule = (
            read_schedule(wanted.replay)
            if wanted.replay
            else make_schedule(
                wanted.seed, wanted.seconds, wanted.faults, hosts, is_severe=wanted.severe
            )
        )
        write_schedule(out / "schedule.json", schedule)
        results = out / "results"
        results.mkdir()
        chaos = Chaos(Bench(lab, results), schedule, out / "faults.jsonl")
        try:
            outcome = (hit_everything if wanted.severe else hit_actors_and_links)(chaos)
        finally:
            for command in chaos.bench.started:
                if command.process.poll() is None:
                    command.process.kill()
                    command.process.wait()
    outcome |= {
        "seed": schedule.seed,
        "seconds": round(chaos.elapsed_s, 1),
        "late_s": round(chaos.late_s, 1),
        "faults": chaos.done.total(),
        "kinds": dict(chaos.done),
        "skipped": dict(chaos.skipped),
    }
    (out / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps(outcome, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
