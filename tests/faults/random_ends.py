"""Random starts, kills and ends of runs on this machine, and what must hold of each.

    python tests/faults/random_ends.py --seed 1 --rounds 200 --out DIR

Every kind of process is hit in every phase, attached and detached, often with a second run in the
same results directory. Of each run is asked: the exit code says what its summary says, no process
and no temporary file is left within 30 s, the ledger balances, its traces tell a possible history,
and its report accuses no file. `rounds.jsonl` in DIR holds a row a run; the exit code is 1 if any
run broke a rule.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from engine.errors import EXIT_INTERRUPTED, ConfigError  # noqa: E402
from engine.host.process_identity import find_marked  # noqa: E402
from engine.trace.reader import read_summary  # noqa: E402
from engine.trace.summary import Summary  # noqa: E402
from tests.faults.ends_schedule import COMMAND, LAYOUTS, PlannedRun, make_rounds  # noqa: E402
from tests.helpers.running import rows  # noqa: E402
from tianji_cli.commands.report import write_report  # noqa: E402
from tianji_cli.commands.up import AFTER_ITS_END  # noqa: E402
from tianji_cli.storage.run_dir import RunPaths  # noqa: E402

REPOSITORY = HERE.parents[1]
GONE_S = 30.0
"""P1: within so long nothing is left."""
PATIENCE_S = 90.0
"""For a moment to come, and for a run to end, on a busy machine."""
POLL_S = 0.01
STATUS_OF_CODE = {0: "ok", 1: "failed", 130: "interrupted"}
SIGNALS = {"terminate": signal.SIGTERM, "hang-up": signal.SIGHUP, "kill": signal.SIGKILL}


@dataclass
class Trial:
    """One planned run under way.

    Attributes:
        planned: What it is and what happens to it.
        run_id: Its name.
        results: Where it is written.
        command: Its `up`.
        scratch: Its own temporary directory, runtime directory and cache.
        happened: What was done to it, and how that is known.
        broken: The rules that it broke.
    """

    planned: PlannedRun
    run_id: str
    results: Path
    command: subprocess.Popen[str]
    scratch: Path
    happened: str = ""
    broken: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.results / self.run_id

    def said(self) -> str:
        """What its command wrote on standard error."""
        return (self.results / f"{self.run_id}.err").read_text()

    @property
    def is_leaving(self) -> bool:
        """Whether the command has ended, but its detached run may not have."""
        return self.planned.is_detached and self.command.poll() == 0

    def processes(self) -> list[psutil.Process]:
        """Everything of this run that lives, but its command."""
        found = []
        for pid, mark in find_marked().items():
            if mark.startswith(f"{self.run_id}@"):
                try:
                    found.append(psutil.Process(pid))
                except psutil.NoSuchProcess:
                    continue
        return found

    def target(self) -> psutil.Process | None:
        """The process that something is to happen to, if it lives."""
        if self.planned.target == COMMAND:
            return psutil.Process(self.command.pid) if self.command.poll() is None else None
        wanted = f"tj-{self.planned.target}"[:15]
        for process in self.processes():
            try:
                if process.name() == wanted:
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def is_over(self) -> bool:
        """Whether nothing can happen to it any more."""
        if self.command.poll() is None:
            return False
        return not self.is_leaving or not self.processes()

    def has_come(self) -> bool:
        """Whether the planned moment is here."""
        match self.planned.moment:
            case "launch":
                return True
            case "trained":
                return len(rows(self.root, "consumption")) > 3
            case "checkpoint":
                return any((self.root / "checkpoints").glob("*"))
            case "stopping":
                return any(row["kind"] == "stopping" for row in rows(self.root, "events"))


def begin(planned: PlannedRun, run_id: str, results: Path) -> Trial:
    """Starts `tianji up`, which knows no directory of this user but its own."""
    scratch = Path(tempfile.mkdtemp(prefix="tj-", dir="/tmp"))
    env = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY)}
    env |= {"TMPDIR": str(scratch), "XDG_RUNTIME_DIR": str(scratch)}
    if planned.layout == "compiling":
        env["XDG_CACHE_HOME"] = str(results / f"{run_id}.cache")
    settings = ["learner.compile=off", "stop.return_threshold=null", "checkpoint.every_s=1"]
    settings.append(f"stop.env_steps={planned.num_env_steps}")
    options = [text for setting in settings for text in ("-s", setting)]
    command = subprocess.Popen(
        [sys.executable, "-m", "tianji_cli", "up", "--results", str(results)]
        + ["--name", run_id, *options, *LAYOUTS[planned.layout]]
        + (["--detach"] if planned.is_detached else []),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(results / f"{run_id}.err").open("w"),
        env=env,
        text=True,
    )
    return Trial(planned, run_id, results, command, scratch)


def hit(trial: Trial) -> None:
    """Waits for the moment, does it, and says what proves it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not trial.has_come() and not trial.is_over() and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    time.sleep(trial.planned.delay_s)
    if trial.planned.act == "nothing":
        trial.happened = "nothing"
        return
    while (process := trial.target()) is None:
        if trial.is_over() or time.monotonic() > deadline_s:
            trial.happened = "missed: it had ended"
            return
        time.sleep(POLL_S)
    try:
        trial.happened = _act(trial.planned, process)
    except psutil.NoSuchProcess:
        trial.happened = "missed: it had just ended"


