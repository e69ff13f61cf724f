"""Makes the runs of a reproduction: each as a user would start it, then judged as published."""

from __future__ import annotations

import csv
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.config.config_file import Document, apply_settings, convert, read_yaml
from engine.files import read_regular
from engine.search_path import module_command, with_own_path
from engine.spec import Experiment
from engine.trace.columns import column_of
from engine.trace.reader import read_columns
from engine.trace.records import Episode
from engine.wording import plural
from tianji_cli import units
from tianji_cli.bench.campaign import Campaign
from tianji_cli.bench.cells import beginning
from tianji_cli.bench.child import run_child
from tianji_cli.bench.crew import Crew
from tianji_cli.bench.places import RunPlace
from tianji_cli.bench.published.records import PublishedFiles, PublishedManifest, PublishedRun
from tianji_cli.bench.published.suite import VARIANT, PublishedRow, PublishedSuite
from tianji_cli.bench.study.crew import StudyCrew
from tianji_cli.bench.study.records import StudyCell, StudyFiles, StudyManifest, StudyRun
from tianji_cli.bench.study.run import RunWatcher, StudyCampaign, Turn, plan_cells
from tianji_cli.config.lookup import find_file
from tianji_cli.storage.json_files import read_document, write_json
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import make_inside, named_inside

COMPILATION_S = 600.0
"""Seconds after which a compiler is ended; runs are eager then until their own has ended."""
EVALUATION_S = 1800.0
"""Seconds after which an evaluation is ended."""
FULL_STOP = "env_steps"
"""Why a run must have ended: it has done all its env steps."""
DIGITS = 4
"""Of stored returns."""
MAX_EPISODES_BYTES = 1 << 24

PublishedCampaign: TypeAlias = Campaign[PublishedFiles, PublishedManifest, StudyCell]


def new_reproduction(suite: PublishedSuite, root: Path) -> PublishedCampaign:
    """Plans one in `root`; writes nothing yet."""
    manifest = PublishedManifest(
        bench_id=root.name,
        suite=suite,
        experiments={
            name: read_yaml(find_file("experiments", row.experiment)).data
            for name, row in suite.rows.items()
        },
        cells=plan_cells(suite.study),
        **beginning(),
    )
    return Campaign(PublishedFiles(root), manifest, manifest.cells)


def as_study(work: PublishedCampaign) -> StudyCampaign:
    """The study that makes its runs, in the same directory."""
    own = work.manifest
    manifest = StudyManifest(
        bench_id=own.bench_id,
        argv=own.argv,
        suite=own.suite.study,
        cells=own.cells,
        machine=own.machine,
        versions=own.versions,
        git=own.git,
        started_at=own.started_at,
        experiments=own.experiments,
    )
    return Campaign(StudyFiles(work.files.root), manifest, work.open_cells)


