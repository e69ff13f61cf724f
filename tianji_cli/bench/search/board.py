"""The trials of a search in Optuna's storage, a SQLite file. The only module that runs Optuna.

A trial of a search has a number of its own; each attempt at it is a trial of Optuna's. An attempt
that was interrupted is marked as failed there, and the next one has the same setting.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from engine.envs.extras import install_command
from engine.errors import ConfigError
from tianji_cli.bench.search.space import Params, contains, grid_points, seed_of
from tianji_cli.bench.search.spec import CategoricalRange, IntRange, Range, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import Trial

State: TypeAlias = Literal["complete", "pruned", "failed"]
TRIAL = "trial"
"""The attribute of Optuna's trials that names ours."""
NO_TRIAL = -1
"""Of one that a kill left before it was named."""
NUM_POINTS = 10
"""How many returns of a run the pruner sees, evenly spread over the budget."""


@dataclass(frozen=True)
class Told:
    """A trial that has ended, as it is known from the records of its runs.

    Attributes:
        params: Its setting.
        state: How it ended.
        value: Of the objective; None unless it is complete.
        returns: Its intermediate values, by step (`step_of`).
    """

    params: Params
    state: State
    value: float | None = None
    returns: Mapping[int, float] = field(default_factory=dict)


def step_of(seed_number: int, point: int) -> int:
    """Optuna's step of one intermediate return.

    Args:
        seed_number: Which run of the trial, from 0.
        point: Which share of the budget, from 1 to NUM_POINTS.

    >>> step_of(0, 1), step_of(0, 10), step_of(1, 1)
    (0, 9, 10)
    """
    return seed_number * NUM_POINTS + point - 1


