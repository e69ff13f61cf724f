"""`job.json`: the Slurm job of a submitted run, for `status`, `logs` and `down`.

It lies in the run's directory from the submission on, so that no other run takes the name. A job
that Slurm requeues continues as a new run beside it (`tianji_cli.runs.continuing`), whose directory
has a copy.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from tianji_cli.slurm.allocation import JOB_VARIABLE
from tianji_cli.slurm.batch_script import JOB_LOG
from tianji_cli.slurm.job_state import JobState
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.json_files import decode, read_document, write_json
from tianji_cli.storage.ownership import checksum_of, note_own
from tianji_cli.storage.run_dir import JOB_NAME, RunPaths, check_run_id

SCHEMA_VERSION = 1
_JOB = re.compile(r"[0-9]{1,12}")
_CLUSTER = re.compile(r"[A-Za-z0-9_.-]{0,100}")
_NAMES = re.compile(r"[A-Za-z0-9_.,@-]{0,255}")
"""Of a node, a partition or an account, in a record that can come from anywhere."""
_LASTING = ("run_id", "job", "cluster")


class SubmittedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that runs `up`.

    Attributes:
        run_id: The run's name when it was submitted; continued ones have others.
        job: Slurm's number.
        cluster: Of several, the one that has it; empty if there is one.
        is_elsewhere: The job writes to another disk, from which files were copied here.
        last: What Slurm said of its end, which it forgets after some minutes.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    job: str
    cluster: str = ""
    is_elsewhere: bool = False
    last: JobState | None = None


def write_job(root: Path, job: SubmittedJob) -> None:
    """Replaces the file.

    Raises:
        OSError: It cannot be written.
    """
    write_json(root / JOB_NAME, job)


def read_job(root: Path) -> SubmittedJob | None:
    """The job of a run's directory; None if it was not submitted.

    Raises:
        ConfigError: The file is damaged, or newer than this program.
    """
    path = root / JOB_NAME
    if not path.is_file():
        return None
    job = decode(read_document(path), SubmittedJob, SCHEMA_VERSION, "a submitted run", str(path))
    if not _JOB.fullmatch(job.job) or not _CLUSTER.fullmatch(job.cluster):
        raise ConfigError(f"{job.job!r} is no job of Slurm", where=str(path))
    check_run_id(job.run_id, str(path))
    for name in (job.last.batch_host, job.last.partition, job.last.account) if job.last else ():
        if not _NAMES.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of Slurm", where=str(path))
    return job


def note_own_job(job: SubmittedJob) -> None:
    """Records that this user has submitted it, so that nobody is asked later."""
    note_own(_checksum_of(job))


def need_consent(job: SubmittedJob, where: str, consent: Consent) -> None:
    """Before the job is ended, or its nodes are reached.

    Raises:
        ConfigError: Its record comes from elsewhere, and the user does not agree.
    """
    consent.need(_checksum_of(job), "run", where, [f"Slurm job {job.job}", f"run {job.run_id}"])


def _checksum_of(job: SubmittedJob) -> str:
    return checksum_of(msgspec.json.encode(job), only=_LASTING)


def note_job(paths: RunPaths, first: str, variables: Mapping[str, str] = os.environ) -> None:
    """Records in a run's directory which submitted job it runs in, if this is not there yet.

    The submission records it, too; but it need not have done so yet, nor on the same disk.

    Args:
        paths: The run.
        first: The name of the job's first run, whose directory has the log that the job opens.
        variables: The environment.
    """
    job = variables.get(JOB_VARIABLE, "")
    is_submitted = _JOB.fullmatch(job) and (paths.root.parent / first / JOB_LOG).exists()
    if is_submitted and not (paths.root / JOB_NAME).exists():
        with contextlib.suppress(OSError):  # what prevents this prevents the run, which is told
            known = read_job(paths.root.parent / first) or SubmittedJob(run_id=first, job=job)
            write_job(paths.root, known)
            note_own_job(known)