def _act(planned: PlannedRun, process: psutil.Process) -> str:
    if planned.act == "freeze":
        process.suspend()
        time.sleep(planned.frozen_s)
        process.resume()
    elif planned.act in SIGNALS:
        process.send_signal(SIGNALS[planned.act])
    else:
        process.send_signal(signal.SIGINT)
        if planned.act == "interrupt-twice":
            time.sleep(planned.delay_s)
            process.send_signal(signal.SIGINT)
    return f"{planned.act} of {planned.target}, process {process.pid}"


def undergo(trial: Trial) -> int:
    """Its whole life; returns the exit code of `up`."""
    hit(trial)
    return finish(trial)


def finish(trial: Trial) -> int:
    """Waits for the end; `down` where that is the way; what is left is told.

    Returns:
        The exit code of `up`.
    """
    try:
        code = trial.command.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        trial.broken.append(f"`up` had not ended after {PATIENCE_S:.0f} s")
        trial.command.kill()
        code = trial.command.wait()
    if trial.planned.is_detached and code == 0:
        _down(trial)
    deadline_s = time.monotonic() + GONE_S
    while (left := trial.processes()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    if left:
        trial.broken.append(f"left after {GONE_S:.0f} s: {[process.pid for process in left]}")
        for process in left:
            process.kill()
    return code


def _down(trial: Trial) -> None:
    arguments = ["down", trial.run_id, "--results", str(trial.results)]
    env = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "tianji_cli", *arguments],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        trial.broken.append(f"`down` ended with {done.returncode}: {done.stderr[-400:]}")


def judge(trial: Trial, code: int) -> None:
    """Adds the rules that the run broke."""
    if "Traceback" in (error := trial.said()):
        trial.broken.append(f"traceback: {error[-800:]}")
    summary = _summary(trial)
    if not trial.planned.is_detached:
        judge_code(trial, code, summary)
    if trial.planned.act != "kill" and any(trial.scratch.iterdir()):
        trial.broken.append(f"left: {sorted(path.name for path in trial.scratch.iterdir())}")
    if summary is not None:
        taken = summary.env_steps_consumed + summary.env_steps_dropped
        if summary.env_steps_collected != taken + summary.env_steps_in_flight:
            trial.broken.append("the ledger does not balance")
    _judge_report(trial)


def _summary(trial: Trial) -> Summary | None:
    try:
        return read_summary(trial.root / "summary.json")
    except ConfigError as error:
        trial.broken.append(f"the summary cannot be read: {error}")
        return None