def need_optuna() -> None:
    """Raises ConfigError if Optuna is not installed here."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"a search needs Optuna, which is not installed here: {error}",
            where="search",
            fix=install_command("tune", "optuna"),
        ) from error


@contextmanager
def storage_at(file: Path) -> Iterator[RDBStorage]:
    """Optuna's storage in a file, which is made if there is none.

    Raises:
        ConfigError: It is damaged, or cannot be written.
    """
    import optuna
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")  # lost with the machine it is made again
        return connection

    with _usable(file):  # the name in the URL is not used: a path can hold what no URL can
        storage = optuna.storages.RDBStorage(
            "sqlite:///search.db", {"creator": connect, "poolclass": NullPool}
        )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


class Board:
    """The trials of one task. Any thread may call it.

    Args:
        storage: From `storage_at`.
        file: Where it is.
        task: The task.
        search: Its search.
        done: Trials that have ended, by number; attempts at others that the storage knows were
            interrupted.

    Raises:
        ConfigError: The storage holds something else, or is damaged.
    """

    def __init__(
        self,
        storage: RDBStorage,
        file: Path,
        task: str,
        search: Search,
        done: Mapping[int, Told],
    ) -> None:
        self._file, self._task, self._search = file, task, search
        self._distributions = distributions_of(search)
        self._grid = grid_points(search) if search.sampler == "grid" else []
        self._lock = threading.RLock()
        self._attempts: dict[int, Trial] = {}  # those that go on, by our number
        self._again: dict[int, Params] = {}  # settings of interrupted ones
        with _usable(file):
            self._study = _open_study(storage, task, search)
            self._settle(done)

    def params_of(self, trial: int) -> Params:
        """The setting of a trial that is about to run; the sampler chooses it the first time."""
        with self._lock, _usable(self._file):
            return dict(self._attempt(trial).params)

    def heard(self, trial: int, returns: Mapping[int, float]) -> bool:
        """Takes the returns of one run of a trial so far, and decides whether it is to be pruned.

        Args:
            trial: Which is running.
            returns: By step, all of the same run.
        """
        from optuna.trial import TrialState, create_trial

        with self._lock, _usable(self._file):
            attempt = self._attempt(trial)
            values = self._report(attempt, returns)
            alone = create_trial(
                state=TrialState.RUNNING,
                params=attempt.params,
                distributions=self._distributions,
                intermediate_values=values,
            )  # the runs of a trial can go on side by side: each is judged by its own returns
            return self._study.pruner.prune(self._study, alone)

    def tell(self, trial: int, told: Told) -> None:
        """A trial has ended."""
        from optuna.trial import TrialState

        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        with self._lock, _usable(self._file):
            if trial not in self._attempts:
                self._again[trial] = told.params
            attempt = self._attempt(trial)
            self._report(attempt, told.returns)
            self._study.tell(attempt.number, told.value, states[told.state])
            del self._attempts[trial]

    def _report(self, attempt: Trial, returns: Mapping[int, float]) -> dict[int, float]:
        """Of returns more is better, also where a time is minimised."""
        sign = -1.0 if self._search.objective == "time to threshold" else 1.0
        values = {step: sign * value for step, value in returns.items()}
        known = self._study.get_trials(deepcopy=False)[attempt.number].intermediate_values
        for step, value in values.items():
            if step not in known:
                attempt.report(value, step)
        return values

    def _attempt(self, trial: int) -> Trial:
        """The attempt that goes on; a new one begins if there is none."""
        if trial not in self._attempts:
            fixed = self._again.pop(trial, None)
            if fixed is None and self._grid:
                fixed = self._grid[trial]
            found = self._asked(trial) if fixed is None else self._fixed(fixed)
            found.set_user_attr(TRIAL, trial)
            self._attempts[trial] = found
        return self._attempts[trial]

    def _asked(self, trial: int) -> Trial:
        """An attempt whose setting the sampler chooses, by a generator of its own."""
        self._study.sampler = _sampler(self._search, seed_of(self._search, self._task, trial))
        return self._study.ask(self._distributions)

    def _fixed(self, params: Params) -> Trial:
        """An attempt at a known setting."""
        from optuna.samplers import RandomSampler
        from optuna.trial import Trial, TrialState, create_trial

        frozen = create_trial(
            state=TrialState.RUNNING, params=params, distributions=self._distributions
        )
        self._study.add_trial(frozen)
        self._study.sampler = RandomSampler(seed=0)  # asked for nothing
        added = self._study.get_trials(deepcopy=False)[-1]
        return Trial(self._study, added._trial_id)  # as `ask` makes it; there is no public way

    def _settle(self, done: Mapping[int, Told]) -> None:
        """Makes the storage agree with the records: ends what an interrupted command left."""
        from optuna.trial import Trial, TrialState

        known = set()
        for frozen in self._study.get_trials(deepcopy=False):
            trial: int = frozen.user_attrs.get(TRIAL, NO_TRIAL)
            is_over = frozen.state.is_finished()
            if trial in done and frozen.params == done[trial].params:
                if not is_over:
                    self._attempts[trial] = Trial(self._study, frozen._trial_id)
                    self.tell(trial, done[trial])
                if frozen.state != TrialState.FAIL or done[trial].state == "failed":
                    known.add(trial)
                continue
            if not is_over:
                self._study.tell(frozen.number, state=TrialState.FAIL)
            if trial != NO_TRIAL and contains(self._search, frozen.params):
                self._again[trial] = dict(frozen.params)
        for trial in sorted(done.keys() - known):
            self._again.pop(trial, None)
            self.tell(trial, done[trial])


def distributions_of(search: Search) -> dict[str, BaseDistribution]:
    """The space, as Optuna names it."""
    return {key: _distribution(found) for key, found in search.space.items()}


def _distribution(found: Range) -> BaseDistribution:
    from optuna import distributions

    if isinstance(found, CategoricalRange):
        return distributions.CategoricalDistribution(found.choices)
    if isinstance(found, IntRange):
        return distributions.IntDistribution(found.low, found.high, found.log, found.step)
    return distributions.FloatDistribution(found.low, found.high, found.log, found.step)


def _open_study(storage: RDBStorage, task: str, search: Search) -> Study:
    import optuna

    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.is_pruned:
        pruner = optuna.pruners.MedianPruner(search.startup_trials)
    return optuna.create_study(
        storage=storage,
        pruner=pruner,
        study_name=task,
        direction="maximize" if search.to_maximize else "minimize",
        load_if_exists=True,
    )


def _sampler(search: Search, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if search.sampler == "random":
        return RandomSampler(seed)
    return TPESampler(n_startup_trials=search.startup_trials, seed=seed)


@contextmanager
def _usable(file: Path) -> Iterator[None]:
    """Turns what Optuna and SQLite raise into one error."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        raise ConfigError(
            f"the trials of the search cannot be kept: {error.__cause__ or error}",
            where=str(file),
            fix="free space there; if it is damaged, remove it: --resume makes it anew",
        ) from error
