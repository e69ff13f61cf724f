"""Makes the runs of a study, side by side on different hosts, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.errors import HostUnreachableError
from tianji_cli.bench.compatibility import Versions, check_host_versions, host_versions
from tianji_cli.bench.crew import Crew
from tianji_cli.bench.places import PlacePool, RunPlace, Stay
from tianji_cli.bench.study.records import StudyCell, StudyRun
from tianji_cli.bench.study.run import StudyCampaign, Turn, run_cell
from tianji_cli.bench.study.searching import Searcher


class StudyCrew(Crew[StudyCell, StudyRun]):
    """Runs each cell at a free place.

    Args:
        work: The study.
        places: As many as runs go on at once.
        searcher: Chooses the settings of trials; None: no search.
        show: Called with the cells that are running, whenever they change.
        say: Called with messages for the user.
    """

    def __init__(
        self,
        work: StudyCampaign,
        places: Sequence[RunPlace],
        searcher: Searcher | None,
        show: Callable[[Sequence[str]], None],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(num_parallel=len(places))
        self._work, self._searcher = work, searcher
        self._pool = PlacePool(places)
        self._show, self._say = show, say
        self._running: dict[str, None] = {}
        done = work.files.read_results(work.manifest).values()
        self._versions: list[Versions] = [_versions(run) for run in done]

    def __call__(self, cell: StudyCell) -> StudyRun:
        params = {} if self._searcher is None else self._searcher.begin(cell)
        skipped = None if self._searcher is None else self._searcher.skipped(cell, params)
        if skipped is not None:
            return skipped
        while True:  # until it has found hosts that can be reached, or none is left
            stay = self._pool.take(self.stop)
            self._running[cell.name] = None
            self._show(list(self._running))
            try:
                run = self._run(cell, stay, Turn(place=stay.place, params=params, stop=self.stop))
            except HostUnreachableError as error:
                self._pool.lose(stay)
                self._say(f"{error.where}: no more runs there: {error.what}")
                continue
            except BaseException:
                self._pool.leave(stay)
                raise
            finally:
                del self._running[cell.name]
            self._pool.leave(stay)
            return run

    def stored(self, run: StudyRun) -> None:
        self._versions.append(_versions(run))
        if self._searcher is not None:
            self._searcher.stored(run)

    def _run(self, cell: StudyCell, stay: Stay, turn: Turn) -> StudyRun:
        pruning = None
        if self._searcher is not None:
            pruning = self._searcher.pruning(cell, dict(turn.params))
            turn = Turn(turn.place, turn.params, pruning, turn.stop)
        run = run_cell(self._work, cell, turn)
        check_host_versions(self._versions, _versions(run), str(self._work.files.cell(cell)))
        return msgspec.structs.replace(
            run,
            num_beside=stay.num_beside,
            intermediate={} if pruning is None else pruning.returns,
        )


def _versions(run: StudyRun) -> Versions:
    """By host, of the packages that it ran with; only if it had an inventory."""
    return host_versions(run.manifest) if run.hosts else {}
