"""A run that was submitted to Slurm: its record, its job, and its directories here."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec

from tianji_cli.runs.continuing import begun_runs
from tianji_cli.slurm.batch_script import JOB_LOG
from tianji_cli.slurm.job_record import SubmittedJob, need_consent, read_job, write_job
from tianji_cli.slurm.job_state import JobState
from tianji_cli.slurm.programs import JobQuery
from tianji_cli.storage.consent import NOBODY, Consent
from tianji_cli.storage.run_dir import JOB_NAME, RunPaths, directories_with

LOOK_S = 1.0
"""How often Slurm is asked about a job that is ending."""
BEGUN = "manifest.json"


class SubmittedRun:
    """A submitted run.

    Args:
        results: The results directory.
        job: Its job.
        query: Asks Slurm; tests give their own.
        consent: The user's, to a job that was not submitted here.
    """

    def __init__(
        self,
        results: Path,
        job: SubmittedJob,
        query: JobQuery | None = None,
        consent: Consent = NOBODY,
    ) -> None:
        self.results = results
        self.job = job
        self._consent = consent
        self.query = query or JobQuery(job.job, job.cluster)

    @property
    def words(self) -> str:
        """The job, for the user."""
        return f"Slurm job {self.job.job}"

    @property
    def first(self) -> RunPaths:
        """The directory that was made when it was submitted."""
        return RunPaths(self.results / self.job.run_id)

    @property
    def runs(self) -> list[RunPaths]:
        """All runs of the job that have begun, oldest first, as far as they are here."""
        return begun_runs(self.results, self.job.run_id)

    @property
    def current(self) -> RunPaths:
        """The run that the job is at, or was last; before it has begun, the first."""
        return (self.runs or [self.first])[-1]

    @property
    def log(self) -> Path:
        """What `up` has said in the job, in all runs."""
        return self.first.root / JOB_LOG

    def need_consent(self) -> None:
        """Before the job is ended, or its nodes are reached.

        Raises:
            ConfigError: It was not submitted here, and the user does not agree.
        """
        need_consent(self.job, str(self.first.root / JOB_NAME), self._consent)

    def look(self) -> JobState:
        """What Slurm says of the job; its end is recorded here, since Slurm forgets it.

        Raises:
            PreflightError: Slurm cannot be asked.
        """
        state, last = self.query.state(), self.job.last
        if last is not None and state.is_over and not state.batch_host:
            return last  # the controller has forgotten it; accounting knows less
        if state.phase == "ended" and state != last:
            self._record(last=state)
        return state

    def note_elsewhere(self) -> None:
        """Records that its files are on another disk, and are copied from there."""
        self._record(is_elsewhere=True)

    def _record(self, **facts: JobState | bool) -> None:
        self.job = msgspec.structs.replace(self.job, **facts)
        with contextlib.suppress(OSError):  # a full disk: it is found out again
            write_job(self.first.root, self.job)

    def await_end(self, within_s: float) -> JobState:
        """Asks Slurm again and again until the job is over, or time is up.

        Raises:
            PreflightError: Slurm cannot be asked.
        """
        deadline_s = time.monotonic() + within_s
        while not (state := self.look()).is_over and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)  # Slurm sends no events
        return state


def find_submitted(
    results: Path, name: str | None, consent: Consent = NOBODY
) -> SubmittedRun | None:
    """The submitted run of a name, or the newest run if it was submitted; else None.

    Args:
        results: The results directory.
        name: A run's id, a unique prefix of one, or its path; None: the newest.
        consent: The user's.

    Raises:
        ConfigError: Its record is damaged.
    """
    if name is not None and (job := _job_at(Path(name).resolve())) is not None:
        return SubmittedRun(Path(name).resolve().parent, job, consent=consent)
    places = [*directories_with(results, BEGUN), *directories_with(results, JOB_NAME)]
    if name is None:
        job = _job_at(max(places)[1]) if places else None
        return SubmittedRun(results, job, consent=consent) if job is not None else None
    roots = {place.name: place for _, place in places}
    if name in roots:
        job = _job_at(roots[name])
        return SubmittedRun(results, job, consent=consent) if job is not None else None
    # Runs that continue a job's first one start with its name, too.
    found = [_job_at(place) for known, place in roots.items() if name and known.startswith(name)]
    jobs = {job.run_id: job for job in found if job is not None}
    is_one = len(jobs) == 1 and None not in found
    return SubmittedRun(results, jobs.popitem()[1], consent=consent) if is_one else None


def _job_at(place: Path) -> SubmittedJob | None:
    """The record of a run's directory; that of the job's first run, if this is a copy of it."""
    job = read_job(place)
    if job is None or job.run_id == place.name:
        return job
    first = read_job(place.parent / job.run_id)
    return first if first is not None and first.job == job.job else job
