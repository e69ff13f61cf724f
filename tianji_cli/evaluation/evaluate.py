"""Evaluates the policy of one run: plays episodes in parallel processes, and keeps what came out.

The processes are a tree that is ended with this command, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import engine
from engine.control_protocol import Refused
from engine.errors import RunFailedError
from engine.host.cores import allowed_cores
from engine.host.tether import tethered
from engine.search_path import with_own_path
from engine.wording import plural
from tianji_cli.bench.child import run_child, with_tail
from tianji_cli.bench.process_tree import modules_environment
from tianji_cli.evaluation.news import (
    OUTPUT,
    REQUEST,
    NewsReader,
    Played,
    PlayRequest,
    Stepped,
)
from tianji_cli.evaluation.plan import EvaluationSettings
from tianji_cli.evaluation.records import (
    EpisodeRow,
    EvaluatedFiles,
    EvaluatedRun,
    episodes_csv,
    evaluation_files,
    length_statistics,
    mean_by_name,
    return_statistics,
)
from tianji_cli.runs.controller import refusal
from tianji_cli.storage.json_files import write_json, writing
from tianji_cli.storage.safe_files import make_inside, write_file

if TYPE_CHECKING:
    from engine.trained.run import TrainedRun

PACKAGES = ("torch", "gymnasium", "numpy")
PLAYER = "tianji_cli.evaluation.player"


@dataclass
class EvaluationProgress:
    """How far an evaluation is.

    Attributes:
        num_episodes: All of them.
        rows: Those that have ended.
        env_steps: Taken so far, about.
        since_s: Seconds since it began.
    """

    num_episodes: int
    rows: list[EpisodeRow] = field(default_factory=list)
    env_steps: int = 0
    since_s: float = 0.0


Show = Callable[[EvaluationProgress], None]


def evaluate(run: TrainedRun, settings: EvaluationSettings, show: Show) -> EvaluatedFiles:
    """Plays all episodes and writes them beside the run.

    Args:
        run: Whose policy is evaluated.
        settings: How.
        show: Called several times a second.

    Returns:
        What was written.

    Raises:
        ConfigError: The policy or its environment cannot be loaded.
        RunFailedError: An environment has failed, or a process was killed.
        PreflightError: Nothing can be written beside the run.
        KeyboardInterrupt: The user stopped it; all processes were ended, nothing was written.
    """
    version = run.checkpoint.info.version
    document, table = evaluation_files(run.path, settings.name(version))
    with writing("the evaluation", run.path):
        make_inside(run.path, document.parent)
        if not os.access(document.parent, os.W_OK | os.X_OK):
            raise PermissionError(None, "Permission denied")
    num_processes = processes_for(len(settings.groups))
    begin_s = time.monotonic()
    rows = play(run, settings, num_processes, show)
    evaluated = _evaluated(run, settings, rows)
    evaluated = msgspec.structs.replace(
        evaluated, wall_s=round(time.monotonic() - begin_s, 3), num_processes=num_processes
    )
    with writing("the evaluation", document.parent):
        write_file(table, episodes_csv(rows))
        write_json(document, evaluated)
    return EvaluatedFiles(evaluation=evaluated, path=str(document), episodes_path=str(table))


def processes_for(num_groups: int) -> int:
    """As many as there are cores and groups."""
    return max(1, min(num_groups, len(allowed_cores()) or os.cpu_count() or 1))


def play(
    run: TrainedRun, settings: EvaluationSettings, num_processes: int, show: Show
) -> list[EpisodeRow]:
    """All episodes in their order; errors as of `evaluate`."""
    with tempfile.TemporaryDirectory(prefix="tianji-evaluate-") as place:
        directory = Path(place)
        request = PlayRequest(
            run=str(run.path.absolute()),
            experiment=run.experiment,
            checkpoint=str(run.checkpoint.path.absolute()),
            env_kwargs=settings.env_kwargs,
            seed=settings.seed,
            is_sampled=settings.is_sampled,
            max_env_steps=settings.max_env_steps,
            groups=settings.groups,
            num_processes=num_processes,
        )
        (directory / REQUEST).write_bytes(msgspec.json.encode(request))
        watch = _Watch(
            NewsReader(directory),
            EvaluationProgress(settings.episodes),
            run.experiment.watchdog.stalled_s,
            show,
        )
        environment = with_own_path({**os.environ, **modules_environment()})
        output = directory / OUTPUT
        ended = run_child(tethered(PLAYER, place), environment, Path.cwd(), output, watch)
        watch.look()
        if watch.refused is not None:
            raise refusal(watch.refused)
        if watch.is_stalled:
            raise _stalled(run, watch.stalled_s)
        rows = sorted(watch.progress.rows, key=lambda row: row.episode)
        if ended.exit_code != 0 or len(rows) != settings.episodes:
            raise _incomplete(run, settings.episodes - len(rows), ended.problem(output), output)
        return rows


@dataclass
class _Watch:
    """Follows the processes.

    Attributes:
        reader: Of what they tell.
        progress: How far they are.
        stalled_s: They are ended if none has taken a step for so long; None: never.
        show: Called with each look.
        refused: The first error that one of them told.
        is_stalled: Whether they were ended for that.
    """

    reader: NewsReader
    progress: EvaluationProgress
    stalled_s: float | None
    show: Show
    refused: Refused | None = None
    is_stalled: bool = False
    grace_s: float = 0.0
    _moved_s: float = 0.0

    def must_end(self, since_s: float, exit_code: int | None) -> bool:
        """See `tianji_cli.bench.child.Watcher`."""
        self.progress.since_s = since_s
        if self.look():
            self._moved_s = since_s
        self.show(self.progress)
        is_still = self.stalled_s is not None and since_s - self._moved_s >= self.stalled_s
        self.is_stalled = is_still and exit_code is None
        return self.is_stalled

    def look(self) -> bool:
        """Reads what is new; whether there was anything."""
        news = self.reader.look()
        for one in news:
            match one:
                case Played(row=row):
                    self.progress.rows.append(row)
                case Stepped(env_steps=env_steps):
                    self.progress.env_steps += env_steps
                case Refused():
                    self.refused = self.refused or one
        return bool(news)


def _stalled(run: TrainedRun, stalled_s: float | None) -> RunFailedError:
    return RunFailedError(
        f"no environment has taken a step for {stalled_s:g} s (watchdog.stalled_s of the run)",
        where=f"env.id {run.experiment.env.id}",
    )


def _incomplete(run: TrainedRun, missing: int, problem: str, output: Path) -> RunFailedError:
    """Processes that ended without a word of why: user code can end its process as it likes."""
    head = f"processes ended before {plural(missing, 'episode')} had"
    return RunFailedError(
        problem or with_tail(head, output), where=f"env.id {run.experiment.env.id}"
    )


def _evaluated(
    run: TrainedRun, settings: EvaluationSettings, rows: Sequence[EpisodeRow]
) -> EvaluatedRun:
    info = run.checkpoint.info
    versions = {name: metadata.version(name) for name in PACKAGES}
    return EvaluatedRun(
        run_id=run.path.name,
        checkpoint=run.checkpoint.path.relative_to(run.path).as_posix(),
        version=info.version,
        env_steps_consumed=info.counters.env_steps_consumed,
        env_id=run.experiment.env.id,
        env_kwargs=settings.env_kwargs,
        seed=settings.seed,
        episodes=settings.episodes,
        group_size=settings.group_size,
        is_sampled=settings.is_sampled,
        max_env_steps=settings.max_env_steps,
        returns=return_statistics(rows),
        agent_returns=mean_by_name([row.agent_returns for row in rows]),
        policy_returns=mean_by_name([row.policy_returns for row in rows]),
        lengths=length_statistics(rows),
        num_at_limit=sum(row.ended_by == "limit" for row in rows),
        versions={"tianji": engine.__version__, **versions},
        evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=0.0,
        num_processes=0,
    )