def judge_code(trial: Trial, code: int, summary: Summary | None) -> None:
    """Adds what is wrong with an exit code, after what happened and beside what is written."""
    planned, was_hit = trial.planned, not trial.happened.startswith("missed")
    if was_hit and planned.target == COMMAND and planned.act == "kill":
        if code == -signal.SIGKILL:
            return
        trial.happened, was_hit = "missed: it was just ending", False  # who is killed has no code
    if planned.act == "interrupt-twice" and _ended_early(trial, code):
        return
    if summary is not None and STATUS_OF_CODE.get(code) != summary.status:
        trial.broken.append(f"exit code {code}, but its summary says {summary.status}")
    if code not in _allowed(trial, was_hit=was_hit):
        trial.broken.append(f"exit code {code} after {trial.happened}")


def _ended_early(trial: Trial, code: int) -> bool:
    """Whether a second Ctrl-C ended the command after its run, as it says or by no handler."""
    if code == -signal.SIGINT:
        return (trial.root / "summary.json").exists()
    return code == EXIT_INTERRUPTED and AFTER_ITS_END in trial.said()


def _allowed(trial: Trial, *, was_hit: bool) -> set[int]:
    """Exit codes that can be right; 0 too wherever the run can have been over already."""
    planned = trial.planned
    if not was_hit or planned.act in ("nothing", "freeze") or planned.target == "compiler":
        return {0}
    if planned.target == COMMAND:
        has_begun = (trial.root / "manifest.json").exists()
        return {0, 130} if has_begun else {130, -SIGNALS.get(planned.act, signal.SIGINT)}
    if planned.target == "supervisor" and planned.act == "terminate":
        return {0, 1, 130}
    has_spares = planned.target.startswith("actor-") and planned.layout != "central"
    return {0} if has_spares and planned.moment != "launch" else {0, 1}


def _judge_report(trial: Trial) -> None:
    """The report of what remains: it may find too little to report, but accuse no file."""
    if not (trial.root / "manifest.json").is_file():
        return
    try:
        document = write_report([RunPaths(trial.root)], None).document
    except ConfigError as error:
        if any(rows(trial.root, table) for table in ("production", "consumption", "episodes")):
            trial.broken.append(f"no report: {error}")
        return
    if document.runs[0].disagreements:
        trial.broken.append(f"disagreements: {document.runs[0].disagreements[:3]}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1, help="go on from this round")
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args(arguments)
    wanted.out.mkdir(parents=True)
    results = (wanted.out / "results").resolve()
    results.mkdir()
    counts: Counter[str] = Counter()
    with (wanted.out / "rounds.jsonl").open("w", buffering=1) as log:
        for planned in make_rounds(wanted.seed, wanted.rounds)[wanted.first - 1 :]:
            began_s = time.monotonic()
            names = [f"ends-{wanted.seed}-{planned.number}-{i}" for i in range(len(planned.runs))]
            trials = [
                begin(run, name, results) for run, name in zip(planned.runs, names, strict=True)
            ]
            with ThreadPoolExecutor(max_workers=len(trials)) as pool:
                codes = list(pool.map(undergo, trials))
            for trial, code in zip(trials, codes, strict=True):
                judge(trial, code)
                row = {"run": trial.run_id, "code": code, **asdict(trial.planned)}
                row |= {"happened": trial.happened, "broken": trial.broken}
                row["round_s"] = round(time.monotonic() - began_s, 1)
                log.write(json.dumps(row) + "\n")
                counts["broken" if trial.broken else "held"] += 1
                counts[f"{trial.planned.act} of {trial.planned.target}"] += 1
                shutil.rmtree(trial.scratch, ignore_errors=True)
                if not trial.broken:
                    shutil.rmtree(trial.root, ignore_errors=True)
                else:
                    print(trial.run_id, trial.happened, *trial.broken, sep="\n    ", flush=True)
    print(json.dumps(dict(sorted(counts.items())), indent=2))
    return 1 if counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