class PublishedCrew(Crew[StudyCell, PublishedRun]):
    """Trains each run at a free place, then judges it.

    Args:
        work: The reproduction.
        places: As many as runs go on at once.
        show: Called with the runs that are training, whenever they change.
        say: Called with messages for the user.
    """

    def __init__(
        self,
        work: PublishedCampaign,
        places: Sequence[RunPlace],
        show: Callable[[Sequence[str]], None],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(num_parallel=len(places))
        self._work, self._say = work, say
        self._trainer = StudyCrew(as_study(work), places, None, show, say)
        self.stop = self._trainer.stop
        self._compiling = threading.Lock()
        self._compiled: set[str] = set()

    def __call__(self, cell: StudyCell) -> PublishedRun:
        with self._compiling:
            if cell.task not in self._compiled:
                self._compiled.add(cell.task)
                compile_row(self._work, cell.task, Turn(stop=self.stop), self._say)
        trained = self._trainer(cell)
        run = PublishedRun(**{name: getattr(trained, name) for name in trained.__struct_fields__})
        return judge_run(self._work, run, Turn(stop=self.stop))


def compile_row(work: PublishedCampaign, row: str, turn: Turn, say: Callable[[str], None]) -> None:
    """Compiles what the runs of a row will use, unless the cache has it; says how it went.

    Side by side, runs leave their own compilers hardly any time of a core.

    Raises:
        KeyboardInterrupt: The user stopped it.
    """
    files, manifest = work.files, work.manifest
    document = Document(row, manifest.experiments[row], {})
    words = manifest.suite.study.settings_of(row, VARIANT)
    experiment = convert(apply_settings(document, words), Experiment)
    if experiment.learner.compile == "off":
        return
    say(f"{row}: compiling")
    make_inside(files.root, files.runs)
    request = named_inside(files.runs, f"{row}.compiled.json")
    output = request.with_suffix(".log")
    output.unlink(missing_ok=True)
    write_json(request, experiment)
    argv = module_command(sys.executable, "engine.compilation.precompile", str(request))
    begin_s = time.monotonic()
    env = with_own_path(dict(os.environ))
    ended = run_child(argv, env, Path.cwd(), output, RunWatcher(COMPILATION_S, turn))
    if turn.stop.is_asked:
        raise KeyboardInterrupt
    problem = ended.problem(output)
    took = units.seconds(time.monotonic() - begin_s)
    say(f"{row}: nothing was compiled: {problem}" if problem else f"{row}: compiled in {took}")


def judge_run(work: PublishedCampaign, run: PublishedRun, turn: Turn) -> PublishedRun:
    """Adds the returns that judge a run which has been trained.

    Args:
        work: The reproduction.
        run: As the study has concluded it.
        turn: Ends an evaluation if all runs are to end.

    Raises:
        KeyboardInterrupt: The user stopped it.
    """
    row = work.manifest.suite.rows[run.cell.task]
    if problem := why_unfinished(run):
        return failed(run, problem)
    if row.judge == "training":
        found = last_returns(RunPaths(work.files.cell(run.cell)), row.episodes)
        if len(found) < row.episodes:
            ended = plural(len(found), "episode")
            return failed(run, f"only {ended} ended; {row.episodes} judge it")
        return msgspec.structs.replace(run, judged=found)
    return _evaluated(work, run, row, turn)


def why_unfinished(run: StudyRun) -> str:
    """Why a run cannot be judged; empty if it can."""
    if run.outcome == "failed" or run.summary is None:
        return run.detail or "it wrote no summary"
    if run.summary.stop_reason != FULL_STOP:
        return f"it ended by {run.summary.stop_reason}, not after all its env steps"
    return ""


def failed(run: PublishedRun, problem: str) -> PublishedRun:
    return msgspec.structs.replace(run, outcome="failed", detail=problem)


def last_returns(run: RunPaths, count: int) -> list[float]:
    """Returns of the last training episodes, in the order in which they ended; fewer if fewer
    ended."""
    returns = column_of(read_columns(run.trace, Episode), "episode_return")
    return [round(float(value), DIGITS) for value in returns[-count:]]


def _evaluated(
    work: PublishedCampaign, run: PublishedRun, row: PublishedRow, turn: Turn
) -> PublishedRun:
    """Plays episodes with the final policy, in a command of its own."""
    root = work.files.cell(run.cell)
    output = work.files.runs / f"{run.cell.name}.evaluation.log"
    output.unlink(missing_ok=True)
    argv = module_command(
        sys.executable, "tianji_cli.main", "evaluate", str(root), "--episodes", str(row.episodes)
    )
    env = with_own_path(dict(os.environ))
    ended = run_child(argv, env, Path.cwd(), output, RunWatcher(EVALUATION_S, turn))
    if turn.stop.is_asked and not ended.is_by_itself:
        raise KeyboardInterrupt
    if problem := ended.problem(output):
        return failed(run, f"its policy could not be evaluated: {problem}")
    evaluation, judged = read_evaluation(RunPaths(root))
    return msgspec.structs.replace(run, judged=judged, evaluation=evaluation)


def read_evaluation(run: RunPaths) -> tuple[dict[str, object], list[float]]:
    """The document of the only evaluation of a run, and the returns of its episodes."""
    (document,) = run.evaluations.glob("*.json")
    evaluation = msgspec.json.decode(read_document(document), type=dict[str, object])
    table = read_regular(document.with_suffix(".csv"), MAX_EPISODES_BYTES).decode()
    rows = csv.DictReader(io.StringIO(table))
    return evaluation, [round(float(row["episode_return"]), DIGITS) for row in rows]
