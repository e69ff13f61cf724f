"""Runs the trials of a search: asks for settings, lets runs be pruned, tells what came of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, RunFailedError
from engine.spec import StopSpec
from engine.wording import plural
from tianji_cli.bench.search.board import NUM_POINTS, Board, Told, step_of, storage_at
from tianji_cli.bench.search.progress import ReturnProgress
from tianji_cli.bench.search.space import Params
from tianji_cli.bench.study.records import StudyCell, StudyRun
from tianji_cli.bench.study.run import StudyCampaign, write_experiment
from tianji_cli.bench.study.trials import runs_of_trial, told_of
from tianji_cli.storage.safe_files import check_inside, make_inside


class Pruning:
    """Whether one run is to be pruned; asked while it runs.

    Args:
        progress: Its returns so far.
        ask: Whether it is to be pruned, given its returns by point.
        warmup: Share of the budget during which it is not.
    """

    def __init__(
        self, progress: ReturnProgress, ask: Callable[[dict[int, float]], bool], warmup: float
    ) -> None:
        self._progress, self._ask, self._warmup = progress, ask, warmup

    @property
    def returns(self) -> dict[int, float]:
        return dict(self._progress.returns)

    def __call__(self) -> bool:
        if not self._progress.look():
            return False
        is_below = self._ask(self.returns)
        last = max(self._progress.returns)
        return is_below and self._warmup * NUM_POINTS <= last < NUM_POINTS


class Searcher:
    """The search of a study while its runs are made. Any thread may call it.

    Args:
        work: The study.
        held: Closes the storage.

    Raises:
        ConfigError: The storage cannot be used.
        PreflightError: A link leads out of the study's directory.
    """

    def __init__(self, work: StudyCampaign, held: ExitStack) -> None:
        study, files = work.manifest.suite, work.files
        assert study.search is not None
        self._work, self._search = work, study.search
        self._runs = files.read_results(work.manifest)
        self._lock = threading.RLock()
        self._num_failed = 0
        check_inside(files.root, files.trials)
        storage = held.enter_context(storage_at(files.trials))
        self._boards = {
            task: Board(storage, files.trials, task, study.search, self._done(task))
            for task in study.tasks
        }

    def _done(self, task: str) -> dict[int, Told]:
        """The trials of a task that are finished."""
        manifest, found = self._work.manifest, {}
        for trial, variant in enumerate(manifest.suite.variants_of(task)):
            own = runs_of_trial(manifest, task, variant, self._runs)
            if (told := told_of(manifest, task, own)) is not None:
                found[trial] = told
        return found

    def begin(self, cell: StudyCell) -> Params:
        """The setting of the trial that a run belongs to."""
        return self._boards[cell.task].params_of(self._trial(cell))

    def skipped(self, cell: StudyCell, params: Params) -> StudyRun | None:
        """The record of a run that is not made because its trial was pruned with another seed."""
        with self._lock:
            own = runs_of_trial(self._work.manifest, cell.task, cell.variant, self._runs)
            pruned = next((run for run in own if run.outcome == "pruned"), None)
        if pruned is None:
            return None
        return StudyRun(
            cell=cell,
            outcome="pruned",
            detail=f"the trial was pruned with seed {pruned.cell.seed}",
            disagreements=0,
            machine_id=self._work.manifest.machine.id,
            params=params,
        )

    def pruning(self, cell: StudyCell, params: Params) -> Pruning:
        """For a run that is about to be made."""
        board, trial, study = self._boards[cell.task], self._trial(cell), self._work.manifest.suite
        stop = self._stop(cell, params)
        progress = ReturnProgress(
            self._work.files.cell(cell),
            stop.return_window,
            study.budget_of(cell.task),
            stop.return_of,
        )

        def ask(returns: dict[int, float]) -> bool:
            steps = {step_of(cell.seed, point): value for point, value in returns.items()}
            is_below = board.heard(trial, steps)
            return is_below or self.skipped(cell, params) is not None

        return Pruning(progress, ask, self._search.warmup)

    def stored(self, run: StudyRun) -> None:
        """A run is in its file; if it was the last one of its trial, the sampler learns from it.

        Raises:
            RunFailedError: More trials have failed than may.
        """
        task, manifest = run.cell.task, self._work.manifest
        with self._lock:
            self._runs[run.cell] = run
            own = runs_of_trial(manifest, task, run.cell.variant, self._runs)
            told = told_of(manifest, task, own)
            if told is None:
                return
            self._num_failed += told.state == "failed"
            num_failed = self._num_failed
        self._boards[task].tell(self._trial(run.cell), told)
        if num_failed > self._search.max_failed:
            raise RunFailedError(
                f"{plural(num_failed, 'trial')} failed, the last: {run.detail}",
                where=run.cell.name,
                fix=f"the logs in {self._work.files.runs} say why; --resume tries the others",
            )

    def _stop(self, cell: StudyCell, params: Params) -> StopSpec:
        """Which mean return of a run counts."""
        files, study = self._work.files, self._work.manifest.suite
        make_inside(files.root, files.runs)
        write_experiment(files, self._work.manifest, cell.task)
        words = study.settings_of(cell.task, cell.variant, params)
        try:
            experiment, _ = load_experiment(files.experiment(cell.task), words)
        except ConfigError:  # the run will say so
            return StopSpec()
        return experiment.stop

    def _trial(self, cell: StudyCell) -> int:
        return self._work.manifest.suite.trial_of(cell.variant)
